"""Rules for single logins: match tables, lists of users and groups, and what the configuration takes from all logins.

Where there are any, the server is given something else than the plug-ins: what finds the variant of the configuration
that a login has, settled when its client first names the user, and hands on to that variant's plug-ins.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dunnart.daemon.config import ServeConfig
from dunnart.daemon.loading import with_matches
from dunnart.daemon.matching import Login, groups_of, refusal
from dunnart.daemon.uses import KINDS_OF_FORWARDS
from dunnart.daemon.values import NONE, OFF
from dunnart.errors import ConfigError
from dunnart.keys.key_options import permit
from dunnart.records import dataclass
from dunnart.server import (
    Allow,
    AuthReply,
    Deny,
    GssapiKeyExchange,
    InteractiveCredential,
    PasswordCredential,
    PublicKeyCredential,
    Rights,
    UserTerms,
)
from dunnart.server.applications import as_application
from dunnart.server.authentication import takes
from dunnart.server.forced import ORIGINAL

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms
    from dunnart.daemon.plugins import Plugins
    from dunnart.keys.rights import Permits
    from dunnart.server import (
        Address,
        Application,
        Attempt,
        Authenticator,
        Candidate,
        ConnectionFacts,
        Forward,
        RawSession,
    )
    from dunnart.server.interfaces import ChannelOpening, ConnectionRequest, SessionRequest

_LOG = logging.getLogger("dunnart.auth")
_MOST_LOGINS = 10_000
_WRONG = "\b\n\r\x7fINCORRECT"  # nobody can type it
_USER_LISTS = ("allow_users", "deny_users", "allow_groups", "deny_groups")
_ON_RIGHTS = ("set_env", "force_command", "permit_open", "permit_listen")


def wanted(config: ServeConfig) -> bool:
    """Tell whether there is anything to be decided for single logins."""
    lists = any(getattr(config, name) for name in (*_USER_LISTS, *_ON_RIGHTS))
    return bool(config.match) or lists or not config.permit_tty


def rights_of(config: ServeConfig) -> Rights:
    """Give what the configuration leaves to a login."""
    return Rights(
        pty=config.permit_tty,
        user_rc=not config.force_command,  # as sshd has it; a key's command runs after the file
        command=config.force_command.encode() or None,
        environment=tuple(config.set_env.items()),
        permit_open=_permits("permitopen", config.permit_open),
        permit_listen=_permits("permitlisten", config.permit_listen),
    )


def algorithms_of_all(config: ServeConfig) -> Algorithms:
    """Give the lists that the server is given: what some login's key may sign by must be known to it."""
    found = config.algorithms()
    lists = [found.user_key, *(with_matches(config, [match]).algorithms().user_key for match in config.match)]
    return replace(found, user_key=tuple(dict.fromkeys(name for each in lists for name in each)))


def _permits(name: str, values: Sequence[str]) -> Permits | None:
    return tuple(permit(name, value) for value in values if value != NONE) if values else None


@dataclass(frozen=True, slots=True)
class _Variant:
    """The configuration that some logins have, and its plug-ins.

    Attributes:
        chains: how these logins may be made.
        key_algorithms: what their keys may sign by.
        applications: what serves their sessions, as the server names it: "shell", "exec", "subsystem NAME".
    """

    config: ServeConfig
    plugins: Plugins
    rights: Rights
    chains: tuple[str, ...]
    key_algorithms: frozenset[str]
    applications: Mapping[str, Application]

    @classmethod
    def of(cls, config: ServeConfig, plugins: Plugins) -> _Variant:
        methods = [each.method for each in plugins.authenticators]
        for method in methods:
            if methods.count(method) > 1:
                raise config.source.error(f"there are two for {method}", "authenticators")
        known = set(methods)
        for chain in config.methods:
            for method in chain.split(","):
                if method not in known:
                    raise config.source.error(f"{chain!r}: no authenticator is there for {method}", "methods")
        served = {"shell": plugins.shell, "exec": plugins.exec}
        served |= {f"subsystem {name}": handler for name, handler in plugins.subsystems.items()}
        return cls(
            config, plugins, rights_of(config), config.methods or tuple(each.method for each in plugins.authenticators),
            frozenset(config.algorithms().user_key),
            {kind: as_application(handler, kind) for kind, handler in served.items() if handler is not None},
        )  # fmt: skip

    def limited(self, reply: Allow) -> Allow:
        """Take from what an authenticator allows what the configuration does not leave to it."""
        own = reply.rights or Rights()
        if self.rights.command is not None:  # as in sshd, the configuration's comes before a key's
            own = replace(own, command=None)
        return replace(reply, rights=self.rights.both(own))


@dataclass(frozen=True, slots=True)
class _Settled:
    """What was found out about a login: its variant, and why it may not be."""

    variant: _Variant
    refusal: str


