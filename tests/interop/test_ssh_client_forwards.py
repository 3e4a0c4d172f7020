"""What `dunnart ssh` and `dbclient` forward, the hosts they go through, and the configuration that they read."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from dunnart.daemon.ways_in import this_user
from tests.interop.forwards import echoing
from tests.interop.peers import SERVERS, Peers
from tests.interop.ssh_programs import Home, line, way
from tests.interop.support import SECONDS, Keys, eventually, free_port, program

USER = this_user().name
_PIPE = (
    "import os, socket, sys, threading as t; s = socket.create_connection(sys.argv[1:]);"
    "t.Thread(target=lambda: [os.write(1, d) for d in iter(lambda: s.recv(65536), bytes())] and os._exit(0)).start();"
    "[s.sendall(d) for d in iter(lambda: os.read(0, 65536), bytes())]; os._exit(0)"
)
"""What nc does, for Python: between stdin, stdout and a port."""


def talk(address: tuple[str, int] | str, greeting: bytes = b"", answer: bytes = b"") -> bytes:
    """Send something to an echo, perhaps after words with a proxy; gives what comes back."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock:
        sock.settimeout(SECONDS)
        sock.connect(address)
        if greeting:
            sock.sendall(greeting)
            with sock.makefile("rb", buffering=0) as file:
                assert b"".join(file.read(1) or b"" for _ in answer) == answer
        sock.sendall(b"hello ")
        sock.shutdown(socket.SHUT_WR)
        found = b""
        while data := sock.recv(100):
            found += data
        return found


def listens(where: int | str) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as sock:
        return sock.connect_ex(where if isinstance(where, str) else ("127.0.0.1", where)) == 0


