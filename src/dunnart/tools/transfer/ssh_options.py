"""What options of ssh_config(5) mean to dunnart's client. One that is not known here is an error, never ignored."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dunnart.client.connecting import this_user
from dunnart.crypto.profiles import PROFILES
from dunnart.errors import ConfigError
from dunnart.tools.transfer.questions import LoginQuestions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dunnart.tools.transfer.connections import ConnectionOptions
    from dunnart.tools.transfer.destinations import Host
    from dunnart.tools.transfer.foreground import Foreground

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_WITHOUT_MEANING = ("loglevel", "updatehostkeys", "checkhostip")  # nothing here depends on them


def client_arguments(options: ConnectionOptions, host: Host, front: Foreground, *, hop: bool) -> dict[str, Any]:
    """Give the arguments of `dunnart.client.connect` that lead to a host.

    Args:
        options: the command line's.
        host: who is to be connected to.
        front: where the person is who may be asked.
        hop: others are reached through it: name, port and user of the options are not its own.

    Raises:
        ConfigError: an option is not known here, or its value is wrong.
    """
    given = _Given(options.options)
    name, port, user = given.text("hostname", host.name), given.number("port", 22), given.text("user", "")
    known = given.text("userknownhostsfile", _USER_KNOWN_HOSTS).split()
    system = given.text("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS).split()
    strict = given.choice("stricthostkeychecking", "ask", ("yes", "ask", "accept-new", "no", "off"))
    trust = strict in {"accept-new", "no", "off"}
    family = given.choice("addressfamily", "any", _FAMILIES)
    batch = given.flag("batchmode", default=False) or options.batch
    passwords = given.flag("passwordauthentication", default=True) and not batch
    prompts = given.flag("kbdinteractiveauthentication", default=True) and not batch
    public_keys = given.flag("pubkeyauthentication", default=True)
    agent = given.text("identityagent", "")
    identities_only = given.flag("identitiesonly", default=False)
    keys = [os.path.expanduser(path) for path in (*options.identities, *given.all("identityfile"))]
    compress = given.flag("compression", default=False) or options.compress
    connect_seconds = given.number("connecttimeout", 30)
    given.end()
    user = host.user or ("" if hop else user) or this_user()
    remember = known[0] if known else "~/.ssh/known_hosts"
    questions = LoginQuestions(front, user, host.name, remember=remember, trust=trust)
    algorithms = PROFILES["default"]
    if compress:
        algorithms = replace(algorithms, compression=("zlib@openssh.com", "none"))
    return {
        "host": host.name if hop else name,
        "port": host.port or (22 if hop else options.port or port),
        "user": user,
        "keys": keys or None if public_keys else [],
        "agent": public_keys and agent != "none" and not identities_only and (agent or True),
        "password": questions.password if passwords else None,
        "prompt": questions.prompt if prompts else None,
        "passphrase": None if batch else questions.passphrase,
        "known_hosts": [*known, *system],
        "unknown_host": questions.unknown_host if trust or (strict == "ask" and not batch) else None,
        "algorithms": algorithms,
        "family": _FAMILIES[family if options.family == "any" else options.family],
        "connect_seconds": float(connect_seconds),
    }


class _Given:
    """The options that were given. Of several values the first counts, as in ssh; what was looked at is gone.

    Each method raises ConfigError for a value that cannot be.
    """

    def __init__(self, options: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in options:
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> list[str]:
        """All values."""
        return self._values.pop(name, [])

    def text(self, name: str, default: str) -> str:
        """The first value."""
        return self._values.pop(name, [default])[0]

    def number(self, name: str, default: int) -> int:
        """The same as a number."""
        value = self.text(name, str(default))
        if not value.isdecimal() or len(value) > 5:
            raise ConfigError(f"{value!r} is no number", key=name)
        return int(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """The same as yes or no."""
        return self.choice(name, "yes" if default else "no", ("yes", "no")) == "yes"

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """The same as one of the choices."""
        value = self.text(name, default).lower()
        if value not in choices:
            raise ConfigError(f"{value!r} is none of {', '.join(choices)}", key=name)
        return value

    def end(self) -> None:
        """See that there is nothing left."""
        left = self._values.keys() - set(_WITHOUT_MEANING)
        if left:
            raise ConfigError(f"the option {min(left)!r} is not known here; -S ssh has all of ssh_config's")
