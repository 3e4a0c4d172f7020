"""Light dataclasses are dataclasses: what `dataclasses` makes of a class, and what `dunnart.records` does, is alike."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import field
from typing import Any, ClassVar

import pytest

from dunnart.records import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """Has fields of all kinds."""

    kinds: ClassVar[int] = 7
    number: int
    name: str = "none"
    parts: list[int] = field(default_factory=list)
    secret: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Delivery(Order):
    """Has more of them."""

    place: str = ""
    days: int = field(default=3, kw_only=True)
    late: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "late", self.days > 5)


@dataclass(slots=True)
class Count:
    """May change."""

    found: int = 0


@dataclass(frozen=True, kw_only=True)
class Named:
    """Has a __dict__, and names that must be given."""

    name: str
    letters: tuple[str, ...] = field(default=("a",))


@dataclasses.dataclass(frozen=True)
class Plugged(Named):
    """Somebody else's dataclass."""

    more: int = 1


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (Order(1), "Order(number=1, name='none', parts=[])"),
        (Order(number=1, parts=[2], secret=b"s"), "Order(number=1, name='none', parts=[2])"),
        (Delivery(1, "n", days=9), "Delivery(number=1, name='n', parts=[], place='', days=9, late=True)"),
        (Count(3), "Count(found=3)"),
        (Named(name="n"), "Named(name='n', letters=('a',))"),
        (Plugged(name="n", more=2), "Plugged(name='n', letters=('a',), more=2)"),
    ],
)
def test_what_is_given_and_left_out_is_there(made: object, shown: str) -> None:
    assert repr(made) == shown


def test_each_has_its_own_list() -> None:
    assert Order(1).parts is not Order(1).parts


def test_they_are_equal_in_what_is_compared() -> None:
    assert Order(1, secret=b"a") == Order(1, secret=b"b")
    assert Order(1) != Order(2)
    assert Order(1) != Delivery(1)
    assert Count(1) == Count(1) != Count(2)
    assert hash(Named(name="n")) == hash(Named(name="n"))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Count())


def test_what_is_frozen_stays() -> None:
    order: Any = Order(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'number'"):
        order.number = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'number'"):
        del order.number
    with pytest.raises(dataclasses.FrozenInstanceError):
        order.other = 2
    assert not hasattr(order, "__dict__")
    count = Count(1)
    count.found = 2
    assert count == Count(2)


def test_arguments_are_checked() -> None:
    wrong: Any = Delivery
    with pytest.raises(TypeError, match=r"Delivery.__init__\(\) missing 1 required positional argument: 'number'"):
        wrong()
    with pytest.raises(TypeError, match="unexpected keyword argument 'late'"):
        wrong(1, late=True)


def test_they_are_copied_and_pickled() -> None:
    delivery = Delivery(1, "n", [2], b"s", days=9)
    for again in (copy.deepcopy(delivery), pickle.loads(pickle.dumps(delivery))):
        assert again == delivery
        assert again.secret == b"s"


def test_dataclasses_takes_them() -> None:
    delivery = Delivery(1, days=9)
    assert dataclasses.replace(delivery, days=1) == Delivery(1, days=1)
    assert dataclasses.asdict(Delivery(1, parts=[3]))["parts"] == [3]
    assert [each.name for each in dataclasses.fields(Plugged)] == ["name", "letters", "more"]
    assert [each.type for each in dataclasses.fields(Order)] == ["int", "str", "list[int]", "bytes"]
    assert Delivery.__match_args__ == ("number", "name", "parts", "secret", "place")
    match delivery:
        case Delivery(number, days=days):
            assert (number, days) == (1, 9)


def test_a_signature_says_what_it_takes() -> None:
    assert str(inspect.signature(Delivery)) == (
        "(number: 'int', name: 'str' = 'none', parts: 'list[int]' = <factory>, secret: 'bytes' = b'', "
        "place: 'str' = '', *, days: 'int' = 3) -> None"
    )
