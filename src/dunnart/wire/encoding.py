"""RFC 4251 §5 data types.

`Reader` walks over received bytes and raises `DecodeError` at the first byte that is missing; nothing is ever padded
or cut. The functions `uint32`, `string`, … make the bytes to send.
"""

from __future__ import annotations

import struct

from dunnart.errors import DecodeError

_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")
_unpack_uint32, _unpack_uint64 = _UINT32.unpack_from, _UINT64.unpack_from


class Reader:
    """A cursor over one message or blob.

    Args:
        data: the bytes to read; they are not copied until a field is taken.
        position: where to begin.
    """

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes | bytearray | memoryview, position: int = 0) -> None:
        self._data = data
        self._position = position

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._position

    def raw(self, size: int) -> bytes:
        """Take exactly `size` bytes."""
        end = self._position + size
        if end > len(self._data):
            raise DecodeError(f"{size} bytes wanted at offset {self._position}, {self.remaining} left")
        taken = bytes(self._data[self._position : end])
        self._position = end
        return taken

    def byte(self) -> int:
        """Take one byte as a number."""
        return self.raw(1)[0]

    def boolean(self) -> bool:
        """Take a boolean; every value but 0 is true (RFC 4251 §5)."""
        return self.raw(1) != b"\0"

    def uint32(self) -> int:
        """Take a 32-bit unsigned number."""
        position = self._position
        try:
            value: int = _unpack_uint32(self._data, position)[0]
        except struct.error:
            raise DecodeError(f"uint32 wanted at offset {position}, {self.remaining} bytes left") from None
        self._position = position + 4
        return value

    def uint64(self) -> int:
        """Take a 64-bit unsigned number."""
        position = self._position
        try:
            value: int = _unpack_uint64(self._data, position)[0]
        except struct.error:
            raise DecodeError(f"uint64 wanted at offset {position}, {self.remaining} bytes left") from None
        self._position = position + 8
        return value

    def string(self) -> bytes:
        """Take a length-prefixed string of arbitrary bytes."""
        end = self.uint32() + self._position
        if end > len(self._data):
            raise DecodeError(f"a string to offset {end} wanted, {self.remaining} bytes left")
        taken = bytes(self._data[self._position : end])
        self._position = end
        return taken

    def view(self) -> memoryview:
        """Take a length-prefixed string without copying it."""
        count = self.uint32()
        if count > self.remaining:
            raise DecodeError(f"{count} bytes wanted at offset {self._position}, {self.remaining} left")
        taken = memoryview(self._data)[self._position : self._position + count]
        self._position += count
        return taken

    def text(self) -> str:
        """Take a string that must be UTF-8."""
        value = self.string()
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"string is not UTF-8: {error.reason}") from error

    def mpint(self) -> int:
        """Take a multiple precision integer in two's complement."""
        return int.from_bytes(self.string(), "big", signed=True)

    def name_list(self) -> tuple[str, ...]:
        """Take a comma-separated list of printable ASCII names; the empty list is `()`."""
        value = self.string()
        if not value:
            return ()
        listed = value.decode("ascii", "replace")
        if not value.isascii() or not listed.isprintable() or " " in listed:
            raise DecodeError("name-list holds bytes outside printable ASCII")
        names = tuple(listed.split(","))
        if "" in names:
            raise DecodeError("name-list holds an empty name")
        return names

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.raw(self.remaining)

    def end(self) -> None:
        """Raise `DecodeError` if bytes are left over."""
        if self._position != len(self._data):
            raise DecodeError(f"{self.remaining} bytes after the last field")


def byte(value: int) -> bytes:
    """Encode one byte."""
    return bytes((value,))


def boolean(value: bool) -> bytes:  # noqa: FBT001 - the wire type is the argument
    """Encode a boolean."""
    return b"\1" if value else b"\0"


def uint32(value: int) -> bytes:
    """Encode a 32-bit unsigned number."""
    return _UINT32.pack(value)


def uint64(value: int) -> bytes:
    """Encode a 64-bit unsigned number."""
    return _UINT64.pack(value)


def string(value: bytes | bytearray | memoryview) -> bytes:
    """Encode a string of arbitrary bytes with its length before it."""
    return _UINT32.pack(len(value)) + value


def text(value: str) -> bytes:
    """Encode a string as UTF-8."""
    return string(value.encode())


def mpint(value: int) -> bytes:
    """Encode a multiple precision integer: shortest two's complement form, zero as the empty string."""
    if value == 0:
        return b"\0\0\0\0"
    bits = value.bit_length() if value > 0 else (value + 1).bit_length()
    return string(value.to_bytes(bits // 8 + 1, "big", signed=True))


def name_list(names: tuple[str, ...]) -> bytes:
    """Encode a list of names separated by commas."""
    return string(",".join(names).encode("ascii"))
