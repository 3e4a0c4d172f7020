"""What a server is made from."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import field, fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from dunnart.crypto.kex import with_gssapi
from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys.certificate import Certificate
from dunnart.keys.private import PrivateKey
from dunnart.protocol.limits import Limits
from dunnart.records import dataclass
from dunnart.runtime.admission import Admission, StartupLimit
from dunnart.runtime.listeners import ListenAddress, listen_address
from dunnart.server.applications import Handler, Middleware, as_application
from dunnart.server.facts import Address, Candidate, UserTerms

if TYPE_CHECKING:
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.core import EngineConfig
    from dunnart.server.authentication import Authenticator
    from dunnart.server.interfaces import (
        AccountCheck,
        AuditSink,
        ChannelType,
        ForwardingPolicy,
        GlobalRequestHandler,
        SessionRequestHandler,
    )
    from dunnart.server.processes.separation import Separation

METHODS = ("none", "publickey", "password", "keyboard-interactive", "gssapi-with-mic", "gssapi-keyex")
_STACK_BYTES = 32 * 1024
HostKey = PrivateKey | bytes | str | os.PathLike[str]
HostCertificate = Certificate | bytes | str | os.PathLike[str]
Listen = str | ListenAddress | socket.socket


def default_admission() -> Admission:
    """Bounds on connections that have not logged in, and penalties, as `dunnart serve` has them (THREATS R18)."""
    return Admission(startups=StartupLimit(), per_source=100, random=_random)


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A server's description. Everything is checked when it is made.

    A *handler* is what serves sessions: `async def handler(session: Session)`, `def handler(session: BlockingSession)`,
    a subclass of `SessionEvents`, or an `Application`.

    Attributes:
        handler: serves shells, commands and what else is not named below; None refuses it.
        host_keys: at least one; a client picks by algorithm. Keys, their files' contents (OpenSSH's or PEM) as bytes,
            or the files' names.
        host_certificates: certificates of some of the host keys, for clients that know their authority: certificates,
            their lines as bytes, or their files' names.
        authenticators: at most one for each method, at least one; `AllowAnyone` to have none on purpose.
        listen: where: "ADDR:PORT", "[IPV6]:PORT", "*:PORT" or "unix:/path", one or several; port 0 lets the system
            choose. A bound and listening socket will do as well, and a connected one is a connection to be served.
        shell: serves the sessions that ask for a shell, in the place of `handler`.
        exec: serves the sessions that ask for a command, likewise.
        subsystems: who serves a subsystem, by its name.
        middleware: put around every handler, the first outermost.
        channel_types: who serves channels of other types than "session", by the type.
        global_requests: who answers requests of the connection that the server does not know, by their name.
        session_requests: who answers such requests of a session that has not begun, by their name.
        forwarding: who decides what may be forwarded; all of them must allow it, and without one nothing is.
        audit: who keeps a record of logins and sessions.
        accept: asked for each new connection, before a byte is exchanged; what is not True refuses it.
        account: has the last word on users who have proved who they are, whatever the method.
        methods: chains of methods ("publickey,password"), each enough to log in; every authenticator's own when empty.
        terms_for: asked whenever a client tries another user: gives that user's chains and limits, in the place of
            `methods` and `limits`. It may name no method without an authenticator; one that is late or fails lets
            nobody in.
        accept_env: patterns of the variables that a client may set.
        algorithms: what is offered, in order of preference, or the name of a profile: "default", "strict", "fips",
            "legacy".
        limits: bounds on one connection.
        admission: bounds on new connections; None lets all in. By default those of `dunnart serve`.
        banner: shown before authentication.
        identified: the connections in `listen` have been sent the server's version line already.
        placement: where the protocol runs: in a "thread" of its own, in a "process" of its own (`workers` of them), or
            on the "loop" that started the server, where it is cheapest and a handler that blocks stops everybody. With
            "process" Python's switch interval (`sys.setswitchinterval`) is 0.5 ms at most while the server runs, so
            that handlers that compute delay the others little.
        workers: how many protocol processes there are.
        separation: has these processes confined, and decides nothing in them, as `dunnart serve` does as root; the
            application then shares its event loop with what talks to them. None: they are what this process is.
        application_threads: how many blocking handlers and event methods may run at once.
        application_queue: how many more may wait for a thread; then sessions are refused with a reason.
        callback_seconds: an authenticator or callback that takes longer denies.
        thread_nice: added to the nice value of the application's threads (Linux), 0 to 19.
        thread_stack_bytes: their stacks' size, 0 for the platform's or at least 32 KiB.
        accept_delay_seconds: rest so long after each accepted connection.
        retry_seconds: rest so long when descriptors ran out, and then accept again.

    Raises:
        ConfigError: it cannot work, or would let everybody in without saying so; names the argument.
    """

    handler: Handler | None = field(default=None, kw_only=False)
    host_keys: Sequence[HostKey] = ()
    host_certificates: Sequence[HostCertificate] = ()
    authenticators: Sequence[Authenticator] = ()
    listen: Listen | Sequence[Listen] = "127.0.0.1:2222"
    shell: Handler | None = None
    exec: Handler | None = None
    subsystems: Mapping[str, Handler] = field(default_factory=dict)
    middleware: Sequence[Middleware] = ()
    channel_types: Mapping[str, ChannelType] = field(default_factory=dict)
    global_requests: Mapping[str, GlobalRequestHandler] = field(default_factory=dict)
    session_requests: Mapping[str, SessionRequestHandler] = field(default_factory=dict)
    forwarding: Sequence[ForwardingPolicy] = ()
    audit: Sequence[AuditSink] = ()
    accept: Callable[[Address], bool] | Callable[[Address], Awaitable[bool]] | None = None
    account: AccountCheck | None = None
    methods: Sequence[str] = ()
    terms_for: Callable[[Candidate], UserTerms] | Callable[[Candidate], Awaitable[UserTerms]] | None = None
    accept_env: Sequence[str] = ("LANG", "LC_*", "COLORTERM", "NO_COLOR")
    algorithms: Algorithms | str = "default"
    limits: Limits = field(default_factory=Limits)
    admission: Admission | None = field(default_factory=default_admission)
    banner: str = ""
    identified: bool = False
    placement: Literal["thread", "process", "loop"] = "thread"
    workers: int = 1
    separation: Separation | None = None
    application_threads: int = 64
    application_queue: int = 64
    callback_seconds: float = 10.0
    thread_nice: int = 0
    thread_stack_bytes: int = 0
    accept_delay_seconds: float = 0.0
    retry_seconds: float = 0.1

    def __post_init__(self) -> None:
        fix = object.__setattr__  # the one moment in which a frozen thing may be changed
        fix(self, "host_keys", tuple(_host_key(key) for key in _sequence(self.host_keys, "host_keys")))
        keys = tuple(key.public for key in self.keys)
        given = _sequence(self.host_certificates, "host_certificates")
        fix(self, "host_certificates", tuple(_host_certificate(each, keys) for each in given))
        fix(self, "authenticators", tuple(_sequence(self.authenticators, "authenticators")))
        fix(self, "listen", _listen(self.listen))
        for name in ("middleware", "methods", "accept_env", "forwarding", "audit"):
            fix(self, name, tuple(_sequence(getattr(self, name), name)))
        if isinstance(self.algorithms, str):
            if self.algorithms not in PROFILES:
                raise ConfigError(f"{self.algorithms!r} is none of {', '.join(PROFILES)}", key="algorithms")
            fix(self, "algorithms", PROFILES[self.algorithms])
        for name in ("methods", "accept_env"):
            for each in getattr(self, name):
                if not isinstance(each, str):
                    raise ConfigError(f"{each!r} is no str", key=name)
        _check_types(self)
        if not self.host_keys:
            raise ConfigError("a server needs one: dunnart.keys.PrivateKey.generate() makes it", key="host_keys")
        self._check_methods()
        if not self._host_key_algorithms():
            raise ConfigError(
                f"no host key can make a signature of {', '.join(self._offered.host_key)}", key="host_keys"
            )
        if self._exchanges_keys_by_gssapi and not with_gssapi(self._offered.kex):
            raise ConfigError("gssapi-keyex can be had with none of the methods in kex", key="algorithms")
        self._check_handlers()

    def _check_handlers(self) -> None:
        handlers = [("handler", self.handler), ("shell", self.shell), ("exec", self.exec)]
        for name, handler in [*handlers, *(("subsystems", handler) for handler in self.subsystems.values())]:
            if handler is not None:
                as_application(handler, name)
        for layer in self.middleware:
            if not callable(layer):
                raise ConfigError(f"{layer!r} is no function of the next handler", key="middleware")
        if self.account is not None and not callable(getattr(self.account, "admit", None)):
            raise ConfigError(f"{self.account!r} has no method admit", key="account")
        for name, method in _METHODS_OF.items():
            made = getattr(self, name)
            for each in made.values() if isinstance(made, Mapping) else made:
                if not callable(getattr(each, method, None)):
                    raise ConfigError(f"{each!r} has no method {method}", key=name)

    def _check_methods(self) -> None:
        if not self.authenticators:
            raise ConfigError(
                "nobody could log in: name an authenticator, or AllowAnyone() to let everybody in", key="authenticators"
            )
        known = [getattr(authenticator, "method", None) for authenticator in self.authenticators]
        for authenticator, method in zip(self.authenticators, known, strict=True):
            if isinstance(authenticator, type) or not callable(getattr(authenticator, "authenticate", None)):
                raise ConfigError(f"{authenticator!r} is no authenticator", key="authenticators")
            if method not in METHODS:
                raise ConfigError(f"{method!r} is none of {', '.join(METHODS)}", key="authenticators")
            if known.count(method) > 1:
                raise ConfigError(f"there are two authenticators for {method}", key="authenticators")
        for chain in self.methods:
            if len(set(chain.split(","))) < chain.count(",") + 1:  # one proof would be taken twice
                raise ConfigError(f"{chain!r} names a method twice", key="methods")
            for method in chain.split(","):
                if method not in known:
                    raise ConfigError(f"no authenticator is there for {method}", key="methods")

    def served(self) -> dict[str, Handler]:
        """Who serves what: "shell", "exec", "subsystem NAME"."""
        found = {
            "shell": self.handler if self.shell is None else self.shell,
            "exec": self.handler if self.exec is None else self.exec,
        }
        found |= {f"subsystem {name}": handler for name, handler in self.subsystems.items()}
        return {name: handler for name, handler in found.items() if handler is not None}

    def _host_key_algorithms(self) -> tuple[str, ...]:
        keys: tuple[PrivateKey | Certificate, ...] = (*self.keys, *self.certificates)
        usable = {name for key in keys for name in key.signature_algorithms}
        return tuple(name for name in self._offered.host_key if name in usable)

    def _kex_methods(self) -> tuple[str, ...]:
        names = self._offered.kex
        return (*with_gssapi(names), *names) if self._exchanges_keys_by_gssapi else names

    @property
    def _exchanges_keys_by_gssapi(self) -> bool:
        return any(authenticator.method == "gssapi-keyex" for authenticator in self.authenticators)

    @property
    def _offered(self) -> Algorithms:
        assert isinstance(self.algorithms, Algorithms)
        return self.algorithms

    @property
    def keys(self) -> tuple[PrivateKey, ...]:
        """The host keys, whatever they were given as."""
        return tuple(key for key in self.host_keys if isinstance(key, PrivateKey))

    @property
    def decided_elsewhere(self) -> frozenset[str]:
        """The methods that protocol processes decide on by themselves."""
        if self.account is not None:  # who has the last word hears of no decision there
            return frozenset()
        if self.separation is not None:  # they would be a stranger's decisions, should one take such a process over
            return frozenset()
        return frozenset(each.method for each in self.authenticators if getattr(each, "travels", False))

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The host certificates, whatever they were given as."""
        return tuple(each for each in self.host_certificates if isinstance(each, Certificate))

    @property
    def listeners(self) -> tuple[ListenAddress | socket.socket, ...]:
        """Where to listen, whatever it was given as."""
        return self.listen  # type: ignore[return-value] # made so when it was checked

    def engine_config(self) -> EngineConfig:
        """What the protocol needs of it."""
        from dunnart.protocol.core import EngineConfig
        from dunnart.protocol.phases import Role

        chains = self.methods or tuple(authenticator.method for authenticator in self.authenticators)
        return EngineConfig(
            role=Role.SERVER,
            algorithms=replace(self._offered, kex=self._kex_methods(), host_key=self._host_key_algorithms()),
            limits=self.limits,
            host_keys=tuple(key.public for key in self.keys),
            host_certificates=self.certificates,
            auth_methods=tuple(tuple(chain.split(",")) for chain in chains),
            asks_methods=self.terms_for is not None,
            banner=self.banner,
            identified=self.identified,
        )


def _sequence(value: object, name: str) -> Iterable[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError(f"{value!r} is no sequence: write [{value!r}]", key=name)
    return value


def _host_key(key: HostKey) -> PrivateKey:
    if isinstance(key, PrivateKey):
        return key
    try:
        if isinstance(key, str | os.PathLike):
            from dunnart.keys.files import read_private_key

            return read_private_key(os.fspath(key))
        if isinstance(key, bytes):
            return PrivateKey.load(key)
    except (ConfigError, KeyFormatError) as error:
        raise ConfigError(str(error), key="host_keys") from error
    raise ConfigError(f"{key!r} is no PrivateKey, key as bytes, or file's name", key="host_keys")


def _host_certificate(given: HostCertificate, keys: Sequence[PublicKey]) -> Certificate:
    try:
        if isinstance(given, str | os.PathLike):
            from dunnart.keys.files import read_certificate

            given = read_certificate(os.fspath(given))
        certificate = Certificate.parse_line(given.decode(errors="replace")) if isinstance(given, bytes) else given
    except (ConfigError, KeyFormatError) as error:
        raise ConfigError(str(error), key="host_certificates") from error
    if not isinstance(certificate, Certificate):
        raise ConfigError(f"{given!r} is no Certificate, line as bytes, or file's name", key="host_certificates")
    if certificate.kind != "host":
        raise ConfigError(f"{certificate.key_id!r} is a user's certificate, not a host's", key="host_certificates")
    if certificate.key not in keys:
        raise ConfigError(f"{certificate.key_id!r} is for none of the host keys", key="host_certificates")
    return certificate


def may_set(config: ServerConfig, name: str, value: str) -> bool:
    """Tell whether a client may set a session's variable."""
    return (
        any(fnmatchcase(name, pattern) for pattern in config.accept_env)
        and bool(name)
        and not any(character in name for character in "\0=\n")
        and "\0" not in value
        and len(name) + len(value) <= config.limits.environment_bytes
    )


