"""What the options of an authorized_keys line mean (sshd(8), AUTHORIZED_KEYS FILE FORMAT).

An option that is not known, a value that makes no sense, or what this server cannot do is an error: the line grants
nothing then (THREATS R16).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import field, replace
from typing import Any, ClassVar

from dunnart.errors import KeyFormatError
from dunnart.keys.patterns import AddressPatterns, matches
from dunnart.keys.rights import EVERYTHING, Permits, Port, Rights
from dunnart.records import dataclass

Options = tuple[tuple[str, str | None], ...]
"""Names in lower case and unquoted values, None where there is none, in the order of the line."""
_MOST_PERMITS = 4096
_MOST_VARIABLES = 1024
_LONGEST_HOST = 1024
_VARIABLE = re.compile(r"([A-Za-z0-9_]+)=(.*)", re.DOTALL)
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """The options of a line, understood.

    Attributes:
        rights: what a login with this key may do.
        addresses: where it may come from; None: anywhere.
        authority: the key is no user's but a certification authority's.
        principals: names of which a certificate of that authority must have one; None: the user's name.
        touch: a FIDO key must have been touched.
        verify: a FIDO key must have verified its user.
    """

    rights: Rights = EVERYTHING
    addresses: AddressPatterns | None = None
    authority: bool = False
    principals: tuple[str, ...] | None = None
    touch: bool = True
    verify: bool = False

    def expired(self, now: float) -> bool:
        """Tell whether its time is over."""
        return self.rights.expires is not None and self.rights.expires < now

    def refusal(self, address: str, now: float) -> str:
        """Say why a login from an IP address, at a time in seconds since 1970, is not let in, or ""."""
        if self.expired(now):
            return f"it expired at {shown_time(self.rights.expires or 0)}"
        if self.addresses is not None and address not in self.addresses:
            return f'{address or "no IP address"} is not among its from="{self.addresses.text}"'
        return ""


NO_OPTIONS = KeyOptions()


def understand(options: Options, variables: Iterable[str] = ()) -> KeyOptions:
    """Give the meaning of options.

    Args:
        options: those of a line.
        variables: patterns of the names that `environment` may set.

    Raises:
        KeyFormatError: one is not known, is wrong, or cannot be obeyed.
    """
    if not options:
        return NO_OPTIONS
    reading = _Reading(tuple(variables))
    for name, value in options:
        reading.read(name, value)
    return reading.done()


def shown_time(seconds: float) -> str:
    """Write a time in UTC, as in 2027-01-31 23:59:59 UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(slots=True)
