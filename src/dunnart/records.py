"""Dataclasses that weigh little: `dataclass` here takes the place of `dataclasses.dataclass`.

That one compiles up to ten functions for each class; for a frozen one with slots they are 14 KB and a millisecond, and
a server has some three hundred. Here classes share what compares, hashes, shows, pickles and protects their objects,
and what each has of its own, `__init__` and the fields, is made when it is first wanted: 3 KB and 50 µs. What takes
dataclasses (`dataclasses.fields`, `replace`, `asdict`, a subclass that is a dataclass) takes these.

There are the options that are used here, and annotations are strings (`from __future__ import annotations`).
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import MISSING, Field, FrozenInstanceError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import dataclass

__all__ = ["dataclass"]


class _Own:
    """What a class adds: its fields, their types, what stands for their defaults, and how they are to be made."""

    __slots__ = ("defaults", "frozen", "kinds", "kw_only", "names")

    def __init__(
        self, names: tuple[str, ...], kinds: dict[str, str], defaults: dict[str, Any], *, frozen: bool, kw_only: bool
    ) -> None:
        self.names = names
        self.kinds = kinds
        self.defaults = defaults
        self.frozen = frozen
        self.kw_only = kw_only

    def positional(self, name: str) -> bool:
        """Tell whether `__init__` takes it without its name."""
        default = self.defaults.get(name)
        if not isinstance(default, Field) or (default.init and default.kw_only is MISSING):
            return not self.kw_only
        return default.init and not default.kw_only


def _dataclass(
    cls: type | None = None, /, *, frozen: bool = False, slots: bool = False, kw_only: bool = False, eq: bool = True,
    repr: bool = True,  # noqa: A002 - as there
) -> Any:  # fmt: skip  # noqa: ANN401 - the class, or what makes it
    """Do what `dataclasses.dataclass` does; the options are its."""

    def made(cls: type) -> type:
        return _made(cls, eq=eq, shown=repr, slots=slots, frozen=frozen, kw_only=kw_only)

    return made if cls is None else made(cls)


def _made(cls: type, *, eq: bool, shown: bool, slots: bool, frozen: bool, kw_only: bool) -> type:
    kinds: dict[str, str] = cls.__annotations__
    names = tuple(name for name, kind in kinds.items() if not kind.startswith(("ClassVar", "typing.ClassVar")))
    defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    own = _Own(names, kinds, defaults, frozen=frozen, kw_only=kw_only)
    inherited = getattr(cls, "__match_args__", ())
    new: dict[str, Any] = {
        "__record__": own,
        "__match_args__": inherited + tuple(name for name in names if name not in inherited and own.positional(name)),
        "__dataclass_params__": _PARAMETERS,
        "__dataclass_fields__": _FIELDS,
    }
    new |= {name: each for name, each in _shared(eq=eq, shown=shown, frozen=frozen, slots=slots)
            if cls.__dict__.get(name) is None}  # fmt: skip
    if not slots:
        for name, default in defaults.items():
            if isinstance(default, Field):  # which is no value
                new[name] = default.default
                delattr(cls, name)
        for name, each in new.items():
            if each is not MISSING:
                setattr(cls, name, each)
        return cls
    taken = {name for base in cls.__mro__[1:] for name in base.__dict__.get("__slots__", ())}
    new["__slots__"] = tuple(name for name in names if name not in taken)
    left_out = {*names, "__dict__", "__weakref__"}
    again = type(cls)(
        cls.__name__, cls.__bases__, {name: each for name, each in cls.__dict__.items() if name not in left_out} | new
    )
    again.__qualname__ = cls.__qualname__
    return again


def _shared(*, eq: bool, shown: bool, frozen: bool, slots: bool) -> Iterable[tuple[str, object]]:
    yield "__init__", _INIT
    if shown:
        yield "__repr__", _show
    if eq:
        yield "__compared__", _COMPARED
        yield "__eq__", _equal
        yield "__hash__", _hash if frozen else None
    if frozen:
        yield "__setattr__", _refuse_to_set
        yield "__delattr__", _refuse_to_delete
    if frozen and slots:
        yield "__getstate__", _state
        yield "__setstate__", _set_state


# What they share.


def _equal(self: Any, other: Any) -> object:  # noqa: ANN401 - any record, and anything
    if other.__class__ is not self.__class__:
        return NotImplemented
    names: tuple[str, ...] = self.__compared__
    return [getattr(self, name) for name in names] == [getattr(other, name) for name in names]


def _hash(self: Any) -> int:  # noqa: ANN401
    return hash(tuple([getattr(self, name) for name in self.__compared__]))


def _show(self: Any) -> str:  # noqa: ANN401
    shown = [name for name, default, _ in _all(type(self)) if not isinstance(default, Field) or default.repr]
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _refuse_to_set(_self: object, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:  # noqa: ANN401
    return [getattr(self, name) for name, _, _ in _all(type(self))]


def _set_state(self: Any, state: list[object]) -> None:  # noqa: ANN401
    for (name, _, _), value in zip(_all(type(self)), state, strict=True):
        object.__setattr__(self, name, value)


# What each has of its own.


class _MadeAnew:
    """Stands where a parameter's value is to be made."""

    def __repr__(self) -> str:
        return "<factory>"


