"""What is ready before the server starts, what is printed, and how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dunnart.daemon import preparing
from dunnart.daemon.announcing import announce, login_command
from dunnart.daemon.config import ServeConfig
from dunnart.daemon.preparing import prepare
from dunnart.daemon.running import described
from dunnart.daemon.ways_in import this_user
from dunnart.daemon.writing import to_toml
from dunnart.errors import ConfigError
from dunnart.keys.private import PrivateKey
from dunnart.runtime.listeners import ListenAddress, listen_address
from dunnart.server.processes.separation import Separation

USER = this_user().name


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    """A configuration that leaves this machine alone: no authorized key anywhere."""
    return ServeConfig(
        state_folder=str(tmp_path / "state"),
        authorized_keys=(str(tmp_path / "keys"),),
        strict_modes=False,  # others can write to the folder for temporary ones
    )


@pytest.fixture
def keyed(config: ServeConfig, tmp_path: Path) -> ServeConfig:
    """The same with an authorized key."""
    (tmp_path / "keys").write_text(PrivateKey.generate("ed25519").public.line())
    return config


def test_everything_is_prepared(keyed: ServeConfig) -> None:
    prepared = prepare(keyed)
    assert [key.public.key_type for key in prepared.host_keys] == ["ssh-ed25519"]
    assert prepared.admission.admit("192.0.2.1", 0.0) is None
    assert prepared.algorithms == keyed.algorithms()
    assert prepared.user == USER
    assert prepared.one_time_password is None


def test_a_description_that_is_not_served_changes_no_time_to_rest(keyed: ServeConfig) -> None:
    separation = Separation("module:function", (), 60)
    again = described(prepare(replace(keyed, rest_on_idle=5)), (), separation=separation)["separation"]
    assert (separation.idle_seconds, again.idle_seconds) == (60, 5)
    assert again._waiting is separation._waiting


def test_a_chain_that_names_a_password_gets_one(keyed: ServeConfig) -> None:
    """Without it the server could not start, or the chain never be gone through."""
    chained = replace(keyed, methods=("publickey", "publickey,password"))
    assert prepare(keyed).one_time_password is None
    assert prepare(chained).one_time_password is not None
    with pytest.raises(ConfigError, match="a chain wants a password"):
        prepare(replace(chained, password="off"))


def test_named_authenticators_are_the_ways_in(config: ServeConfig, caplog: pytest.LogCaptureFixture) -> None:
    named = replace(config, authenticators=("authorized-keys",))
    assert prepare(named).one_time_password is None
    assert prepare(replace(named, password="one-time")).one_time_password is not None
    both = replace(named, authenticators=("authorized-keys", "one-time-password"))
    prepared = prepare(both)
    assert prepared.one_time_password is not None
    assert [each.method for each in prepared.plugins.authenticators] == ["publickey", "password"]
    with pytest.raises(ConfigError, match="password: authenticators names one-time-password"):
        prepare(replace(both, password="off"))
    assert caplog.messages == []


def test_a_password_only_where_there_is_no_other_way_in(config: ServeConfig, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(config)
    password = prepared.one_time_password
    assert password is not None
    assert password not in repr(prepared)
    assert password != prepare(config).one_time_password
    chained = replace(config, methods=("publickey", "password"))
    assert prepare(chained).one_time_password is not None
    assert caplog.messages == []
    assert prepare(replace(config, password="off")).one_time_password is None
    assert prepare(replace(config, methods=("publickey",))).one_time_password is None
    assert len([message for message in caplog.messages if "nobody can log in" in message]) == 2


def test_a_key_that_may_not_be_used_is_no_way_in(keyed: ServeConfig) -> None:
    assert prepare(replace(keyed, methods=("password",))).one_time_password is not None


def test_a_password_because_it_is_asked_for(keyed: ServeConfig) -> None:
    assert prepare(replace(keyed, password="one-time")).one_time_password is not None
    with pytest.raises(ConfigError, match="password: methods or permit_root_login rules out"):
        prepare(replace(keyed, password="one-time", methods=("publickey",)))


@pytest.mark.parametrize(("permit", "made"), [("yes", True), ("prohibit-password", True), ("no", False)])
def test_root_with_no_login_gets_no_password(
    config: ServeConfig, monkeypatch: pytest.MonkeyPatch, permit: str, made: bool
) -> None:
    monkeypatch.setattr(preparing, "anyone_has_key", lambda _patterns, **_: False)
    monkeypatch.setattr(preparing, "load_host_keys", lambda *_, **__: (PrivateKey.generate("ed25519"),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (prepare(replace(config, permit_root_login=permit)).one_time_password is not None) is made
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert prepare(replace(config, permit_root_login=permit)).one_time_password is not None


def test_host_keys_must_fit_the_algorithms(config: ServeConfig) -> None:
    with pytest.raises(ConfigError, match="host_key_types: no host key can make"):
        prepare(replace(config, profile="fips"))
    assert len(prepare(replace(config, profile="fips", host_key_types=("ecdsa",))).host_keys) == 1


def test_nowhere_to_listen(config: ServeConfig) -> None:
    with pytest.raises(ConfigError, match="listen: there is no address"):
        prepare(replace(config, listen=()))


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("127.0.0.1:2222", "ssh -p 2222 bob@127.0.0.1"),
        ("127.0.0.1:22", "ssh bob@127.0.0.1"),
        ("[::1]:2222", "ssh -p 2222 bob@::1"),
        ("0.0.0.0:2222", "ssh -p 2222 bob@127.0.0.1"),
        ("[::]:2222", "ssh -p 2222 bob@::1"),
        ("*:2222", "ssh -p 2222 bob@127.0.0.1"),
        ("host.example:2222", "ssh -p 2222 bob@host.example"),
        ("unix:/run/x", "ssh -o 'ProxyCommand=nc -U /run/x' bob@localhost"),
    ],
)
def test_the_command_to_try(address: str, command: str) -> None:
    assert login_command("bob", listen_address(address)) == command


def test_where_there_is_no_shell_sftp_is_to_try() -> None:
    def command(address: str) -> str:
        return login_command("bob", listen_address(address), files=True)

    assert command("127.0.0.1:2222") == "sftp -P 2222 bob@127.0.0.1"
    assert command("[::1]:22") == "sftp 'bob@[::1]'"
    assert command("unix:/run/x") == "sftp -o 'ProxyCommand=nc -U /run/x' bob@localhost"


def test_users_of_plug_ins_are_not_known(config: ServeConfig, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    stream = io.StringIO()
    config = replace(config, shell="off", exec="off", authenticators=("password-file",),
                     plugin={"password-file": {"file": str(passwords)}})  # fmt: skip
    announce(prepare(config), [ListenAddress("127.0.0.1", 4321)], stream)
    assert stream.getvalue().splitlines()[-1] == "log in with: sftp -P 4321 USER@127.0.0.1"


def test_what_is_printed(config: ServeConfig) -> None:
    prepared = prepare(config)
    stream = io.StringIO()
    announce(prepared, [ListenAddress("127.0.0.1", 4321), ListenAddress("::1", 4321)], stream)
    assert stream.getvalue().splitlines() == [
        "listening on 127.0.0.1:4321",
        "listening on [::1]:4321",
        f"host key ssh-ed25519 {prepared.host_keys[0].public.fingerprint()}",
        f"log in with: ssh -p 4321 {USER}@127.0.0.1",
        f"log in with: ssh -p 4321 {USER}@::1",
        f"password of {USER} for this run: {prepared.one_time_password}",
        "(no authorized key was found)",
    ]


@pytest.mark.parametrize(("number", "shown"), [(0, "USER"), (1000, USER)])
def test_root_serves_others(number: int, shown: str, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = replace(prepare(config), one_time_password=None, way_in=True)  # somebody's key lets him in
    monkeypatch.setattr(os, "geteuid", lambda: number)
    stream = io.StringIO()
    announce(prepared, [ListenAddress("127.0.0.1", 4321)], stream)
    assert stream.getvalue().splitlines()[-1] == f"log in with: ssh -p 4321 {shown}@127.0.0.1"


def test_no_login_command_where_nobody_can_log_in(config: ServeConfig) -> None:
    stream = io.StringIO()
    announce(prepare(replace(config, password="off")), [ListenAddress("127.0.0.1", 4321)], stream)
    assert "log in with" not in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].startswith("nobody can log in yet: put a key into ")


STAND_IN = """\
import asyncio
import sys
from dunnart.daemon import running, serve
from dunnart.daemon.loading import load
from dunnart.runtime.listeners import ListenAddress

class Server:
    addresses = [ListenAddress("127.0.0.1", 4321)]
    def __init__(self, **arguments):
        pass
    async def start(self):
        pass
    async def close(self):
        print("closed", flush=True)
    async def wait_closed(self):
        await asyncio.Event().wait()

running.Server = Server
sys.exit(serve.run(load(sys.argv[1])))
"""


def started(keyed: ServeConfig, folder: Path) -> subprocess.Popen[str]:
    """Run the daemon with a stand-in for the server, up to the line that says it listens."""
    path = folder / "toml"
    path.write_text(to_toml(keyed))
    process = subprocess.Popen(
        [sys.executable, "-c", STAND_IN, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening on 127.0.0.1:4321\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(keyed: ServeConfig, tmp_path: Path, number: signal.Signals) -> None:
    with started(keyed, tmp_path) as process:
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 0
    assert out.endswith("closed\n")
    assert "Traceback" not in err
    assert "info/daemon Server listening on 127.0.0.1:4321" in err


def test_an_interrupt_that_was_ignored_stays_ignored(keyed: ServeConfig, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started(keyed, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        out, _ = process.communicate()
    assert process.returncode == 0
    assert out.endswith("closed\n")
