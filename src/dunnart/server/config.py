"""What a server is made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.errors import ConfigError
from dunnart.protocol.core import EngineConfig
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dunnart.keys.private import PrivateKey
    from dunnart.runtime.admission import Admission
    from dunnart.server.authentication import Authenticator
    from dunnart.server.session import Application

METHODS = ("none", "publickey", "password", "keyboard-interactive")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A server's description. Everything is checked when it is made.

    Attributes:
        host_keys: at least one; a client picks by algorithm.
        authenticators: at most one for each method, at least one; `AllowAnyone` to have none on purpose.
        shell: runs the sessions that ask for a shell; None refuses them.
        exec: runs the sessions that ask for a command; None refuses them.
        subsystems: who runs a subsystem, by its name.
        methods: chains of methods ("publickey,password"), each enough to log in; every authenticator's own when empty.
        accept_env: patterns of the variables that a client may set.
        algorithms: what is offered, in order of preference.
        limits: bounds on one connection.
        admission: decides on new connections; None lets all in.
        banner: shown before authentication.

    Raises:
        ConfigError: it cannot work, or would let everybody in without saying so.
    """

    host_keys: tuple[PrivateKey, ...]
    authenticators: tuple[Authenticator, ...]
    shell: Application | None = None
    exec: Application | None = None
    subsystems: Mapping[str, Application] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    accept_env: tuple[str, ...] = ("LANG", "LC_*")
    algorithms: Algorithms = PROFILES["default"]
    limits: Limits = field(default_factory=Limits)
    admission: Admission | None = None
    banner: str = ""

    def __post_init__(self) -> None:
        if not self.host_keys:
            raise ConfigError("a server needs a host key", key="host_keys")
        if not self.authenticators:
            raise ConfigError(
                "nobody could log in: name an authenticator, or AllowAnyone() to let everybody in", key="authenticators"
            )
        known = [authenticator.method for authenticator in self.authenticators]
        for method in known:
            if method not in METHODS:
                raise ConfigError(f"{method!r} is none of {', '.join(METHODS)}", key="authenticators")
            if known.count(method) > 1:
                raise ConfigError(f"there are two authenticators for {method}", key="authenticators")
        for chain in self.methods:
            for method in chain.split(","):
                if method not in known:
                    raise ConfigError(f"no authenticator is there for {method}", key="methods")
        if not self._host_key_algorithms():
            raise ConfigError(
                f"no host key can make a signature of {', '.join(self.algorithms.host_key)}", key="host_keys"
            )

    def _host_key_algorithms(self) -> tuple[str, ...]:
        usable = {name for key in self.host_keys for name in key.signature_algorithms}
        return tuple(name for name in self.algorithms.host_key if name in usable)

    def engine_config(self) -> EngineConfig:
        """What the protocol needs of it."""
        chains = self.methods or tuple(authenticator.method for authenticator in self.authenticators)
        return EngineConfig(
            role=Role.SERVER,
            algorithms=replace(self.algorithms, host_key=self._host_key_algorithms()),
            limits=self.limits,
            host_keys=tuple(key.public for key in self.host_keys),
            auth_methods=tuple(tuple(chain.split(",")) for chain in chains),
            banner=self.banner,
        )
