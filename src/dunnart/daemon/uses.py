"""Which plug-ins a configuration names, and what for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dunnart.daemon.values import OFF

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig


class Use(NamedTuple):
    """An option, or an entry of its table, that names a plug-in."""

    group: str
    plugin: str
    option: str
    entry: str | None = None


GROUPS = {
    "authenticators": "dunnart.authenticators", "account": "dunnart.accounts",
    "key_sources": "dunnart.key_sources", "shell": "dunnart.shells", "exec": "dunnart.execs",
    "subsystem": "dunnart.subsystems", "middleware": "dunnart.middleware",
    "channel_types": "dunnart.channel_types", "global_requests": "dunnart.global_requests",
    "session_requests": "dunnart.session_requests", "forwarding": "dunnart.forwarding_policies",
    "audit": "dunnart.audit_sinks",
}  # fmt: skip
"""The options that name plug-ins, and the entry-point groups that those stand in."""
AUTHORIZED_KEYS = "authorized-keys"
OS_LOGINS = ("os", "command")
"""The plug-ins that serve sessions as logins of the system's users."""
ONE_TIME_PASSWORD = "one-time-password"  # noqa: S105 - a plug-in's name
FORWARDS: dict[str, dict[str, dict[str, str]]] = {
    "tcp": {
        "channel_types": {"direct-tcpip": "direct-tcpip"},
        "global_requests": {"tcpip-forward": "tcpip-forward", "cancel-tcpip-forward": "tcpip-forward"},
    },
    "unix": {
        "channel_types": {"direct-streamlocal@openssh.com": "direct-streamlocal"},
        "global_requests": {
            "streamlocal-forward@openssh.com": "streamlocal-forward",
            "cancel-streamlocal-forward@openssh.com": "streamlocal-forward",
        },
    },
    "agent": {"session_requests": {"auth-agent-req@openssh.com": "agent-forwarding"}},
    "x11": {"session_requests": {"x11-req": "x11-forwarding"}},
}
"""What the kinds of `forwards` stand for; an entry that the configuration has itself comes first."""
KINDS_OF_FORWARDS = {
    "connect": "tcp", "listen": "tcp", "connect-unix": "unix", "listen-unix": "unix", "agent": "agent", "x11": "x11",
}  # fmt: skip
"""Which of these what a client asks for is, by its `Forward.kind`."""


def uses(config: ServeConfig) -> list[Use]:
    """Give what the configuration names plug-ins for, in the order of the options."""
    found: list[Use] = []
    for option_name, group in GROUPS.items():
        value = getattr(config, option_name)
        if option_name == "forwarding" and not _forwards_anything(config):
            continue
        if isinstance(value, Mapping):
            for kind in _kinds_forwarded(config):
                value = {**FORWARDS[kind].get(option_name, {}), **value}
            found += [Use(group, name, option_name, entry) for entry, name in value.items() if name != OFF]
        elif isinstance(value, tuple):
            found += [Use(group, name, option_name) for name in value]
        elif value != OFF:
            found.append(Use(group, value, option_name))
    return [*_default_authenticators(config), *found]


def _forwards_anything(config: ServeConfig) -> bool:
    return bool(_kinds_forwarded(config) or config.channel_types or config.global_requests or config.session_requests)


def _kinds_forwarded(config: ServeConfig) -> tuple[str, ...]:
    return () if OFF in config.forwards else config.forwards


def _default_authenticators(config: ServeConfig) -> list[Use]:
    """Give those that no option names."""
    group = GROUPS["authenticators"]
    wanted = {method for chain in config.methods for method in chain.split(",")}
    found = []
    if not config.authenticators and (not wanted or "publickey" in wanted):
        found.append(Use(group, AUTHORIZED_KEYS, "authorized_keys"))
    if ONE_TIME_PASSWORD not in config.authenticators and (
        config.password == "one-time" or (config.password == "auto" and not config.authenticators)  # noqa: S105
    ):
        found.append(Use(group, ONE_TIME_PASSWORD, "password"))
    return found
