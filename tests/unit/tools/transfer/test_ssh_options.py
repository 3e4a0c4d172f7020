"""What options of ssh_config make of a connection by dunnart's client."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.tools.transfer.connections import ConnectionOptions
from dunnart.tools.transfer.destinations import Host
from dunnart.tools.transfer.foreground import Foreground
from dunnart.tools.transfer.ssh_options import client_arguments


def arguments(*options: str, host: Host | None = None, hop: bool = False, **others: Any) -> dict[str, Any]:
    given = [(name, value) for name, _, value in (option.partition("=") for option in options)]
    with Foreground() as front:
        return client_arguments(ConnectionOptions(options=given, **others), host or Host("h"), front, hop=hop)


def test_the_first_value_counts_and_the_destination_comes_first() -> None:
    found = arguments("HostName=there", "Port=22", "port=23", "User=ann", "ConnectTimeout=5", "AddressFamily=INET6")
    assert (found["host"], found["port"], found["user"]) == ("there", 22, "ann")
    assert (found["connect_seconds"], found["family"]) == (5.0, socket.AF_INET6)
    found = arguments("Port=1", "User=ann", host=Host("h", "bob", 3), port=2)
    assert (found["host"], found["port"], found["user"]) == ("h", 3, "bob")
    assert arguments("Port=1", port=2)["port"] == 2


def test_hosts_on_the_way_do_not_take_what_is_the_last_ones() -> None:
    found = arguments("HostName=there", "Port=1", "User=ann", host=Host("by", "bob"), hop=True, port=2)
    assert (found["host"], found["port"], found["user"]) == ("by", 22, "bob")
    assert arguments("User=nobody-at-all", host=Host("by"), hop=True)["user"] != "nobody-at-all"


def test_nobody_is_asked_in_a_batch() -> None:
    asked = ("password", "prompt", "passphrase", "unknown_host")
    assert all(arguments()[name] is not None for name in asked)
    assert [arguments("BatchMode=yes")[name] for name in asked] == [None] * 4
    assert [arguments(batch=True)[name] for name in asked] == [None] * 4
    assert arguments("StrictHostKeyChecking=yes")["unknown_host"] is None
    assert arguments("StrictHostKeyChecking=accept-new", batch=True)["unknown_host"] is not None


def test_keys_and_agents() -> None:
    found = arguments("IdentityFile=b", identities=["a"])
    assert (found["keys"], found["agent"]) == (["a", "b"], True)
    assert (arguments()["keys"], arguments("IdentityAgent=/s")["agent"]) == (None, "/s")
    assert [arguments(option)["agent"] for option in ("IdentityAgent=none", "IdentitiesOnly=yes")] == [False, False]
    found = arguments("PubkeyAuthentication=no", identities=["a"])
    assert (found["keys"], found["agent"]) == ([], False)


@pytest.mark.parametrize("option", ["ProxyCommand=x", "Port=x", "BatchMode=maybe", "AddressFamily=ipx"])
def test_what_is_not_understood_is_an_error(option: str) -> None:
    with pytest.raises(ConfigError, match=option.partition("=")[0].lower()):
        arguments(option)
