"""The plug-ins that a configuration asks for: found, given their options, made, and named where they fail."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dunnart.daemon import rules
from dunnart.daemon.config import ServeConfig
from dunnart.daemon.in_vain import in_vain
from dunnart.daemon.loading import with_matches
from dunnart.daemon.options import BadValue, field_types, table, unknown_name
from dunnart.daemon.uses import AUTHORIZED_KEYS, ONE_TIME_PASSWORD, OS_LOGINS, Use, uses
from dunnart.daemon.values import LOG_LEVEL
from dunnart.errors import ConfigError, DunnartError, PluginError
from dunnart.keys.public import RSA_BITS_MIN
from dunnart.plugins import BUILT_IN
from dunnart.protocol.questions import Refusal
from dunnart.records import dataclass
from dunnart.runtime.logs import LEVELS, clean
from dunnart.server import Allow, Deny, GssapiStep, PasswordCredential, Prompt, Tunnel
from dunnart.server.applications import is_async
from dunnart.server.plugins import GROUPS, Context, Factory, Found, Group, Registry, options_of, short

if TYPE_CHECKING:
    from dunnart.plugins.revoked_keys import RevokedKeysFile
    from dunnart.server import (
        Application,
        Attempt,
        Authenticator,
        AuthReply,
        Candidate,
        Credential,
        Handler,
        Middleware,
        RawSession,
        UserTerms,
    )
    from dunnart.server.interfaces import (
        AccountCheck,
        AsyncHandler,
        AuditEvent,
        AuditSink,
        ChannelOpening,
        ChannelType,
        ForwardingPolicy,
        GlobalRequestHandler,
        KeySource,
        SessionRequestHandler,
    )

_LOG = logging.getLogger("dunnart.daemon")
FORCED = "forced-commands-only"
_PROOFS = {"publickey", "gssapi-with-mic", "gssapi-keyex"}
"""Methods by which root may log in where permit_root_login is "prohibit-password", as sshd has it."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """What the server is given of plug-ins. The names are those of the server's arguments."""

    authenticators: tuple[Authenticator, ...]
    shell: Handler | None
    exec: Handler | None
    subsystems: Mapping[str, Handler]
    middleware: tuple[Middleware, ...]
    channel_types: Mapping[str, ChannelType]
    global_requests: Mapping[str, GlobalRequestHandler]
    session_requests: Mapping[str, SessionRequestHandler]
    forwarding: tuple[ForwardingPolicy, ...]
    audit: tuple[AuditSink, ...]
    account: AccountCheck | None
    methods: tuple[str, ...]
    accept_env: tuple[str, ...]
    terms_for: Callable[[Candidate], UserTerms] | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plug-in whose factory is there, and whose options are known.

    Attributes:
        found: where it comes from.
        factory: what makes it.
        options: the dataclass of its options; None: it takes none.
        names: the names of its options.
    """

    found: Found
    factory: Factory
    options: type[Any] | None
    names: frozenset[str]


def registry() -> Registry:
    """Give the registry with the built-in plug-ins."""
    return Registry(BUILT_IN)


def load(known: Registry, found: Found) -> Loaded:
    """Import a plug-in.

    Raises:
        PluginError: that cannot be done.
    """
    factory = known.load(found)
    kind = options_of(factory)
    try:
        names = frozenset() if kind is None else frozenset(field_types(kind))
    except (TypeError, NameError) as error:
        raise PluginError(f"the options of {found.origin} cannot be used: {error}", found.name) from error
    if LOG_LEVEL in names:
        raise PluginError(f"{found.origin} has an option {LOG_LEVEL}, which every plug-in has anyway", found.name)
    return Loaded(found, factory, kind, names)


def make(config: ServeConfig, user: str, one_time_password: str | None) -> Plugins:
    """Make everything that the configuration names.

    Args:
        config: the configuration.
        user: who may log in with the one-time password.
        one_time_password: None: there is none.

    Raises:
        ConfigError: a plug-in cannot be found, loaded or made, or its options cannot be used.
    """
    made_before: list[_Made] = []

    def make_for(variant: ServeConfig) -> Plugins:
        maker = _Maker(variant, _given(variant, user, one_time_password), made_before)
        maker.check()
        return maker.make()

    variants = _variants(config)
    made = rules.ruled(config, variants, make_for) if rules.wanted(config) else make_for(config)
    for each in in_vain(variants):
        _LOG.warning("%s", each)
    return made


def _variants(config: ServeConfig) -> list[ServeConfig]:
    """Give the configuration without match tables, and with each of them."""
    return [with_matches(config, []), *(with_matches(config, [match]) for match in config.match)]


def _given(config: ServeConfig, user: str, one_time_password: str | None) -> dict[str, dict[str, object]]:
    given: dict[str, dict[str, object]] = {
        AUTHORIZED_KEYS: {
            "files": config.authorized_keys, "strict_modes": config.strict_modes,
            "root": config.permit_root_login != "no", "variables": config.permit_user_environment,
            "command": config.authorized_keys_command, "command_user": config.authorized_keys_command_user,
            "authorities": config.trusted_user_ca_keys, "principals": config.authorized_principals_file,
            "principals_command": config.authorized_principals_command,
            "principals_command_user": config.authorized_principals_command_user,
            "ca_algorithms": config.algorithms().ca_signature,
        },
    }  # fmt: skip
    for name in OS_LOGINS:
        given[name] = {
            "print_motd": config.print_motd, "print_last_log": config.print_last_log,
            "permit_user_rc": config.permit_user_rc, "user_environment": config.permit_user_environment,
        }  # fmt: skip
    if one_time_password is not None:
        given[ONE_TIME_PASSWORD] = {"user": user, "password": one_time_password}
    return given


class _Made(NamedTuple):
    """A plug-in that was made with certain options."""

    group: str
    plugin: str
    options: object
    made: Any


class _Maker:
    """Makes the plug-ins of one configuration, each once however often it is named.

    Args:
        config: the configuration.
        given: options that plug-ins have from elsewhere than their tables.
        made: those made for other variants of the configuration; with the same options they are used again.
    """

    def __init__(
        self, config: ServeConfig, given: Mapping[str, Mapping[str, object]], made: list[_Made] | None = None
    ) -> None:
        self._made_before = [] if made is None else made
        self._config = config
        self._given = given
        self._registry = registry()
        self._uses = [use for use in uses(config) if use.option != "password" or ONE_TIME_PASSWORD in given]
        self._loaded: dict[tuple[str, str], Loaded] = {}

    def check(self) -> None:
        """Load every plug-in, and see that each option in its table is one of its options."""
        for use in self._uses:
            if (use.group, use.plugin) not in self._loaded:
                with _Blame(self._config, use):
                    found = self._registry.find(GROUPS[use.group], use.plugin)
                    self._loaded[use.group, use.plugin] = load(self._registry, found)
        for name, values in self._config.plugin.items():
            loaded = [each for each in self._loaded.values() if each.found.name == name]
            known = frozenset[str]().union(*(each.names for each in loaded))
            for key in values:
                if key != LOG_LEVEL and key not in known and loaded:
                    message = unknown_name(key, tuple(sorted(known))) if known else "the plug-in has no options"
                    raise self._config.source.error(message, "plugin", f"{name}.{key}")
        for loaded_one in self._loaded.values():
            if loaded_one.found.name not in {AUTHORIZED_KEYS, ONE_TIME_PASSWORD}:  # those get theirs from elsewhere
                self._options(loaded_one)

    def make(self) -> Plugins:
        """Make all, in the order of the options."""
        from dunnart.server import plugins as groups

        made = {use: self._object(use) for use in self._uses}
        for use, each in made.items():
            if use.group == groups.AUTHENTICATORS.name and getattr(each, "second_factor", False) is True:
                self._check_chains(use.plugin, each.method)
        of = _by_option(made)

        return Plugins(
            authenticators=self._authenticators(
                [(use.plugin, cast("Authenticator", found)) for use, found in made.items()
                 if use.group == groups.AUTHENTICATORS.name],
                {use.plugin: cast("KeySource", found) for use, found in of("key_sources")},
            ),
            shell=next((_named(use.plugin, found) for use, found in of("shell")), None),
            exec=next((_named(use.plugin, found) for use, found in of("exec")), None),
            subsystems={str(use.entry): _named(use.plugin, found) for use, found in of("subsystem")},
            middleware=tuple(_named_middleware(self._config, use, found) for use, found in of("middleware")),
            channel_types={str(use.entry): _NamedChannelType(use.plugin, found) for use, found in of("channel_types")},
            global_requests={
                str(use.entry): cast("GlobalRequestHandler", _with_named(use.plugin, found, "answer"))
                for use, found in of("global_requests")
            },
            session_requests={
                str(use.entry): cast("SessionRequestHandler", _with_named(use.plugin, found, "prepare"))
                for use, found in of("session_requests")
            },
            forwarding=tuple(
                cast("ForwardingPolicy", _with_named(use.plugin, found, "allows")) for use, found in of("forwarding")
            ),
            audit=tuple(_NamedSink(use.plugin, found) for use, found in of("audit")),
            account=next((cast("AccountCheck", found) for _, found in of("account")), None),
            methods=self._config.methods,
            accept_env=self._config.accept_env,
        )  # fmt: skip

    def _check_chains(self, name: str, method: str) -> None:
        """See that what is no proof by itself, as six digits that can be guessed, is only asked for beside another."""
        if not self._config.methods or method in self._config.methods:
            message = f'{name} is a second factor: write methods = ["publickey,{method}"], or another such chain'
            raise self._config.source.error(message, "authenticators")

    def _object(self, use: Use) -> Any:  # noqa: ANN401 - of its group's interface, which was checked
        loaded = self._loaded[use.group, use.plugin]
        options = self._options(loaded)
        for before in self._made_before:
            if before[:3] == (use.group, use.plugin, options):
                return before.made
        group: Group[Any] = GROUPS[use.group]
        context = self._context(use, options)
        with _Blame(self._config, use, loaded.names):
            made = self._registry.make(group, loaded.found, loaded.factory, context)
        self._made_before.append(_Made(use.group, use.plugin, options, made))
        return made

    def _options(self, loaded: Loaded) -> object:
        """Make the options of a plug-in from its table."""
        if loaded.options is None:
            return None
        name = loaded.found.name
        values = {**self._given.get(name, {}), **self._config.plugin.get(name, {})}
        try:
            return table(loaded.options)({key: value for key, value in values.items() if key in loaded.names})
        except BadValue as error:
            entry = name if error.entry is None else f"{name}.{error.entry}"
            raise self._config.source.error(str(error), "plugin", entry) from error
        except Exception as error:
            raise self._config.source.error(short(error), "plugin", name) from error

    def _context(self, use: Use, options: object) -> Context[Any]:
        asked = self._config.plugin.get(use.plugin, {}).get(LOG_LEVEL)
        logger = logging.getLogger(f"dunnart.plugin.{use.plugin}")
        logger.setLevel(logging.NOTSET if asked is None else LEVELS[str(asked)])
        return Context(use.plugin, options, logger, str(asked or self._config.log_level))

    def _authenticators(
        self, made: list[tuple[str, Authenticator]], sources: Mapping[str, KeySource]
    ) -> tuple[Authenticator, ...]:
        if sources:
            from dunnart.plugins.key_sources import KeySources

            name, first = next(((name, each) for name, each in made if each.method == "publickey"), ("", None))
            made = [(each, found) for each, found in made if found is not first]
            algorithms = self._config.algorithms().ca_signature
            made.insert(0, (name or "key_sources", KeySources(sources, first, algorithms)))
        if self._config.revoked_keys:
            from dunnart.plugins.revoked_keys import NotRevoked

            lists = _lists_of_revoked_keys(self._config)
            made = [(name, NotRevoked(each, lists) if each.method == "publickey" else each) for name, each in made]
        if self._config.required_rsa_size > RSA_BITS_MIN:
            from dunnart.plugins.key_size import LargeEnough

            size = self._config.required_rsa_size
            made = [(name, LargeEnough(each, size) if each.method == "publickey" else each) for name, each in made]
        permit = self._config.permit_root_login
        return tuple(
            NamedAuthenticator(name, each, empty=self._config.permit_empty_passwords, root=permit == "yes" or (
                permit == "prohibit-password" and (each.method in _PROOFS or name == ONE_TIME_PASSWORD)
            ) or (permit == FORCED and each.method in _PROOFS), forced=permit == FORCED,
                shell=not self._config.plugin.get("sftp", {}).get("root"))
            for name, each in made
        )  # fmt: skip


def _lists_of_revoked_keys(config: ServeConfig) -> list[RevokedKeysFile]:
    from dunnart.plugins.revoked_keys import RevokedKeysFile

    lists = [RevokedKeysFile(path) for path in config.revoked_keys]
    for each in lists:
        try:
            each.load()
        except ConfigError as error:
            raise config.source.error(str(error), "revoked_keys") from error
    return lists


def _by_option(made: Mapping[Use, Any]) -> Callable[[str], list[tuple[Use, Any]]]:
    return lambda option: [(use, found) for use, found in made.items() if use.option == option]


class _Blame:
    """Makes a plug-in's fault one of the configuration, which says where the plug-in, or its option, stands there."""

    def __init__(self, config: ServeConfig, use: Use, options: frozenset[str] = frozenset()) -> None:
        self._source = config.source
        self._use = use
        self._options = options

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ConfigError) and self._use.plugin == AUTHORIZED_KEYS and error.key == "authorities":
            raise self._source.error(str(error).replace("authorities: ", "", 1), "trusted_user_ca_keys") from error
        if isinstance(error, ConfigError) and error.key in self._options:
            message = str(error).removeprefix(f"{error.key}: ")
            raise self._source.error(message, "plugin", f"{self._use.plugin}.{error.key}") from error
        if isinstance(error, Exception):
            message = str(error) if isinstance(error, PluginError) else f"{self._use.plugin}: {short(error)}"
            raise self._source.error(message, self._use.option, self._use.entry) from error