class _Later:
    """Stands for an attribute of a class until somebody looks at it."""

    __slots__ = ("_make", "_name")

    def __init__(self, name: str, make: Callable[[type], object]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: object, owner: type) -> Any:  # noqa: ANN401 - what is made says what
        cls = next(each for each in owner.__mro__ if each.__dict__.get(self._name) is self)
        setattr(cls, self._name, self._make(cls))
        return getattr(owner if instance is None else instance, self._name)


def _all(cls: type) -> list[tuple[str, Any, _Own]]:
    """List the fields, those that are inherited first: the name, what stands for the default, and whose it is."""
    found: dict[str, tuple[str, Any, _Own]] = {}
    for base in reversed(cls.__mro__):
        own: _Own | None = base.__dict__.get("__record__")
        if own is not None:
            found |= {name: (name, own.defaults.get(name, MISSING), own) for name in own.names}
    return [*found.values()]


def _init(cls: Any) -> Callable[..., None]:  # noqa: ANN401 - a class of ours
    """Compile what sets the fields, and calls `__post_init__` if there is one."""
    positional = ["self"]
    by_keyword: list[str] = []
    body: list[str] = []
    defaults: dict[str, Any] = {}
    for name, default, own in _all(cls):
        value, given, made = name, True, False
        if isinstance(default, Field):
            given, made = default.init, default.default_factory is not MISSING
            default = default.default_factory if made else default.default  # noqa: PLW2901 - what the field has
        if default is not MISSING:
            defaults[name] = default
        if given:
            parameter = f"{name}={'_factory' if made else f'_defaults[{name!r}]'}" if name in defaults else name
            (positional if own.positional(name) else by_keyword).append(parameter)
            value = f"_defaults[{name!r}]() if {name} is _factory else {name}" if made else name
        elif name in defaults:
            value = f"_defaults[{name!r}]{'()' if made else ''}"
        else:
            continue  # __post_init__ sets it
        body.append(f"_set(self, {name!r}, {value})" if cls.__record__.frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join([*positional, *(["*", *by_keyword] if by_keyword else [])])
    lines = (f"def __init__({parameters}):", *(f" {line}" for line in body or ["pass"]), "return __init__")
    text = "def make(_set, _defaults, _factory):\n" + "".join(f" {line}\n" for line in lines)
    compiled: dict[str, Any] = {}
    exec(text, sys.modules[cls.__module__].__dict__, compiled)  # noqa: S102 - of names in a class's source
    init: Callable[..., None] = compiled["make"](object.__setattr__, defaults, _MadeAnew())
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {name: own.kinds[name] for name, _, own in _all(cls)} | {"return": None}
    return init


def _compared(cls: type) -> tuple[str, ...]:
    return tuple(name for name, default, _ in _all(cls) if not isinstance(default, Field) or default.compare)


# For what takes dataclasses, the standard library makes what it looks at.


def _fields(cls: Any) -> dict[str, Field[Any]]:  # noqa: ANN401 - a class of ours
    """Make the fields: those that are inherited, and what the standard library makes of the others."""
    own: _Own = cls.__record__
    told = {"__annotations__": {name: own.kinds[name] for name in own.names}, "__module__": cls.__module__,
            "__doc__": cls.__name__}  # fmt: skip # or it would put a signature there, which takes long
    plain: Any = dataclasses.dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=own.kw_only)(
        type(cls.__name__, (), told | own.defaults)
    )
    fields: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__[1:]):
        fields |= getattr(base, "__dataclass_fields__", {})
    return fields | {each.name: each for each in dataclasses.fields(plain)}


def _parameters(cls: Any) -> object:  # noqa: ANN401 - a class of ours
    """Make what a dataclass below it asks: whether it is frozen."""
    plain = type(cls.__name__, (), {"__doc__": cls.__name__})
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=cls.__record__.frozen)(plain)
    return made.__dataclass_params__


_INIT = _Later("__init__", _init)
_FIELDS = _Later("__dataclass_fields__", _fields)
_PARAMETERS = _Later("__dataclass_params__", _parameters)
_COMPARED = _Later("__compared__", _compared)

if not TYPE_CHECKING:
    dataclass = _dataclass
