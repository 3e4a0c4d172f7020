"""Plug-ins: how they are found, what they are made from, and what they are handed.

A plug-in is named by the name that its package advertises in one of the entry-point groups below, or by "module:attr".
Either leads to a *factory*: a function or class that takes a `Context` and gives an object with the group's interface,
which `dunnart.server.interfaces` describes:

    @plugin(Options)
    class Greeter:
        def __init__(self, context: Context[Options]) -> None: ...
        async def __call__(self, session: Session) -> int: ...

A factory runs once, when the server starts, before it listens and without an event loop.

What the package itself brings is found in a table and not by `importlib.metadata`, which costs memory and a look at
every installed package. The names of the table are advertised in pyproject.toml as well, for whoever looks there.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dunnart.errors import ConfigError, PluginError
from dunnart.records import dataclass
from dunnart.runtime.logs import clean
from dunnart.server.applications import Handler, Middleware, as_application
from dunnart.server.config import METHODS
from dunnart.server.interfaces import (
    AccountCheck,
    AuditSink,
    Authenticator,
    ChannelType,
    ForwardingPolicy,
    GlobalRequestHandler,
    KeySource,
    SessionRequestHandler,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

C = TypeVar("C")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[["Context[Any]"], object])
Factory = Callable[["Context[Any]"], object]
_OPTIONS = "__dunnart_options__"
_OWN = "dunnart"


@dataclass(frozen=True, slots=True)
class Context(Generic[C]):
    """What a factory gets. The facts of a connection or session come later, with each call.

    Attributes:
        name: the plug-in's, as the configuration has it.
        options: the plug-in's own configuration; None if it declares none.
        logger: its own, `dunnart.plugin.NAME`, with the level that was asked for.
        log_level: that level: "error", "warning", "info" or "debug".
    """

    name: str
    options: C
    logger: logging.Logger
    log_level: str = "info"


def plugin(options: type[Any]) -> Callable[[F], F]:
    """Declare the options that a factory takes: `@plugin(Options)` before a function or class.

    Args:
        options: a dataclass. Its fields are of the types str, int, float, bool, tuple[str, ...] or Mapping[str, str];
            those without a default must be given. A ValueError that its __post_init__ raises is shown to whoever
            wrote the configuration; it should begin with the field's name.
    """
    if not hasattr(options, "__dataclass_fields__"):
        raise TypeError(f"{options!r} is no dataclass")

    def declare(factory: F) -> F:
        setattr(factory, _OPTIONS, options)
        return factory

    return declare


def options_of(factory: Factory) -> type[Any] | None:
    """Give the dataclass of a factory's options; None: it takes none."""
    found: type[Any] | None = getattr(factory, _OPTIONS, None)
    return found


# Groups.


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """A kind of plug-ins.

    Attributes:
        name: the entry-point group's.
        kind: what one is, with its article.
        check: gives the object that a factory made if it is one. Raises TypeError or ConfigError if not.
    """

    name: str
    kind: str
    check: Callable[[object], T]


def _with_method(name: str) -> Callable[[object], Any]:
    def check(made: object) -> object:
        if isinstance(made, type) or not callable(getattr(made, name, None)):
            raise TypeError(f"it has no method {name}")
        return made

    return check


def _authenticator(made: object) -> Authenticator:
    found: Authenticator = _with_method("authenticate")(made)
    method = getattr(made, "method", None)
    if method not in METHODS:
        raise TypeError(f"its method is {method!r}, which is none of {', '.join(METHODS)}")
    return found


def _handler(made: object) -> Handler:
    as_application(made, "")
    return made  # type: ignore[return-value] # that was checked


def _middleware(made: object) -> Middleware:
    if not callable(made) or isinstance(made, type):
        raise TypeError("it is no function of the next handler")
    return made


AUTHENTICATORS: Group[Authenticator] = Group("dunnart.authenticators", "an authenticator", _authenticator)
KEY_SOURCES: Group[KeySource] = Group("dunnart.key_sources", "a key source", _with_method("keys"))
SHELLS: Group[Handler] = Group("dunnart.shells", "a shell", _handler)
EXECS: Group[Handler] = Group("dunnart.execs", "an exec processor", _handler)
SUBSYSTEMS: Group[Handler] = Group("dunnart.subsystems", "a subsystem", _handler)
CHANNEL_TYPES: Group[ChannelType] = Group("dunnart.channel_types", "a channel type", _with_method("open"))
GLOBAL_REQUESTS: Group[GlobalRequestHandler] = Group(
    "dunnart.global_requests", "a handler of global requests", _with_method("answer")
)
SESSION_REQUESTS: Group[SessionRequestHandler] = Group(
    "dunnart.session_requests", "a handler of session requests", _with_method("prepare")
)
FORWARDING_POLICIES: Group[ForwardingPolicy] = Group(
    "dunnart.forwarding_policies", "a forwarding policy", _with_method("allows")
)
MIDDLEWARE: Group[Middleware] = Group("dunnart.middleware", "middleware", _middleware)
ACCOUNTS: Group[AccountCheck] = Group("dunnart.accounts", "an account check", _with_method("admit"))
AUDIT_SINKS: Group[AuditSink] = Group("dunnart.audit_sinks", "an audit sink", _with_method("record"))

