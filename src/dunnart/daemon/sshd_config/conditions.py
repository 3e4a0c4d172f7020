"""`Match` lines: what they ask for, and whether a connection meets it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from dunnart.daemon.matching import any_of
from dunnart.daemon.sshd_config import lexer
from dunnart.daemon.sshd_config.keywords import SPOKEN
from dunnart.daemon.sshd_config.lexer import Refused
from dunnart.keys.patterns import AddressPatterns
from dunnart.records import dataclass

_NAMES = ("user", "group", "host", "address", "localaddress", "localport", "rdomain", "version")


@dataclass(frozen=True, slots=True)
class Connection:
    """What criteria are compared with; None is what is not known, which meets nothing.

    Attributes:
        groups: gives the names of a user's groups.
    """

    user: str | None = None
    host: str | None = None
    address: str | None = None
    local_address: str | None = None
    local_port: int | None = None
    rdomain: str | None = None
    invalid_user: bool = False
    groups: Callable[[str], tuple[str, ...]] = lambda _user: ()

    @classmethod
    def of(cls, text: str, groups: Callable[[str], tuple[str, ...]]) -> Connection:
        """Read what -C of sshd takes: user=bob,addr=192.0.2.1,host=name,laddr=192.0.2.9,lport=22.

        Raises:
            Refused: it is something else.
        """
        names = {"user": "user", "host": "host", "addr": "address", "laddr": "local_address", "rdomain": "rdomain"}
        found: dict[str, str] = {}
        port, invalid = None, False
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if not part:
                break
            if part == "invalid-user":
                invalid = True
            elif equals and name == "lport":
                port = lexer.port(value)
                if port < 0:
                    raise Refused(f"Invalid port '{value}' in test mode specification {part}")
            elif equals and name in names:
                found[names[name]] = value
            else:
                raise Refused(f"Invalid test mode specification {part}")
        return cls(**found, local_port=port, invalid_user=invalid, groups=groups)


@dataclass(frozen=True, slots=True)
class Condition:
    """A `Match` line.

    Attributes:
        text: what stands behind the keyword.
        criteria: names and what is asked for, as they are written.
        file, line: where it stands.
    """

    text: str
    criteria: tuple[tuple[str, str], ...]
    file: str
    line: int

    @property
    def always(self) -> bool | None:
        """Whether it is met by every connection (True) or by none (False); None: that depends."""
        met = [_static(name, value) for name, value in self.criteria]
        return False if False in met else None if None in met else True

    def meets(self, connection: Connection) -> bool:
        """Tell whether a connection meets all criteria."""
        return all(_MEETS[name](value, connection) for name, value in self.criteria)


def _static(name: str, value: str) -> bool | None:
    if name == "all":
        return True
    return _MEETS[name](value, Connection()) if name == "version" else None


def groups_of(user: str) -> tuple[str, ...]:
    """Give the names of the groups of any user of the system, whoever asks."""
    import grp
    import os
    import pwd

    try:
        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return ()
    names = []
    for number in numbers:
        with contextlib.suppress(KeyError):  # a group without a name
            names.append(grp.getgrgid(number).gr_name)
    return tuple(names)


def is_known(user: str) -> bool:
    """Tell whether the system knows a user."""
    import pwd

    try:
        pwd.getpwnam(user)
    except (KeyError, ValueError):  # a name with a NUL in it
        return False
    return True


def condition(text: str, file: str, line: int) -> Condition:
    """Read what stands behind `Match`.

    Raises:
        Refused: it is no condition.
    """
    words = lexer.words(text)
    found: list[tuple[str, str]] = []
    while words:
        written = words.pop(0)
        name, equals, value = written.partition("=")
        name = name.lower()
        if written.lower() == "all":
            if found or words:
                raise _bad("'all' cannot be combined with other Match attributes")
            found.append(("all", ""))
        elif written.lower() == "invalid-user":
            found.append(("invalid-user", ""))
        elif name not in _NAMES:
            raise _bad(f"Unsupported Match attribute {written}")
        else:
            value = value if equals else words.pop(0) if words else ""
            if not value:
                raise _bad(f"Missing Match criteria for {name}")
            _check(name, value)
            found.append((name, value))
    if not found:
        raise _bad("One or more attributes required for Match")
    return Condition(text, tuple(found), file, line)


def _bad(why: str) -> Refused:
    return Refused(f"Bad Match condition: {why}")


def _check(name: str, value: str) -> None:
    if name == "localport" and lexer.port(value) < 0:
        raise _bad(f"Invalid LocalPort '{value}' on Match line")
    if name in {"address", "localaddress"}:
        try:
            AddressPatterns(value)
        except ValueError as error:
            raise Refused(f"Invalid Match {name} argument '{value}': {error}") from error


def _fits(pattern: str, name: str | None) -> bool:
    return name is not None and any_of(pattern.split(","), (name,))


def _group(value: str, connection: Connection) -> bool:
    return connection.user is not None and any_of(value.split(","), connection.groups(connection.user))


_MEETS: dict[str, Callable[[str, Connection], bool]] = {
    "all": lambda _value, _connection: True,
    "invalid-user": lambda _value, connection: connection.invalid_user,
    "user": lambda value, connection: _fits(value, connection.user),
    "group": _group,
    "host": lambda value, connection: connection.host is not None and _fits(value.lower(), connection.host.lower()),
    "address": lambda value, connection: (connection.address or "") in AddressPatterns(value),
    "localaddress": lambda value, connection: (connection.local_address or "") in AddressPatterns(value),
    "localport": lambda value, connection: connection.local_port == lexer.port(value),
    "rdomain": lambda value, connection: _fits(value, connection.rdomain),
    "version": lambda value, _connection: _fits(value, SPOKEN),
}