class Rules:
    """Finds the variant of the configuration that a login has.

    Args:
        config: with its match tables.
        variants: the configuration without them, and with each one alone.
        make: makes the plug-ins of a variant.
    """

    def __init__(
        self, config: ServeConfig, variants: Sequence[ServeConfig], make: Callable[[ServeConfig], Plugins]
    ) -> None:
        self._config = config
        self._make = make
        self._lock = threading.Lock()
        self._logins: OrderedDict[int, tuple[str, _Settled]] = OrderedDict()
        fitting = [(), *((number,) for number in range(len(config.match)))]
        # Whatever is wrong with a table is told at the start.
        self._variants: dict[tuple[int, ...], _Variant] = {}
        for numbers, each in zip(fitting, variants, strict=True):
            self._variants[numbers] = self._checked(numbers, each)
        everything = [config, *(with_matches(config, [match]) for match in config.match)]
        self._by_group = any("group" in match.criteria for match in config.match) or any(
            each.allow_groups or each.deny_groups for each in everything
        )

    @property
    def variants(self) -> tuple[_Variant, ...]:
        """Those made so far; at the start, all of which others are put together."""
        with self._lock:
            return tuple(self._variants.values())

    def _checked(self, numbers: tuple[int, ...], config: ServeConfig) -> _Variant:
        try:
            return _Variant.of(config, self._make(config))
        except ConfigError as error:
            if not numbers or error.line is not None:
                raise
            number = numbers[0] + 1
            raise self._config.source.error(str(error), "match", str(number)) from error

    def terms_for(self, candidate: Candidate) -> UserTerms:
        """Settle which variant a client has that names a user, and give its terms. In a thread: it may block."""
        settled = self._settle(self._login(candidate.user, candidate.peer, candidate.local))
        with self._lock:
            self._logins[candidate.connection] = candidate.user, settled
            while len(self._logins) > _MOST_LOGINS:
                self._logins.popitem(last=False)
        limits = settled.variant.config.limits
        return UserTerms(settled.variant.chains, None if limits == self._config.limits else limits)

    def settled(self, connection: int, user: str) -> _Settled | None:
        """Give what was settled for a login: of a connection, the last one."""
        with self._lock:
            found = self._logins.get(connection)
        return found[1] if found is not None and found[0] == user else None

    def of_anybody(self, method: str) -> Authenticator:
        """Give what exchanges keys by a method; variants with the same options share it, and so what it knows."""
        return next(found for each in self.variants for found in each.plugins.authenticators if found.method == method)

    def forget(self, connection: int) -> None:
        """A connection is gone."""
        with self._lock:
            self._logins.pop(connection, None)

    def of(self, connection: ConnectionFacts) -> _Variant:
        """Give the variant of a user who is in."""
        settled = self.settled(connection.id, connection.user)
        if settled is None:  # it was long ago
            settled = self._settle(self._login(connection.user, connection.peer, connection.local))
        return settled.variant

    def _login(self, user: str, peer: Address, local: Address) -> Login:
        return Login(user, peer.host, local.host, local.port, groups_of(user) if self._by_group else ())

    def _settle(self, login: Login) -> _Settled:
        numbers = tuple(number for number, match in enumerate(self._config.match) if match.fits(login))
        with self._lock:
            variant = self._variants.get(numbers)
            if variant is None:
                config = with_matches(self._config, [self._config.match[number] for number in numbers])
                variant = self._variants[numbers] = self._checked(numbers, config)
        lists = {name: getattr(variant.config, name) for name in _USER_LISTS}
        return _Settled(variant, refusal(login, **lists))


def ruled(config: ServeConfig, variants: Sequence[ServeConfig], make: Callable[[ServeConfig], Plugins]) -> Plugins:
    """Make what the server is given where single logins have rules.

    Raises:
        ConfigError: a variant cannot be used.
    """
    rules = Rules(config, variants, make)
    made = rules.variants
    kinds = dict.fromkeys(kind for each in made for kind in each.config.forwards if kind != OFF)
    # What some may have forwarded the server has to know; who may not, `_Forwarding` says.
    base = make(replace(with_matches(config, []), forwards=tuple(kinds) or (OFF,)))
    methods = dict.fromkeys(each.method for variant in made for each in variant.plugins.authenticators)
    served = dict.fromkeys(kind for variant in made for kind in variant.applications)
    certified = {each.method for variant in made for each in variant.plugins.authenticators
                 if getattr(each, "certificates", False) is True}  # fmt: skip
    patterns = tuple(dict.fromkeys(pattern for each in made for pattern in each.config.accept_env))
    applications = {kind: _Application(rules, kind, patterns) for kind in served}
    return replace(
        base,
        authenticators=tuple(_Authenticator(rules, method, certificates=method in certified) for method in methods),
        shell=applications.get("shell"),
        exec=applications.get("exec"),
        subsystems={kind.removeprefix("subsystem "): each for kind, each in applications.items() if " " in kind},
        forwarding=(_Forwarding(rules),) if kinds or base.forwarding else (),
        channel_types={name: _of_login(rules, "channel_types", name, "open", each)
                       for name, each in base.channel_types.items()},
        global_requests={name: _of_login(rules, "global_requests", name, "answer", each)
                         for name, each in base.global_requests.items()},
        session_requests={name: _of_login(rules, "session_requests", name, "prepare", each)
                          for name, each in base.session_requests.items()},
        methods=(),
        terms_for=rules.terms_for,
        accept_env=patterns,
    )  # fmt: skip