# What names a plug-in whose code fails while the server runs.


class NamedAuthenticator:
    """An authenticator that keeps to permit_root_login and permit_empty_passwords; its failures say whose they are.

    Args:
        name: the plug-in's.
        inner: it.
        root: whether it may let root in.
        forced: whether root is let in only for a command that the key forces.
        empty: whether it may let in by an empty password.
        shell: whether a user's shell has to be there.
    """

    def __init__(
        self,
        name: str,
        inner: Authenticator,
        *,
        root: bool,
        forced: bool = False,
        empty: bool = False,
        shell: bool = True,
    ) -> None:
        self._forced = forced
        self._empty = empty
        self._shell = shell
        self.method = inner.method
        self.on_any_loop = bool(getattr(inner, "on_any_loop", False))
        self.certificates = getattr(inner, "certificates", False) is True
        self._name = name
        self._inner = inner
        self._root = root
        if hasattr(inner, "ended"):
            self.ended = inner.ended

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask it."""
        may = self._root or not await attempt.run(_is_root, attempt.user)
        with _Naming(self._name):
            reply = await self._inner.authenticate(attempt if may else rules.spoiled(attempt))
        if not isinstance(reply, Allow | Deny | Prompt | GssapiStep):
            raise PluginError(f"its answer is {clean(repr(reply))}, and no Allow, Deny or Prompt", self._name)
        if isinstance(reply, Allow | Deny) and not may:
            return Deny("root may not log in this way")
        unforced = self._forced and isinstance(reply, Allow) and (reply.rights is None or reply.rights.command is None)
        if unforced and await attempt.run(_is_root, attempt.user):
            return Deny("root may only log in for a command that the key forces")
        if isinstance(reply, Allow) and not self._empty and _is_empty(attempt.credential):
            return Deny("an empty password lets nobody in")
        if isinstance(reply, Allow) and await attempt.run(_has_expired, attempt.user):
            return Deny("the account has expired")
        if isinstance(reply, Allow) and self._shell and await attempt.run(_has_no_shell, attempt.user):
            return Deny("the user's shell is not there, or cannot be run")
        return reply


def _is_empty(credential: Credential) -> bool:
    return isinstance(credential, PasswordCredential) and not credential.password


def _is_root(user: str) -> bool:
    from dunnart.plugins import os_account

    account = os_account.find(user)
    return user == "root" or (account is not None and account.uid == 0)


def _has_no_shell(user: str) -> bool:
    """Whether a user of the system has been closed out by a shell that is none; in sshd that holds for every method."""
    from dunnart.plugins import os_account

    account = os_account.find(user)
    return account is not None and not (os.path.isfile(account.shell) and os.access(account.shell, os.X_OK))


def _has_expired(user: str) -> bool:
    """Whether the system has closed a user's account, as sshd looks for every method; only root can see it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    from dunnart.plugins import os_account, shadow

    account = os_account.find(user)
    entry = None if account is None else shadow.entry_of(account.name)
    return entry is not None and 0 <= entry.expires <= int(time.time()) // 86400


