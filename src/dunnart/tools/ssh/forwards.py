"""What -L, -R and -D want: `[address:]port:host:port`, with paths of unix sockets in the place of either half."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunnart.client.forwarding import Endpoint

_FIELD = re.compile(r"\[([^\]]*)\]|((?:\\.|[^:\\])*)", re.DOTALL)
_LARGEST_PORT = 65535


class Forward(NamedTuple):
    """Where to listen, and where to connect to; None: where each client of a SOCKS server wants."""

    listen: Endpoint
    to: Endpoint | None


def local(words: Sequence[str], *, everywhere: bool) -> Forward:
    """Read a value of LocalForward.

    Args:
        words: one, as in -L, or two: where to listen, where to connect to.
        everywhere: listen on all addresses where none is named (GatewayPorts).

    Raises:
        ConfigError: it is none.
    """
    return _forward(words, "" if everywhere else "localhost", "localforward")


def remote(words: Sequence[str]) -> Forward:
    """Read a value of RemoteForward; likewise."""
    return _forward(words, "localhost", "remoteforward")


def dynamic(words: Sequence[str], *, everywhere: bool) -> Forward:
    """Read a value of DynamicForward; likewise."""
    fields = _fields(words[0], "dynamicforward")
    if len(fields) > 2 or fields[0].startswith("/"):
        raise ConfigError(f"{words[0]!r} is not [address:]port", key="dynamicforward")
    return Forward(_listen(fields, "" if everywhere else "localhost", words[0], "dynamicforward"), None)


def endpoint(text: str) -> Endpoint:
    """Read what -W wants: `host:port`, or a path.

    Raises:
        ConfigError: it is none.
    """
    return _to(_fields(text, "-W"), text, "-W")


def _forward(words: Sequence[str], default: str, key: str) -> Forward:
    text = " ".join(words)
    if len(words) == 2:
        listen, to = _fields(words[0], key), _fields(words[1], key)
    elif len(words) == 1:
        fields = _fields(text, key)
        paths = [at for at, field in enumerate(fields) if field.startswith("/")]
        split = 1 if paths[:1] == [0] else paths[0] if paths else len(fields) - 2
        listen, to = fields[: max(split, 0)], fields[max(split, 0) :]
    else:
        listen = to = []
    if not listen or not to:
        raise ConfigError(f"{text!r} is not [address:]port:host:port", key=key)
    return Forward(_listen(listen, default, text, key), _to(to, text, key))


def _fields(text: str, key: str) -> list[str]:
    found: list[str] = []
    at = 0
    while True:
        field = _FIELD.match(text, at)
        assert field is not None  # it matches nothing too
        found.append(field[1] if field[1] is not None else re.sub(r"\\(.)", r"\1", field[2], flags=re.DOTALL))
        at = field.end()
        if at == len(text):
            return found
        if text[at] != ":":
            raise ConfigError(f"{text!r} cannot be read at {text[at:]!r}", key=key)
        at += 1


def _listen(fields: list[str], default: str, text: str, key: str) -> Endpoint:
    if len(fields) == 1 and fields[0].startswith("/"):
        return fields[0]
    if len(fields) > 2:
        raise ConfigError(f"{text!r} has too many parts; an IPv6 address stands in brackets", key=key)
    host = default if len(fields) == 1 else fields[0]
    return ("" if host == "*" else host), _port(fields[-1], text, key, least=0)


def _to(fields: list[str], text: str, key: str) -> Endpoint:
    if len(fields) == 1 and fields[0].startswith("/"):
        return fields[0]
    if len(fields) != 2 or not fields[0]:
        raise ConfigError(f"{text!r} does not end in host:port or a path", key=key)
    return fields[0], _port(fields[1], text, key, least=1)


def _port(text: str, whole: str, key: str, *, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or not least <= int(text) <= _LARGEST_PORT:
        raise ConfigError(f"{text!r} in {whole!r} is no port", key=key)
    return int(text)