class _Reading:
    """Options read so far."""

    variables: tuple[str, ...]
    rights: Rights = EVERYTHING
    touch: bool = True
    verify: bool = False
    authority: bool = False
    once: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    permits: dict[str, list[tuple[str, Port]]] = field(default_factory=dict)
    expires: float | None = None

    def read(self, name: str, value: str | None) -> None:
        if value is None:
            self._read_flag(name)
        elif name in self._valued:
            self._valued[name](self, name, value)
        else:
            raise KeyFormatError(f"option '{name}' takes no value" if _is_flag(name) else f"unknown option '{name}'")

    def _read_flag(self, name: str) -> None:
        positive = name.removeprefix("no-")
        yes = positive == name
        if name == "restrict":
            self._set(*_FLAGS.values(), to=False)
        elif name == "cert-authority":
            self.authority = True
        elif positive in _FLAGS:
            self._set(_FLAGS[positive], to=yes)
        elif positive == "touch-required":
            self.touch = yes
        elif positive == "verify-required":
            self.verify = yes
        else:
            known = name in self._valued
            raise KeyFormatError(f"option '{name}' wants a value" if known else f"unknown option '{name}'")

    def _set(self, *names: str, to: bool) -> None:
        values: dict[str, Any] = dict.fromkeys(names, to)
        self.rights = replace(self.rights, **values)

    def _read_once(self, name: str, value: str) -> None:
        if name in self.once:
            raise KeyFormatError(f"option '{name}' stands there twice")
        self.once[name] = value

    def _read_time(self, name: str, value: str) -> None:
        expires = read_time(value)
        self.expires = expires if self.expires is None else min(self.expires, expires)

    def _read_variable(self, name: str, value: str) -> None:
        found = _VARIABLE.fullmatch(value)
        if found is None:
            raise KeyFormatError(f"environment {value[:64]!r} is not NAME=value")
        variable = found[1]
        if not any(matches(pattern, variable) for pattern in self.variables):
            raise KeyFormatError(
                f"environment sets {variable}, which the option permit_user_environment does not allow"
            )
        if len(self.environment) >= _MOST_VARIABLES:
            raise KeyFormatError("too many variables")
        self.environment.setdefault(variable, found[2])  # the first wins, as in sshd

    def _read_permit(self, name: str, value: str) -> None:
        permits = self.permits.setdefault(name, [])
        if len(permits) >= _MOST_PERMITS:
            raise KeyFormatError(f"too many {name}")
        permits.append(permit(name, value))

    def _refuse(self, name: str, value: str) -> None:
        raise KeyFormatError("tunnel devices are not offered here")

    _valued: ClassVar[dict[str, Callable[[_Reading, str, str], None]]] = {
        "command": _read_once,
        "environment": _read_variable,
        "expiry-time": _read_time,
        "from": _read_once,
        "permitlisten": _read_permit,
        "permitopen": _read_permit,
        "principals": _read_once,
        "tunnel": _refuse,
    }

    def done(self) -> KeyOptions:
        """Put it all together."""
        principals = None
        if "principals" in self.once:
            principals = tuple(self.once["principals"].split(","))
            if not self.authority:
                raise KeyFormatError("principals without cert-authority")
            if not all(principals):
                raise KeyFormatError("principals holds an empty name")
        command = self.once.get("command")
        rights = replace(
            self.rights,
            command=None if command is None else _encoded(command),
            environment=tuple(self.environment.items()),
            permit_open=self._permitted("permitopen"),
            permit_listen=self._permitted("permitlisten"),
            expires=self.expires,
        )
        return KeyOptions(rights, self._addresses(), self.authority, principals, self.touch, self.verify)

    def _permitted(self, name: str) -> Permits | None:
        return tuple(self.permits[name]) if name in self.permits else None

    def _addresses(self) -> AddressPatterns | None:
        if "from" not in self.once:
            return None
        try:
            patterns = AddressPatterns(self.once["from"])
        except ValueError as error:
            raise KeyFormatError(f"from: {error}") from error
        if patterns.forbidden_names:
            name = patterns.forbidden_names[0]
            raise KeyFormatError(f"from forbids the host {name!r}, but hosts' names are not looked up")
        return patterns


_FLAGS = {
    "agent-forwarding": "agent_forwarding", "port-forwarding": "port_forwarding", "pty": "pty", "user-rc": "user_rc",
    "x11-forwarding": "x11_forwarding",
}  # fmt: skip


def _is_flag(name: str) -> bool:
    positive = name.removeprefix("no-")
    return (
        positive in _FLAGS
        or positive in {"touch-required", "verify-required"}
        or name in {"restrict", "cert-authority"}
    )


def _encoded(value: str) -> bytes:
    try:
        return value.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise KeyFormatError("the command cannot be encoded") from error


def read_time(value: str) -> float:
    """Read YYYYMMDD[HHMM[SS]][Z], in the local time zone without the Z, as seconds since 1970.

    Raises:
        KeyFormatError: it is no such time.
    """
    from datetime import UTC, datetime

    found = _TIME.fullmatch(value)
    if found is None:
        raise KeyFormatError(f"{value[:64]!r} is no time YYYYMMDD[HHMM[SS]][Z]")
    try:
        numbers = [int(part) for part in found.groups()[:-1] if part is not None]
        return datetime(*numbers, tzinfo=UTC if found[7] else None).timestamp()  # type: ignore[misc,arg-type] # six numbers at most
    except (ValueError, OverflowError, OSError) as error:
        raise KeyFormatError(f"{value[:64]!r}: {error}") from error


def permit(name: str, value: str) -> tuple[str, Port]:
    """Read what `permitopen` or `permitlisten`, as which `name` counts, has: HOST:PORT.

    Raises:
        KeyFormatError: it is none.
    """
    if name == "permitlisten" and ":" not in value:
        value = f"*:{value}"
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        good = bool(bracket) and rest.startswith(":")
        port = rest[1:]
    else:
        host, colon, port = value.partition(":")
        good = bool(colon) and "/" not in host
    if not good or len(host) > _LONGEST_HOST:
        raise KeyFormatError(f"{name} {value[:64]!r} is not HOST:PORT")
    if port == "*":
        return host, "*"
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise KeyFormatError(f"{name} {value[:64]!r} has no port of 1 to 65535, nor *")
    return host, int(port)