@pytest.mark.parametrize("name", SERVERS)
def test_forwards(name: str, peers: Peers, keys: Keys, home: Home, tmp_path: Path) -> None:
    """-L, -R, -D, -W and unix sockets, at the same time."""
    home.knows(peers[name])
    to = way(peers[name], keys.path("ed25519"))
    ports = [free_port() for _ in range(4)]
    paths = {each: str(tmp_path / each) for each in ("near", "far", "echo")}
    with echoing() as echo, echoing(Path(paths["echo"])):
        flags = ["-N", "-L", f"{ports[0]}:localhost:{echo.port}", "-R", f"{ports[1]}:127.0.0.1:{echo.port}"]
        flags += ["-D", str(ports[2]), "-o", "ExitOnForwardFailure=yes", "-L", f"{paths['near']}:127.0.0.1:{echo.port}"]
        if name != "dropbear":  # which has no unix sockets
            flags += ["-R", f"{paths['far']}:{paths['echo']}", "-L", f"{ports[3]}:{paths['echo']}"]
        with home.running(*flags, *to) as process:
            wanted: list[int | str] = [*ports[:3], paths["near"]]
            wanted += [paths["far"], ports[3]] if name != "dropbear" else []
            assert eventually(lambda: all(map(listens, wanted)) or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            for where in wanted:
                if where != ports[2]:
                    assert talk(where if isinstance(where, str) else ("127.0.0.1", where)) == b"hello bye", where
            target = struct.pack("!B9sH", 9, b"127.0.0.1", echo.port)
            five = b"\5\1\0" + b"\5\1\0\3" + target
            assert talk(("127.0.0.1", ports[2]), five, b"\5\0" + b"\5\0\0\1" + bytes(6)) == b"hello bye"
            four = struct.pack("!BBH4s", 4, 1, echo.port, socket.inet_aton("127.0.0.1")) + b"user\0"
            assert talk(("127.0.0.1", ports[2]), four, b"\0\x5a" + bytes(6)) == b"hello bye"
            closed = struct.pack("!BBH4s", 4, 1, free_port(), b"\0\0\0\1") + b"user\0" + b"127.0.0.1\0"
            with socket.create_connection(("127.0.0.1", ports[2]), SECONDS) as sock:
                sock.sendall(closed)
                assert sock.makefile("rb").read() == b"\0\x5b" + bytes(6)
        done = home.run("-W", f"127.0.0.1:{echo.port}", *to, said=b"hello ")
        assert done.stdout == b"hello bye"
        taken = home.run("-L", f"{echo.port}:h:1", "-o", "ExitOnForwardFailure=yes", "-N", *to, status=255)
        assert b"cannot listen on" in taken.stderr
        refused = home.run("-W", f"127.0.0.1:{ports[0]}", *to, status=255)
        assert b"the server refused the channel" in refused.stderr


def test_through_other_hosts_by_a_configuration(peers: Peers, keys: Keys, home: Home) -> None:
    """ProxyJump over two hosts, ProxyCommand, Include, Match, tokens; sftp and scp read the same file."""
    home.knows(*peers.all())
    (home.folder / ".ssh" / "more").write_text(f"IdentityFile {keys.path('ed25519')}\nSetEnv LC_SEEN=yes\n")
    blocks = "".join(f"Host {peer.name}\n HostName 127.0.0.1\n Port {peer.port}\n" for peer in peers.all())
    pipe = f"{sys.executable} -c '{_PIPE}'"
    home.config(
        f"{blocks}Host inner\n HostName 127.0.0.1\n Port {peers['ours'].port}\n ProxyJump sshd,{USER}@dropbear\n"
        f"Host piped\n HostName 127.0.0.1\n Port {peers['sshd'].port}\n ProxyCommand {pipe} %h %p\n"
        f"Match host 127.0.0.1 user {USER}\n Include more\nMatch all\n BatchMode yes\n RemoteCommand echo %n\n"
    )
    assert home.run("inner").stdout == b"inner\n"
    seen = home.run("inner", "echo $LC_SEEN; exit 2", status=2).stdout
    assert seen == b"yes\n"
    assert home.run("piped").stdout == b"piped\n"
    assert home.run("-J", "ours", "sshd", "echo in; exit 9", status=9).stdout == b"in\n"
    (home.folder / "file").write_bytes(b"data")
    home.run("-q", home.folder / "file", f"inner:{home.folder}/copy", command="scp")
    assert (home.folder / "copy").read_bytes() == b"data"
    listed = home.run("-b", "-", "piped", said=f"ls -1 {home.folder}/copy\n".encode(), command="sftp")
    assert b"/copy\n" in listed.stdout
    with (home.folder / ".ssh" / "config").open("a") as file:
        file.write("Colour blue\n")
    wrong = home.run("inner", status=255).stderr.decode()
    assert wrong.startswith(f"dunnart ssh: {home.folder}/.ssh/config:")
    assert "colour" in wrong
    home.run("-o", "IgnoreUnknown=col*", "inner")


def test_dbclient(peers: Peers, keys: Keys, home: Home) -> None:
    """Dropbear's flags: hosts with commas between them, -y, -B, -J, -K, -I, -W, and its exit status for errors."""
    host = f"{USER}@127.0.0.1"
    key = ["-i", keys.path("ed25519")]

    def dbclient(*arguments: str, status: int = 0, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return home.run(*arguments, status=status, said=said, command="dbclient")

    hops = ",".join(f"{host}^{peers[name].port}" for name in ("sshd", "dropbear", "ours"))
    done = dbclient("-y", *key, hops, "-W", "65536", "-K", "5", "-I", "60", "echo", "in;", "exit 4", status=4)
    assert done.stdout == b"in\n"
    port = str(peers["dropbear"].port)
    assert dbclient(*key, "-p", port, host, "cat", said=b"said").stdout == b"said"
    with echoing() as echo:
        done = dbclient(*key, "-p", port, "-B", f"127.0.0.1:{echo.port}", host, said=b"hello ")
        assert done.stdout == b"hello bye"
    done = dbclient(
        "-J", f"{sys.executable} -c '{_PIPE}' 127.0.0.1 {port}", *key, "-y", f"{host}/{port}", "echo $((6*7))"
    )
    assert done.stdout == b"42\n"
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        command = line("-J", f"&{sock.fileno()}", *key, f"{host}/{port}", "echo joined", command="dbclient")
        found = subprocess.run(
            command, env=home.environment, pass_fds=[sock.fileno()], capture_output=True, timeout=SECONDS, check=True
        )
        assert found.stdout == b"joined\n"
    assert b"aes128-ctr" in dbclient("-c", "help").stdout
    assert dbclient("-c", "aes128-ctr", "-m", "hmac-sha2-256", *key, f"{host}/{port}", "echo a").stdout == b"a\n"
    assert b"rot13" in dbclient("-c", "rot13", host, status=1).stderr
    assert b"cannot be reached" in dbclient("-p", str(free_port()), host, "x", status=1).stderr
    (home.folder / ".ssh" / "known_hosts").write_text("")
    unknown = dbclient("-o", "BatchMode=yes", *key, f"{host}/{port}", "x", status=1)
    assert b"is not known" in unknown.stderr


def test_dbclient_does_as_dropbears_does(peers: Peers, keys: Keys, home: Home) -> None:
    """The same command lines for both: what is printed, and how they end."""
    theirs = program("dbclient")
    port, key = str(peers["sshd"].port), keys.dropbear("ed25519")
    host = f"{USER}@127.0.0.1"
    to = ["-y", "-i", key, "-p", port, host]
    lines: tuple[list[str], ...] = (
        [*to, "echo a; exit 3"], [*to[:3], f"{host}/{port}", "-T", "-j", "echo", "b", "-n"],
        [*to, "-o", "Compression=yes", "-c", "aes256-ctr", "-K", "9", "-I", "99", "-q", "cat"],
        [], ["-p", str(free_port()), host, "x"], ["-L", "1:2", host],
    )  # fmt: skip
    for given in lines:
        expected = subprocess.run(
            [theirs, *given], input=b"said", env=home.environment, capture_output=True, check=False
        )
        ours = home.run(*given, command="dbclient", said=b"said", status=expected.returncode)
        if given[:1] == ["-y"]:
            assert ours.stdout == expected.stdout, given


def test_into_the_background(peers: Peers, keys: Keys, home: Home) -> None:
    """-f comes back once the login is done, and what is forwarded goes on."""
    home.knows(peers["sshd"])
    to = way(peers["sshd"], keys.path("ed25519"))
    port = free_port()
    file = home.folder / "pid"
    with echoing() as echo:
        log = str(home.folder / "log")
        flags = ["-E", log, "-f", "-L", f"{port}:127.0.0.1:{echo.port}"]
        command = line(*flags, *to, f"echo $PPID >{file}; sleep 1000")
        # What stays in the background keeps its stdout and stderr, as it does with ssh.
        done = subprocess.run(command, env=home.environment, timeout=SECONDS, stdout=subprocess.DEVNULL, check=False)
        assert done.returncode == 0
        assert listens(port)
        assert talk(("127.0.0.1", port)) == b"hello bye"
        assert eventually(lambda: file.exists() and bool(file.read_text().strip()))
        os.kill(int(file.read_text()), signal.SIGTERM)  # sshd's process of this session
        assert eventually(lambda: not listens(port))
    refused = home.run("-f", "-N", "-o", "PubkeyAuthentication=no", *to, status=255)
    assert b"is not let in" in refused.stderr


def test_options_are_those_that_openssh_finds(home: Home) -> None:
    """The same files, read by both programs."""
    ssh = program("ssh")
    (home.folder / "one.conf").write_text("Host inc*\n  Port 1234\nCompression yes\n")
    path = home.folder / "config"
    path.write_text(
        f"""# a comment
IgnoreUnknown Strange*
StrangeThing yes
Host a b* !bad
    HostName=%h.example.org   # another
    User "ann lee"
    Port 2022
    SetEnv "A=1 2" B=3
Host bad
    Port 77
Include {home.folder}/*.conf
Match originalhost inc1 user root,{USER}
    ServerAliveInterval 1m30s
    SendEnv LANG LC_*
Match host *.example.org exec "test %n = b1"
    ProxyJump one,two:22
    LocalForward 8080 localhost:80
    DynamicForward [::1]:1080
Match !host *.example.org
    ProxyCommand nc -x "proxy:1" %h %p
    StrictHostKeyChecking accept-new
Host *
    User nobody
    Port 99
    ForwardAgent yes
    IdentityFile ~/.ssh/%n
    IdentityFile ~/.ssh/other
    BatchMode yes
    EscapeChar ^B
"""
    )
    names = """user hostname port compression setenv serveraliveinterval proxyjump proxycommand batchmode
        stricthostkeychecking forwardagent identityfile""".split()  # noqa: SIM905
    same = {"true": "yes", "false": "no", "accept-new": "accept-new", "90": "1m30s"}
    for host in ("a", "b1", "bad", "inc1", "other"):
        command = [ssh, "-G", "-F", str(path), "-l", "given", host]
        theirs = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=SECONDS, env=home.environment
        )
        ours = home.run("-G", "-F", path, "-l", "given", host).stdout.decode()

        def values(text: str) -> set[str]:
            found = (each.partition(" ") for each in text.splitlines())
            return {f"{name} {same.get(value, value)}" for name, _, value in found if name in names}

        assert values(ours) <= values(theirs.stdout), host
        assert len(values(ours)) > 6