def _listen(value: object) -> tuple[object, ...]:
    single = isinstance(value, str | ListenAddress | socket.socket)
    places = [value] if single else list(_sequence(value, "listen"))
    found: list[object] = []
    for place in places:
        try:
            found.append(listen_address(place) if isinstance(place, str) else place)
        except ValueError as error:
            raise ConfigError(str(error), key="listen") from error
        if not isinstance(found[-1], ListenAddress | socket.socket):
            raise ConfigError(f"{place!r} is no address and no socket", key="listen")
    return tuple(found)


_LEAST = {
    "workers": 1, "application_threads": 1, "application_queue": 0, "thread_nice": 0, "thread_stack_bytes": 0,
    "callback_seconds": 0, "accept_delay_seconds": 0, "retry_seconds": 0,
}  # fmt: skip
_KINDS: dict[str, type] = {
    "banner": str, "subsystems": Mapping, "channel_types": Mapping, "global_requests": Mapping,
    "session_requests": Mapping, "limits": Limits, "algorithms": Algorithms,
}  # fmt: skip
_METHODS_OF = {
    "channel_types": "open", "global_requests": "answer", "session_requests": "prepare", "forwarding": "allows",
    "audit": "record",
}  # fmt: skip
"""The methods of plug-ins, by the argument that they are given with."""


