"""`[[match]]` tables: options for some logins only, as sshd's Match blocks are; and who may log in at all.

A table applies to a login that meets all of its criteria. Its options take the place of those outside the tables; where
several tables apply, the first that has an option counts. Entries of an option that is a table count one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from dunnart.daemon.options import BadValue, switch, text
from dunnart.keys.patterns import AddressPatterns, matches
from dunnart.records import dataclass

MAY_MATCH = (
    "authorized_keys", "strict_modes", "authorized_keys_command", "authorized_keys_command_user",
    "permit_user_environment", "trusted_user_ca_keys", "authorized_principals_file", "authorized_principals_command",
    "authorized_principals_command_user", "revoked_keys", "required_rsa_size", "user_key_algorithms",
    "ca_signature_algorithms", "methods", "authenticators", "key_sources", "permit_empty_passwords",
    "permit_root_login", "allow_users", "deny_users", "allow_groups", "deny_groups", "accept_env", "set_env",
    "permit_user_rc", "permit_tty", "force_command", "shell", "exec", "subsystem", "forwards", "forwarding",
    "permit_open", "permit_listen", "plugin", "limits",
)  # fmt: skip
"""The options that may stand in a `[[match]]` table: those that concern a login and its sessions."""


@dataclass(frozen=True, slots=True)
class Login:
    """What criteria are compared with.

    Attributes:
        user: the name given.
        address: the client's IP address, "" for a unix socket.
        local_address: the one that it reached; `local_port` goes with it.
        groups: the names of the user's groups; none for a user whom the system does not know.
    """

    user: str
    address: str = ""
    local_address: str = ""
    local_port: int = 0
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """A `[[match]]` table.

    Attributes:
        criteria: as they are written, by name.
        options: the values of its options, by name; of tables the entries given.
    """

    criteria: Mapping[str, tuple[str, ...]]
    options: Mapping[str, object]

    def fits(self, login: Login) -> bool:
        """Tell whether a login meets all criteria."""
        return all(_MEETS[name](values, login) for name, values in self.criteria.items())


def any_of(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Tell whether a name fits one of the patterns, and none of the names one that begins with a !."""
    found = False
    for name in names:
        for pattern in patterns:
            if matches(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                found = True
    return found


@lru_cache(maxsize=256)
def _addresses(patterns: tuple[str, ...]) -> AddressPatterns:
    return AddressPatterns(",".join(patterns))


_MEETS: dict[str, Callable[[tuple[str, ...], Login], bool]] = {
    "user": lambda values, login: any_of(values, (login.user,)),
    "group": lambda values, login: any_of(values, login.groups),
    "address": lambda values, login: login.address in _addresses(values),
    "local_address": lambda values, login: login.local_address in _addresses(values),
    "local_port": lambda values, login: str(login.local_port) in values,
    "all": lambda _values, _login: True,
}
CRITERIA = tuple(_MEETS)
"""The names of what a table may ask for."""
_LEFT_OUT = {"host": "hosts' names are not looked up; use address", "rdomain": "there are no routing domains here"}


def criterion(name: str, value: object) -> tuple[str, ...]:
    """Read a criterion: a list of patterns, or a string with commas between them.

    Raises:
        BadValue: it is none.
    """
    if name == "all":
        if not switch(value):
            raise BadValue("all is true, or left out")
        return ()
    items = value if isinstance(value, list) else [value]
    if name == "local_port":
        items = [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in items]
    patterns = tuple(part for item in items for part in text(item).split(","))
    if not patterns or not all(pattern.removeprefix("!") for pattern in patterns):
        raise BadValue("a pattern is empty")
    if name in {"user", "group"}:
        for each in patterns:
            _without_blanks(name, each.removeprefix("!"))
    if name == "local_port":
        for each in patterns:
            if not (each.isascii() and each.isdecimal() and 0 < int(each) < 65536):
                raise BadValue(f"{each!r} is no port")
    elif name.endswith("address"):
        try:
            found = AddressPatterns(",".join(patterns))
        except ValueError as error:
            raise BadValue(str(error)) from error
        if found.names:
            raise BadValue(f"{found.names[0]!r} is no address, network or pattern of them; names are not looked up")
    return patterns


def _without_blanks(kind: str, pattern: str) -> None:
    """See that a pattern does not silently fit nobody. Groups of directories have names of several words."""
    if pattern.strip() != pattern or (kind == "user" and " " in pattern):
        raise BadValue(f"a blank in {pattern!r}; patterns have commas between them, or are a list")


def left_out(name: str) -> str | None:
    """Say why a criterion of sshd's is none here."""
    return _LEFT_OUT.get(name)


def who(value: str) -> str:
    """Read an entry of allow_users or deny_users: a pattern of names, with @ and one of addresses behind it or not.

    Raises:
        ValueError: it is none.
    """
    name, at, host = value.partition("@")
    if not name or (at and not host):
        raise ValueError(f"{value!r} is not USER or USER@ADDRESS")
    if value.startswith("!") or host.startswith("!"):
        raise ValueError(f"{value!r} begins with a !, which only criteria of match tables do; there is deny_users")
    if "," in name or len(name.split()) > 1 or name.strip() != name:
        raise ValueError(f"{value!r} is not one user; each has an entry of its own")
    if host and AddressPatterns(host).names:
        raise ValueError(f"{host!r} is no address, network or pattern of them; names are not looked up")
    return value


def a_group(value: str) -> str:
    """Read an entry of allow_groups or deny_groups: a pattern of names.

    Raises:
        ValueError: it is none.
    """
    if not value or value.startswith("!"):
        raise ValueError(f"{value!r} is no pattern of a group's name")
    if "," in value or value.strip() != value:
        raise ValueError(f"{value!r} is not one group; each has an entry of its own")
    if value[0] in "@%":
        raise ValueError(f"{value!r} is a group's name with {value[0]} before it, which is left out here")
    return value


def _is_listed(entries: tuple[str, ...], login: Login) -> bool:
    for entry in entries:
        name, at, host = entry.partition("@")
        if matches(name, login.user) and (not at or login.address in _addresses((host,))):
            return True
    return False


def refusal(
    login: Login, *, allow_users: tuple[str, ...] = (), deny_users: tuple[str, ...] = (),
    allow_groups: tuple[str, ...] = (), deny_groups: tuple[str, ...] = (),
) -> str:  # fmt: skip
    """Say why a user may not log in by these lists, in sshd's order; "" if nothing is against it."""
    if _is_listed(deny_users, login):
        return "not allowed because listed in deny_users"
    if allow_users and not _is_listed(allow_users, login):
        return "not allowed because not listed in allow_users"
    if any(matches(pattern, name) for pattern in deny_groups for name in login.groups):
        return "not allowed because a group is listed in deny_groups"
    if allow_groups and not any(matches(pattern, name) for pattern in allow_groups for name in login.groups):
        return "not allowed because none of the groups is listed in allow_groups"
    return ""


def groups_of(user: str) -> tuple[str, ...]:
    """Give the names of a user's groups. It asks the system, which may take its time."""
    import os

    if os.name != "posix":
        return ()
    import grp

    from dunnart.plugins import os_account

    account = os_account.find(user)
    names = []
    for number in () if account is None else account.groups():
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return tuple(names)