GROUPS: dict[str, Group[Any]] = {
    group.name: group
    for group in (
        AUTHENTICATORS, ACCOUNTS, KEY_SOURCES, SHELLS, EXECS, SUBSYSTEMS, CHANNEL_TYPES, GLOBAL_REQUESTS,
        SESSION_REQUESTS, FORWARDING_POLICIES, MIDDLEWARE, AUDIT_SINKS,
    )
}  # fmt: skip
"""All groups, by the name that packages advertise plug-ins under."""


# Finding and loading.


@dataclass(frozen=True, slots=True)
class Found:
    """A plug-in that can be named, loaded or not.

    Attributes:
        group: the entry-point group.
        name: by which it is known there.
        target: where its factory is, "module:attr".
        distribution: the package that brings it, "" if it was named by its target.
        version: that package's.
    """

    group: str
    name: str
    target: str
    distribution: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.target} of {package}" if package else self.target


class Registry:
    """Finds plug-ins by name.

    Args:
        built_in: the targets of those that come with dunnart itself: group → name → "module:attr".
    """

    def __init__(self, built_in: Mapping[str, Mapping[str, str]]) -> None:
        self._built_in = built_in

    def find(self, group: Group[Any], name: str) -> Found:
        """Find a plug-in by its name or as "module:attr".

        Raises:
            PluginError: there is none of that name, or two packages advertise it.
        """
        if ":" in name:
            return Found(group.name, name, name)
        target = self._built_in.get(group.name, {}).get(name)
        if target is not None:
            return Found(group.name, name, target, _OWN, _own_version())
        found = [each for each in self._advertised(group) if each.name == name]
        if not found:
            raise PluginError(self._unknown(group, name), name)
        if len(found) > 1:
            raise PluginError(ambiguous(found), name)
        return found[0]

    def all(self) -> list[Found]:
        """Give everything that is installed, group by group; twice if two packages advertise the same name."""
        found: list[Found] = []
        for name, group in GROUPS.items():
            own = self._built_in.get(name, {})
            found += [Found(name, each, target, _OWN, _own_version()) for each, target in own.items()]
            found += sorted(self._advertised(group), key=lambda each: (each.name, each.distribution))
        return found

    def load(self, found: Found) -> Factory:
        """Import a plug-in's module and give its factory.

        Raises:
            PluginError: it cannot be imported, or is no factory.
        """
        from importlib import import_module

        module, _, attribute = found.target.partition(":")
        try:
            factory: Any = import_module(module)
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except (Exception, SystemExit) as error:
            raise _broken(found, "cannot be imported", error) from error
        if not callable(factory):
            raise PluginError(f"{found.origin} is no factory: it cannot be called", found.name)
        if inspect.iscoroutinefunction(factory):
            raise PluginError(
                f"{found.origin} is a coroutine function; a factory is wanted, which takes the context and gives "
                f"{GROUPS[found.group].kind}", found.name
            )  # fmt: skip
        return factory  # type: ignore[no-any-return] # it was checked as far as that can be

    def make(self, group: Group[T], found: Found, factory: Factory, context: Context[Any]) -> T:
        """Call a factory, and check what it gives.

        Raises:
            PluginError: it raised something, or gave something else than the group's objects.
            ConfigError: it cannot use its options; `key`, if set, names one.
        """
        try:
            made = factory(context)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise _broken(found, "cannot be made", error) from error
        try:
            return group.check(made)
        except Exception as error:
            if inspect.iscoroutine(made):
                made.close()
            raise PluginError(
                f"the factory {found.origin} gave {clean(repr(made))}, which is not {group.kind}: {clean(str(error))}",
                found.name,
            ) from error

    def _advertised(self, group: Group[Any]) -> Iterable[Found]:
        from importlib.metadata import entry_points

        for entry in entry_points(group=group.name):
            found = _of_entry(group, entry)
            if found.distribution != _OWN:  # its own are in the table
                yield found

    def _unknown(self, group: Group[Any], name: str) -> str:
        from difflib import get_close_matches

        known = {*self._built_in.get(group.name, {}), *(each.name for each in self._advertised(group))}
        near = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "dunnart plugins lists what is installed"
        return f"no installed package has {group.kind} of this name; {hint}"


def ambiguous(found: Iterable[Found]) -> str:
    """Say that a name is advertised by several packages."""
    origins = " and ".join(sorted(each.origin for each in found))
    return f"the name is advertised by {origins}; write module:attr to choose one"


def short(error: BaseException) -> str:
    """Describe an exception of a plug-in's on one line."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return f"{type(error).__name__}: {clean(text)}" if text else type(error).__name__


def _broken(found: Found, what: str, error: BaseException) -> PluginError:
    logging.getLogger("dunnart.server").debug("plug-in %s: %s %s", found.name, found.origin, what, exc_info=error)
    return PluginError(f"{found.origin} {what}: {short(error)}", found.name)


def _of_entry(group: Group[Any], entry: EntryPoint) -> Found:
    distribution = entry.dist
    target = entry.value.partition("[")[0].strip().replace(" ", "")
    if distribution is None:
        return Found(group.name, entry.name, target)
    # A damaged package may lack either.
    return Found(group.name, entry.name, target, distribution.name or "unknown", distribution.version or "")


def _own_version() -> str:
    import dunnart

    return dunnart.__version__