def _check_types(config: ServerConfig) -> None:
    for each in fields(config):
        name, value = each.name, getattr(config, each.name)
        if name in _LEAST:
            whole = not name.endswith("_seconds")
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not _LEAST[name] <= value < float("inf"):
                raise ConfigError(f"{value!r} is no {'whole ' if whole else ''}number from {_LEAST[name]}", key=name)
        elif name in _KINDS and not isinstance(value, _KINDS[name]):
            raise ConfigError(f"{value!r} is no {_KINDS[name].__name__}", key=name)
    if config.placement not in ("thread", "process", "loop"):
        raise ConfigError(f"{config.placement!r} is none of thread, process, loop", key="placement")
    if config.separation is not None and config.placement != "process":
        raise ConfigError('separation needs placement="process"', key="separation")
    if config.workers > 1 and config.placement != "process":
        raise ConfigError('more than one worker needs placement="process"', key="workers")
    if 0 < config.thread_stack_bytes < _STACK_BYTES:
        raise ConfigError(f"a stack has at least {_STACK_BYTES} bytes", key="thread_stack_bytes")
    if config.accept is not None and not callable(config.accept):
        raise ConfigError(f"{config.accept!r} is no function accept(address)", key="accept")
    if config.terms_for is not None and not callable(config.terms_for):
        raise ConfigError(f"{config.terms_for!r} is no function terms_for(candidate)", key="terms_for")
    if config.admission is not None and not isinstance(config.admission, Admission):
        raise ConfigError(f"{config.admission!r} is no Admission", key="admission")
