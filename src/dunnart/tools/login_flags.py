"""The flags that describe a login to `dunnart config`, as `sshd -T -C` takes it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from dunnart.daemon.matching import Login

_FLAGS = ("--user", "--address", "--local-address", "--local-port")


def split(arguments: Sequence[str]) -> tuple[Login | None, list[str]]:
    """Take the flags out that describe a login; gives it, or None without --user, and the arguments left.

    Raises:
        ConfigError: they describe none.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    waiting = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if waiting:
            found[waiting], waiting = argument, ""
        elif flag in _FLAGS and equals:
            found[flag] = value
        elif argument in _FLAGS:
            waiting = argument
        else:
            rest.append(argument)
    if waiting:
        raise ConfigError("a value is wanted", key=waiting)
    if not found:
        return None, rest
    if not found.get("--user"):
        raise ConfigError("a login has a user; name one", key="--user")
    for flag in ("--address", "--local-address"):
        try:
            ip_address(found.get(flag, "::"))
        except ValueError as error:
            raise ConfigError(f"{found[flag]!r} is no IP address", key=flag) from error
    port = found.get("--local-port", "0")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ConfigError(f"{port!r} is no port", key="--local-port")
    from dunnart.daemon.matching import Login, groups_of

    user = found["--user"]
    address, local = found.get("--address", ""), found.get("--local-address", "")
    return Login(user, address, local, int(port), groups_of(user)), rest
