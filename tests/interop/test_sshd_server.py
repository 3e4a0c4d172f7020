"""`dunnart sshd` in the place of OpenSSH's server: an ordinary sshd_config, met by OpenSSH's own clients."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dunnart.daemon.ways_in import this_user
from tests.interop.support import (
    SECONDS,
    Keys,
    dunnart_at,
    environment,
    eventually,
    free_port,
    program,
    settings,
    write_key,
)

USER = this_user().name
DEBIAN = """\
Include FOLDER/conf.d/*.conf

KbdInteractiveAuthentication no
UsePAM yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
Subsystem where /bin/pwd -P

Match User USER Address 127.0.0.0/8
    SetEnv PLACE="right here"
    AllowTcpForwarding local
    PubkeyAcceptedAlgorithms -ecdsa-sha2-nistp384*
Match LocalAddress 198.51.100.1
    ForceCommand echo elsewhere
"""
INCLUDED = """\
Port PORT
ListenAddress 127.0.0.1
HostKey FOLDER/host
HostKey FOLDER/missing
PidFile FOLDER/pid
AuthorizedKeysFile FOLDER/keys.%u
StrictModes no
PasswordAuthentication no
RequiredRSASize 4096
Banner FOLDER/banner
"""
ONLY_FILES = """\
Match User USER
    ForceCommand internal-sftp -u 027
    ChrootDirectory FOLDER/root
    PermitTTY no
    DisableForwarding yes
"""


class Machine:
    """A folder with a configuration, a host key and who may log in."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.folder = folder
        self.keys = keys
        (folder / "home").mkdir(0o755)
        (folder / "conf.d").mkdir()
        line = write_key(folder / "host", "ed25519")
        (folder / "known_hosts").write_text(f"machine {line}\n")
        (folder / f"keys.{USER}").write_text(keys.authorized.read_text())
        (folder / "banner").write_text("be welcome\n")
        self.port = free_port()  # sshd takes no port 0
        self.write(DEBIAN)

    def write(self, text: str) -> None:
        for name, content in (("sshd_config", text), ("conf.d/10-local.conf", INCLUDED)):
            filled = content.replace("FOLDER", str(self.folder)).replace("USER", USER).replace("PORT", str(self.port))
            (self.folder / name).write_text(filled)

    def command(self, *flags: str) -> list[str]:
        """Give the command for a server."""
        return dunnart_at(self.folder / "home", "sshd", "-f", str(self.folder / "sshd_config"), *flags)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder)

    @contextlib.contextmanager
    def running(self, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
        """Have a server in the foreground for as long as the block lasts; its log is in the file `log`."""
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self.command(*flags), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self.environment
            )
        try:
            assert eventually(lambda: "Server listening on" in self.log or process.poll() is not None)
            assert process.poll() is None, self.log
            yield process
        finally:
            process.terminate()
            out, _ = process.communicate(timeout=SECONDS)
            assert out == b""

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def options(self, *options: str, key: str = "ed25519") -> list[str]:
        return settings(
            HostKeyAlias="machine", UserKnownHostsFile=f"{self.folder}/known_hosts", Port=str(self.port), User=USER,
            IdentityFile=self.keys.path(key), **dict(each.split("=", 1) for each in options),
        )  # fmt: skip

    def ssh(self, says: str, *options: str, key: str = "ed25519", flags: Sequence[str] = ()) -> Done:
        line = [program("ssh"), *self.options(*options, key=key), *flags, "127.0.0.1", says]
        return subprocess.run(
            line, env=self.environment | {"LC_ONE": "1", "OTHER": "2"}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip

    def sftp(self, batch: str) -> Done:
        line = [program("sftp"), *self.options(), "-b", "-", "127.0.0.1"]
        return subprocess.run(
            line, input=batch, env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def machine(keys: Keys, tmp_path: Path) -> Machine:
    return Machine(tmp_path, keys)


def test_debians_configuration_with_more_files_and_blocks(machine: Machine) -> None:
    with machine.running("-D", "-e"):
        assert f"Unable to load host key: {machine.folder}/missing" in machine.log
        done = machine.ssh('echo "$LC_ONE ${OTHER-none} $PLACE"', "SendEnv=LC_ONE OTHER")
        assert (done.stdout, done.stderr) == ("1 none right here\n", "be welcome\n")
        done = machine.ssh("true", key="rsa")
        assert (done.returncode, "Permission denied (publickey)" in done.stderr) == (255, True), done
        assert eventually(lambda: "an RSA key of 3072 bits; 4096 are wanted" in machine.log)
        assert machine.ssh("true", key="ecdsa384").returncode == 255
        assert eventually(lambda: "ecdsa-sha2-nistp384 is not for this user" in machine.log)
        done = machine.sftp("ls /\n")
        assert "tmp" in done.stdout, done
        assert machine.ssh("where", flags=["-s"]).stdout == f"{machine.folder}/home\n"
        done = machine.ssh("", flags=["-W", f"127.0.0.1:{machine.port}"])
        assert done.stdout.startswith("SSH-2.0-dunnart"), done
        done = machine.ssh("true", "ExitOnForwardFailure=yes", "RemoteForward=0 127.0.0.1:1")
        assert (done.returncode, "remote port forwarding failed" in done.stderr) == (255, True), done
        # SIGHUP reads the configuration again, with what it includes.
        machine.write(DEBIAN.replace("right here", "elsewhere") + "    Foo bar\n")
        pid = (machine.folder / "pid").read_text()
        assert pid == f"{int(pid)}\n"
        os.kill(int(pid), signal.SIGHUP)
        assert eventually(lambda: "Bad configuration option: Foo" in machine.log)
        assert machine.ssh("echo $PLACE").stdout == "right here\n"
        machine.write(
            DEBIAN.replace("right here", "elsewhere").replace(
                "AllowTcpForwarding local", "GatewayPorts clientspecified"
            )
        )
        os.kill(int(pid), signal.SIGHUP)
        assert eventually(lambda: "the configuration was read again" in machine.log)
        assert machine.ssh("echo $PLACE").stdout == "elsewhere\n"
        # Everywhere, as the block lets this user's client say
        port = free_port()
        script = f"import socket; print(socket.create_connection(('127.0.0.2', {port})).recv(15))"
        done = machine.ssh(
            f"{sys.executable} -c {shlex.quote(script)}", f"RemoteForward=0.0.0.0:{port} 127.0.0.1:{machine.port}"
        )
        assert done.stdout == "b'SSH-2.0-dunnart'\n", done
    assert not (machine.folder / "pid").exists()


def test_logins_for_files_alone_see_their_folder(machine: Machine) -> None:
    machine.write(DEBIAN + ONLY_FILES)
    (machine.folder / "root/sub").mkdir(parents=True)
    with machine.running("-D", "-e"):
        done = machine.sftp(f"put {machine.folder}/banner sub/new\nls -l /sub\npwd\n")
        assert "Remote working directory: /\n" in done.stdout, done
        assert re.search(r"-rw-r----- .* /?sub/new\n", done.stdout), done
        done = machine.ssh("id")
        assert (done.returncode, done.stdout) != (0, ""), done
        assert "uid=" not in done.stdout
        done = machine.ssh("", flags=["-W", f"127.0.0.1:{machine.port}"])
        assert (done.returncode, done.stdout) == (255, ""), done


def test_a_block_bounds_tries_and_sessions(machine: Machine) -> None:
    machine.write(DEBIAN + "Match User USER\n    MaxSessions 1\n    MaxAuthTries 1\n")
    path = f"{machine.folder}/master"
    with machine.running("-D", "-e"):
        master = [program("ssh"), *machine.options(f"ControlPath={path}", "ControlMaster=yes"), "127.0.0.1", "cat"]
        with subprocess.Popen(
            master, env=machine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"x\n"
            done = machine.ssh("echo in", f"ControlPath={path}")
            assert "Session open refused by peer" in done.stderr, done
            assert done.stdout == "in\n", "by a connection of its own"
            process.stdin.close()
        done = machine.ssh("true", key="rsa")
        assert "too many authentication failures" in done.stderr, done
        assert eventually(lambda: "maximum authentication attempts exceeded for" in machine.log)


def test_ways_to_start(machine: Machine) -> None:
    # Without -D: into the background, and the command ends when the server listens.
    log = machine.folder / "sshd.log"
    subprocess.run(
        machine.command("-E", str(log)), env=machine.environment, stdin=subprocess.DEVNULL, check=True, timeout=SECONDS
    )
    pid = int((machine.folder / "pid").read_text())
    try:
        assert machine.ssh("echo in").stdout == "in\n", log.read_text()
        assert eventually(lambda: f"Accepted publickey for {USER}" in log.read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: not (machine.folder / "pid").exists())
    # -i: from inetd, here from a client that starts it
    wrapper = machine.folder / "proxy"
    wrapper.write_text(f"#!/bin/sh\nexec {shlex.join(machine.command('-i', '-e'))}\n")
    wrapper.chmod(0o700)
    done = machine.ssh("echo in", f"ProxyCommand={wrapper}")
    assert done.stdout == "in\n", done
    # -d: one connection, no pid file
    with machine.running("-d") as process:
        assert machine.ssh("echo in").stdout == "in\n"
        assert process.wait(SECONDS) == 0
        assert eventually(lambda: " debug/" in machine.log)
        assert not (machine.folder / "pid").exists()


def test_what_cannot_be_had_stops_the_start(machine: Machine) -> None:
    machine.write(DEBIAN + "PermitTunnel yes\nMatch User x\n    ExposeAuthInfo yes\n")
    done = subprocess.run(
        machine.command("-D", "-e"),
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 255
    for line, words in ((17, "PermitTunnel: yes is not"), (19, "ExposeAuthInfo: yes")):
        assert f"{machine.folder}/sshd_config line {line}: {words}" in done.stderr, done.stderr
