from __future__ import annotations

import pytest

from dunnart.errors import DecodeError
from dunnart.wire.encoding import Reader, boolean, byte, mpint, name_list, string, text, uint32, uint64


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00000000"),
        (0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"),
        (0x80, "000000020080"),
        (-0x1234, "00000002edcc"),
        (-0xDEADBEEF, "00000005ff21524111"),
        (0x7F, "000000017f"),
        (-0x80, "0000000180"),
        (-0x81, "00000002ff7f"),
        (-1, "00000001ff"),
    ],
)
def test_mpint_as_in_rfc_4251(value: int, encoded: str) -> None:
    """RFC 4251 §5 gives the first five."""
    assert mpint(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).mpint() == value


@pytest.mark.parametrize(
    ("names", "encoded"),
    [((), "00000000"), (("zlib",), "000000047a6c6962"), (("zlib", "none"), "000000097a6c69622c6e6f6e65")],
)
def test_name_list_as_in_rfc_4251(names: tuple[str, ...], encoded: str) -> None:
    assert name_list(names).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).name_list() == names


def test_numbers_and_strings() -> None:
    data = byte(255) + boolean(True) + uint32(699921578) + uint64(2**64 - 1) + string(b"testing") + text("ä")
    assert data[2:6].hex() == "29b7f4aa"  # RFC 4251 §5
    reader = Reader(data)
    read = (reader.byte(), reader.boolean(), reader.uint32(), reader.uint64(), reader.string(), reader.text())
    assert read == (255, True, 699921578, 2**64 - 1, b"testing", "ä")
    reader.end()
    assert reader.remaining == 0


@pytest.mark.parametrize("value", [1, 2, 255])
def test_every_boolean_but_zero_is_true(value: int) -> None:
    assert Reader(byte(value)).boolean() is True
    assert Reader(b"\0").boolean() is False


@pytest.mark.parametrize("body", [b",", b"a,", b",a", b"a,,b", b"a b", b"\x7f", b"\x80", b"a\0", b"a\n"])
def test_bad_name_lists(body: bytes) -> None:
    with pytest.raises(DecodeError):
        Reader(string(body)).name_list()


def test_short_reads_and_leftovers() -> None:
    for data, read in (
        (b"", Reader.byte), (b"\0\0\0", Reader.uint32), (bytes(7), Reader.uint64), (b"\0\0\0\2x", Reader.string),
        (b"\xff\xff\xff\xffx", Reader.string), (string(b"\xc3"), Reader.text),
    ):  # fmt: skip
        with pytest.raises(DecodeError):
            read(Reader(data))
    with pytest.raises(DecodeError):
        Reader(b"x").end()


def test_reader_copies_what_it_gives_away() -> None:
    data = bytearray(string(b"here"))
    taken = Reader(memoryview(data)).string()
    data[:] = bytes(len(data))
    assert taken == b"here"