def spoiled(attempt: Attempt) -> Attempt:
    """Put a wrong password in the place of the one given: who may not log in learns nothing of it, nor uses it."""
    credential = attempt.credential
    if isinstance(credential, PasswordCredential):
        return replace(attempt, credential=PasswordCredential(_WRONG))
    if isinstance(credential, InteractiveCredential) and credential.responses is not None:
        responses = (_WRONG,) * len(credential.responses)
        return replace(attempt, credential=replace(credential, responses=responses))
    return attempt


class _Authenticator:
    """Asks the authenticator of a method that a login's variant has."""

    def __init__(self, rules: Rules, method: str, *, certificates: bool) -> None:
        self.method = method
        self.certificates = certificates
        self._rules = rules

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask it. Who may not log in at all is asked for as much as others, and refused in the end."""
        if isinstance(attempt.credential, GssapiKeyExchange):  # before there is a user, and so a variant
            return await self._rules.of_anybody(self.method).authenticate(attempt)
        settled = self._rules.settled(attempt.connection, attempt.user)
        if settled is None:
            return Deny("it is not known any more which rules this login has")
        authenticator: Authenticator | None = next(
            (each for each in settled.variant.plugins.authenticators if each.method == self.method), None
        )
        if authenticator is None or not takes(authenticator, attempt.credential):
            return Deny("not for this user")
        credential = attempt.credential
        if isinstance(credential, PublicKeyCredential) and credential.algorithm not in settled.variant.key_algorithms:
            return Deny(f"{credential.algorithm} is not for this user")
        reply = await authenticator.authenticate(spoiled(attempt) if settled.refusal else attempt)
        if not isinstance(reply, Allow):
            return reply
        return Deny(settled.refusal) if settled.refusal else settled.variant.limited(reply)

    def ended(self, connection: int) -> None:
        """Tell those who want to know that a connection is gone."""
        self._rules.forget(connection)
        told = {ended: None for variant in self._rules.variants for each in variant.plugins.authenticators
                if each.method == self.method and (ended := getattr(each, "ended", None)) is not None}  # fmt: skip
        for ended in told:
            ended(connection)


class _Application:
    """Serves a session by what a login's variant has for its kind."""

    def __init__(self, rules: Rules, kind: str, patterns: tuple[str, ...]) -> None:
        self.__qualname__ = kind  # as the status shows it
        self._rules = rules
        self._kind = kind
        self._patterns = patterns

    def begin(self, session: RawSession) -> bool:
        """Have it begin."""
        variant = self._rules.of(session.facts.connection)
        application = variant.applications.get(self._kind)
        if application is None:
            return False
        accepted = variant.config.accept_env
        if accepted != self._patterns:
            kept = {ORIGINAL, *(name for name, _ in session.rights.environment)}
            session.facts.environment = {
                name: value for name, value in session.facts.environment.items()
                if name in kept or _fits(name, accepted) or not _fits(name, self._patterns)
            }  # fmt: skip
        return application.begin(session)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _of_login(rules: Rules, option: str, name: str, method: str, base: object) -> Any:  # noqa: ANN401 - as the plug-in
    """Give what asks the plug-in that a login's variant has, or the one of all where it has none."""

    async def ask(asked: ChannelOpening | ConnectionRequest | SessionRequest) -> Any:  # noqa: ANN401 - as the plug-in's
        found = getattr(rules.of(asked.connection).plugins, option).get(name, base)
        return await getattr(found, method)(asked)

    return SimpleNamespace(**{method: ask})


class _Forwarding:
    """Decides on forwards as a login's variant has it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def allows(self, forward: Forward) -> bool:
        """Tell whether the kind is forwarded, and all policies allow it."""
        variant = self._rules.of(forward.connection)
        kinds = variant.config.forwards
        if OFF in kinds or KINDS_OF_FORWARDS.get(forward.kind) not in kinds:
            return False
        policies = variant.plugins.forwarding
        for policy in policies:
            if await policy.allows(forward) is not True:
                return False
        return bool(policies)