def _named(name: str, handler: Handler) -> Handler:
    if isinstance(handler, type):  # of event methods: its name is in the log with what it raises
        return handler
    if hasattr(handler, "begin"):
        return _NamedApplication(name, handler)
    if is_async(handler):
        named: AsyncHandler = _named_coroutine(name, handler)
        return named

    def serve(session: Any) -> Any:  # noqa: ANN401 - as the handler's own
        with _Naming(name, OSError, EOFError):  # those are what a client that goes away causes
            return handler(session)

    serve.__qualname__ = name
    return serve


def _named_coroutine(name: str, function: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - as the function given
    async def call(argument: object) -> Any:  # noqa: ANN401 - as the function's own
        with _Naming(name, EOFError):
            return await function(argument)

    call.__qualname__ = name  # as the status shows it
    return call


def _with_named(name: str, made: object, method: str) -> object:
    return SimpleNamespace(**{method: _named_coroutine(name, getattr(made, method))})


class _Naming:
    """Makes exceptions PluginErrors, but for some."""

    def __init__(self, name: str, *but: type[Exception]) -> None:
        self._name = name
        self._but: tuple[type[Exception], ...] = (DunnartError, *but)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, self._but):
            raise PluginError(short(error), self._name) from error


class _NamedApplication:
    def __init__(self, name: str, inner: Application) -> None:
        self.__qualname__ = name
        self._name = name
        self._inner = inner

    def begin(self, session: RawSession) -> bool:
        """Have it begin."""
        with _Naming(self._name):
            return self._inner.begin(session)


class _NamedChannelType:
    def __init__(self, name: str, inner: ChannelType) -> None:
        self._name = name
        self._inner = inner

    async def open(self, opening: ChannelOpening) -> Handler | Tunnel | Refusal:
        """Ask it."""
        with _Naming(self._name):
            found = await self._inner.open(opening)
        return found if isinstance(found, Refusal | Tunnel) else _named(self._name, found)


class _NamedSink:
    def __init__(self, name: str, inner: AuditSink) -> None:
        self._name = name
        self._inner = inner

    def __repr__(self) -> str:
        return self._name

    def record(self, event: AuditEvent) -> None:
        """Have it recorded."""
        self._inner.record(event)


def _named_middleware(config: ServeConfig, use: Use, layer: Middleware) -> Middleware:
    def around(following: AsyncHandler) -> AsyncHandler:
        with _Blame(config, use):
            made = layer(following)
            if not callable(made):
                raise PluginError(f"it made {clean(repr(made))} of the next handler, which is no handler", use.plugin)
            named: AsyncHandler = _named_coroutine(use.plugin, made)
            return named

    return around
