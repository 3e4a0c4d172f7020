"""Codecs: decoding undoes encoding, and arbitrary bytes raise DecodeError and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import DecodeError
from dunnart.protocol import requests
from dunnart.wire import encoding, messages
from dunnart.wire.encoding import Reader
from dunnart.wire.messages import Message, Structure, WireType

NAMES = st.text(
    st.characters(codec="ascii", min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1
)
UINT32 = st.integers(0, 2**32 - 1)
BY_READER: dict[Callable[[Reader], Any], st.SearchStrategy[Any]] = {
    Reader.byte: st.integers(0, 255),
    Reader.boolean: st.booleans(),
    Reader.uint32: UINT32,
    Reader.uint64: st.integers(0, 2**64 - 1),
    Reader.string: st.binary(max_size=300),
    Reader.text: st.text(max_size=100),
    Reader.mpint: st.integers(-(2**2100), 2**2100),
    Reader.name_list: st.lists(NAMES, max_size=6).map(tuple),
    Reader.rest: st.binary(max_size=300),
    messages._cookie: st.binary(min_size=16, max_size=16),
}


def structures(base: type[Structure]) -> list[type[Structure]]:
    found = [base] if base._wire_types or vars(base).get("number") or vars(base).get("name") else []
    for kind in base.__subclasses__():
        found += structures(kind)
    # A dataclass with slots is made anew: its first form is still among the subclasses.
    return [kind for kind in found if getattr(home(kind), kind.__name__, None) is kind]


def home(kind: type) -> object:
    return messages if kind.__module__ == messages.__name__ else requests


ALL = structures(Structure)


def values(kind: type[Structure]) -> st.SearchStrategy[Structure]:
    return st.builds(kind, *[BY_READER[wire_type.read] for wire_type in kind.wire_types().values()])


def test_all_structures_are_here() -> None:
    assert {messages.KexInit, messages.PublicKeySigned, requests.PtyRequest, requests.ShellRequest} <= set(ALL)
    assert len(ALL) > 60
    assert all(isinstance(wire_type, WireType) for kind in ALL for wire_type in kind.wire_types().values())


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_decoding_undoes_encoding(kind: type[Structure], data: st.DataObject) -> None:
    value = data.draw(values(kind))
    encoded = value.encode()
    assert kind.decode(encoded) == value
    assert kind.decode(memoryview(bytearray(encoded))) == value
    if issubclass(kind, Message):
        assert encoded[0] == kind.number
    last = list(kind.wire_types().values())[-1:]
    if not last or last[0].read is not Reader.rest:
        with pytest.raises(DecodeError):
            kind.decode(encoded + b"\0")
    fixed = len(encoded) - (
        len(getattr(value, list(kind.wire_types())[-1])) if last and last[0].read is Reader.rest else 0
    )
    cut = data.draw(st.integers(0, fixed))
    if int(issubclass(kind, Message)) <= cut < fixed:
        with pytest.raises(DecodeError):
            kind.decode(encoded[:cut])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(kind: type[Structure], data: bytes) -> None:
    prefix = bytes([kind.number]) if issubclass(kind, Message) else b""
    try:
        value = kind.decode(prefix + data)
    except DecodeError as error:
        assert kind.__name__ in str(error)  # noqa: PT017
    else:
        # What was accepted has a canonical form, which means the same.
        assert kind.decode(value.encode()) == value


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_secrets_do_not_show(kind: type[Structure]) -> None:
    for name, wire_type in kind.wire_types().items():
        if name in ("password", "responses"):
            assert wire_type.secret


@given(st.integers(-(2**300), 2**300))
def test_mpint_is_the_shortest_form(value: int) -> None:
    """RFC 4251 §5: no unnecessary leading bytes."""
    body = encoding.mpint(value)[4:]
    assert int.from_bytes(body, "big", signed=True) == value
    if body:
        assert not (body[0] == 0 and (len(body) == 1 or body[1] < 0x80))
        assert not (body[0] == 0xFF and len(body) > 1 and body[1] >= 0x80)


@given(st.binary(max_size=300))
def test_readers_end_where_bytes_end(data: bytes) -> None:
    for read in BY_READER:
        reader = Reader(data)
        try:
            read(reader)
        except DecodeError:
            continue
        assert 0 <= reader.remaining <= len(data)


@given(st.dictionaries(st.integers(1, 159), UINT32))
def test_terminal_modes(modes: dict[int, int]) -> None:
    encoded = requests.encode_modes(modes)
    assert requests.decode_modes(encoded) == modes
    assert requests.decode_modes(encoded + b"rubbish") == modes


@given(st.binary(max_size=1100))
def test_arbitrary_terminal_modes(data: bytes) -> None:
    try:
        modes = requests.decode_modes(data)
    except DecodeError:
        return
    assert all(0 < opcode < 160 for opcode in modes)


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_rows_of_strings(strings: list[bytes]) -> None:
    encoded = requests.encode_strings(strings)
    assert requests.decode_strings(encoded) == strings
    if strings:
        with pytest.raises(DecodeError):
            requests.decode_strings(encoded[:-1] if strings[-1] else encoded[:-2])


DECODERS: dict[str, tuple[Callable[[str, bytes], Structure], dict[str, Any]]] = {
    "channel request": (requests.decode_channel_request, requests.CHANNEL_REQUESTS),
    "global request": (requests.decode_global_request, requests.GLOBAL_REQUESTS),
    "open": (requests.decode_open, requests.OPEN_REQUESTS),
}


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.data())
def test_requests_by_name(kind: str, data: st.DataObject) -> None:
    decode, known = DECODERS[kind]
    name = data.draw(st.sampled_from(sorted(known)) | st.text(max_size=10))
    body = data.draw(st.binary(max_size=60))
    try:
        request = decode(name, body)
    except DecodeError:
        assert name in known
        return
    if name in known:
        assert type(request) is known[name]
    else:
        assert (getattr(request, "wire_name", None), getattr(request, "data", None)) == (name, body)


@given(st.integers(0, 2**32 - 1))
def test_sides_are_clamped(size: int) -> None:
    assert 1 <= requests.clamp_side(size) <= 10_000
    assert requests.clamp_side(size) == size or not 1 <= size <= 10_000
