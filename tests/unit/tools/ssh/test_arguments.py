"""What options of ssh_config make of a connection by dunnart's client."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from dunnart.client import CLIENT_LIMITS
from dunnart.errors import ConfigError
from dunnart.tools.ssh.arguments import algorithms, client_arguments, environment
from dunnart.tools.ssh.configuration import option
from dunnart.tools.ssh.options import Options
from dunnart.tools.ssh.reading import hop_options, read_options
from dunnart.tools.transfer.connections import ConnectionOptions, given_options
from dunnart.tools.transfer.destinations import Host
from dunnart.tools.transfer.foreground import Foreground


def options(*given: str, host: Host | None = None) -> Options:
    return read_options(host or Host("h"), [option(each) for each in given], "none")


def arguments(*given: str, host: Host | None = None) -> dict[str, Any]:
    with Foreground() as front:
        return client_arguments(options(*given, host=host), front)


def test_the_first_value_counts_and_the_destination_comes_first() -> None:
    found = arguments("HostName=there", "Port=22", "port=23", "User=ann", "ConnectTimeout=5", "AddressFamily=INET6")
    assert (found["host"], found["port"], found["user"]) == ("there", 22, "ann")
    assert (found["connect_seconds"], found["family"]) == (5.0, socket.AF_INET6)
    found = arguments("Port=1", "User=ann", host=Host("h", "bob", 3))
    assert (found["host"], found["port"], found["user"]) == ("h", 3, "bob")


def test_hosts_on_the_way_do_not_take_what_is_the_last_ones() -> None:
    given = [option(each) for each in ("HostName=there", "Port=1", "User=ann", "IdentityFile=k", "LocalForward=1 h:1")]
    found = hop_options(given, "none")(Host("by", "bob"), "first")
    assert (found.host, found.port, found.user, found.text("proxyjump", "")) == ("by", 22, "bob", "first")
    assert found.all("identityfile") == [("k",)]
    assert not found.given("localforward")
    assert hop_options(given, "none")(Host("by"), "").user != "ann"


def test_nobody_is_asked_in_a_batch() -> None:
    asked = ("password", "prompt", "passphrase", "unknown_host")
    assert all(arguments()[name] is not None for name in asked)
    assert [arguments("BatchMode=yes")[name] for name in asked] == [None] * 4
    assert (arguments()["asks"], arguments("NumberOfPasswordPrompts=5")["asks"]) == (3, 5)
    assert arguments("StrictHostKeyChecking=yes")["unknown_host"] is None
    assert arguments("StrictHostKeyChecking=accept-new", "BatchMode=yes")["unknown_host"] is not None


def test_keys_and_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        Path(path).touch()
    found = arguments(*(f"IdentityFile={path}" for path in (*paths, tmp_path / "missing")))
    assert (found["keys"], found["agent"], found["identities_only"]) == (paths, True, False)
    assert (arguments()["keys"], arguments("IdentityAgent=/s")["agent"]) == (None, "/s")
    monkeypatch.setenv("OTHER", "/other")
    assert [arguments(f"IdentityAgent={value}")["agent"] for value in ("none", "$OTHER", "$NONE")] == [
        False, "/other", False
    ]  # fmt: skip
    assert arguments("IdentitiesOnly=yes")["identities_only"]
    found = arguments("PubkeyAuthentication=no", f"IdentityFile={paths[0]}")
    assert (found["keys"], found["agent"], "publickey" in found["methods"]) == ([], False, False)


def test_methods_have_the_order_that_is_preferred_and_no_other_ones() -> None:
    given = "PreferredAuthentications=password,gssapi-with-mic,publickey,keyboard-interactive"
    assert arguments(given, "KbdInteractiveAuthentication=no")["methods"] == ("password", "publickey")
    assert arguments(given, "ChallengeResponseAuthentication=no")["methods"] == ("password", "publickey")


def test_lists_of_algorithms_are_edited() -> None:
    found = algorithms(options("Ciphers=aes256-ctr,aes128-ctr", "MACs=^hmac-sha2-512", "KexAlgorithms=-mlkem*"))
    assert found.ciphers == ("aes256-ctr", "aes128-ctr")
    assert found.macs[0] == "hmac-sha2-512"
    assert found.kex[0] == "curve25519-sha256"
    of_a_system = "MACs=hmac-sha2-512-etm@openssh.com,umac-128-etm@openssh.com"
    assert algorithms(options(of_a_system)).macs == ("hmac-sha2-512-etm@openssh.com",)
    assert algorithms(options("Compression=yes")).compression[0] == "zlib@openssh.com"


def test_variables_are_sent_by_pattern_and_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LC_ONE": "1", "LC_TWO": "2", "OTHER": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LC_THREE", "ours")
    found = environment(options("SendEnv=LC_* -LC_TWO", "SetEnv=A=b LC_THREE=said A=late"))
    assert {name: found.get(name) for name in ("LC_ONE", "LC_TWO", "LC_THREE", "OTHER", "A")} == {
        "LC_ONE": "1", "LC_TWO": None, "LC_THREE": "said", "OTHER": None, "A": "b"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "size", "seconds"),
    [("1M 30m", 1 << 20, 1800.0), ("default 1h30", None, 3630.0), ("2G none", 2 << 30, None), ("3K", 3 << 10, None)],
)
def test_keys_are_renewed_after_so_much_or_so_long(value: str, size: int | None, seconds: float | None) -> None:
    found = arguments(f"RekeyLimit={value}")["limits"]
    assert found.rekey_bytes == (size or CLIENT_LIMITS.rekey_bytes)
    assert found.rekey_seconds == (seconds or CLIENT_LIMITS.rekey_seconds)


def test_tokens() -> None:
    found = options("HostName=%h.example.org", "Port=23", "User=ann")
    text = found.expanded("%n %h %p %r %u %d %%h")
    assert text == f"h h.example.org 23 ann {found.expanded('%u')} {os.path.expanduser('~')} %h"
    assert found.expanded("${HOME}") == "${HOME}"
    assert found.path("${HOME}/%n") == os.path.expanduser("~/h")
    with pytest.raises(ConfigError, match="%q"):
        found.expanded("%q")


def test_what_sftp_and_scp_are_told_are_options_too() -> None:
    given = given_options(ConnectionOptions(
        identities=['a "b"'], compress=True, batch=True, family="inet", options=[("Port", "7")], quiet=True,
    ))  # fmt: skip
    found = read_options(Host("h"), given, "none")
    assert found.all("identityfile") == [('a "b"',)]
    assert (found.port, found.text("batchmode", ""), found.text("addressfamily", "")) == (7, "yes", "inet")


@pytest.mark.parametrize(
    "given", ["Port=x", "Port=70000", "BatchMode=maybe", "AddressFamily=ipx", "ConnectTimeout=1y", "Ciphers=rot13",
              "MACs=umac-64@openssh.com",
              "RevokedHostKeys=/f", "Nonsense=1", "SetEnv=A", "RekeyLimit=1X", "RekeyLimit=1G nonsense",
              "NumberOfPasswordPrompts=0"],
)  # fmt: skip
def test_what_is_not_understood_is_an_error(given: str) -> None:
    name = given.partition("=")[0].lower()
    with pytest.raises(ConfigError, match=name):
        (environment(options(given)), arguments(given))
