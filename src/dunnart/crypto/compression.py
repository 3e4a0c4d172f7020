"""Payload compression (RFC 4253 §6.2): one zlib stream for each direction, flushed after each packet.

`zlib` begins with the first NEWKEYS, `zlib@openssh.com` after the login. `none` has no object.
zlib is imported only when it was negotiated.
"""

from __future__ import annotations

from dunnart.errors import IntegrityError, LimitExceeded

COMPRESSION = ("none", "zlib@openssh.com", "zlib")
"""Names in KEXINIT."""


class Compressor:
    """The outgoing direction."""

    __slots__ = ("_flush", "_stream")

    def __init__(self) -> None:
        import zlib  # only when negotiated

        self._stream = zlib.compressobj()
        self._flush = zlib.Z_PARTIAL_FLUSH

    def compress(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Compress one payload, complete for the receiver (partial flush)."""
        stream = self._stream
        return stream.compress(payload) + stream.flush(self._flush)


class Decompressor:
    """The incoming direction."""

    __slots__ = ("_error", "_stream")

    def __init__(self) -> None:
        import zlib  # only when negotiated

        self._stream = zlib.decompressobj()
        self._error = zlib.error

    def decompress(self, payload: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
        """Decompress one payload (THREATS R24).

        Args:
            payload: a packet's compressed payload.
            max_bytes: the most it may become.

        Raises:
            IntegrityError: not a continuation of the stream, or the stream has ended.
            LimitExceeded: it would become more than `max_bytes`.
        """
        stream = self._stream
        try:
            # One byte more than allowed tells "full" from "too much".
            data = stream.decompress(payload, max_bytes + 1)
        except self._error as error:
            raise IntegrityError(f"corrupt zlib stream: {error}") from None
        if len(data) > max_bytes:
            raise LimitExceeded(f"payload is larger than {max_bytes} bytes decompressed")
        if stream.eof:
            raise IntegrityError("zlib stream has ended")
        return data
