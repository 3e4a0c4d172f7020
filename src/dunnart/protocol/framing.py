"""Binary packets, RFC 4253 §6: bytes in, payloads out, and back.

Received bytes stand in an `Arena` that all connections of one event loop share: a connection keeps only the packet that
has not fully arrived, so an idle one holds no buffer. Packets are decrypted where they stand and handed on as views,
which are valid until the arena is used again.

Sent packets are built once and sealed in place. Bulk data goes through a *run*: the engine lays out up to `RUN_PACKETS`
packets in the arena, the caller reads from a pipe straight into their data slots, and the whole run is sealed and
leaves with one write.
"""

from __future__ import annotations

import struct
from mmap import ACCESS_COPY, mmap
from typing import TYPE_CHECKING

from dunnart.crypto.ciphers import Opener, PlainOpener, PlainSealer, Sealer
from dunnart.errors import IntegrityError, LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.crypto.compression import Compressor, Decompressor

RUN_PACKETS = 8
READ_BYTES = 256 * 1024
INFLATE_BYTES = 256 * 1024  # THREATS R24
_LARGEST_PACKET = 256 * 1024 + 128
_RUN_OVERHEAD = 512
_SEQUENCE_MASK = 0xFFFFFFFF
_HEADER = struct.Struct(">IB")

Buffer = bytes | bytearray | memoryview


class Arena:
    """Buffers that the connections of one event loop share; one user at a time.

    Args:
        random: draws the padding pool. The content of padding is not secret and is encrypted (RFC 4253 §6), so one
            pool serves every packet.
    """

    __slots__ = ("padding", "received", "run")

    def __init__(self, random: Callable[[int], bytes], *, channel_packet_bytes: int = 32 * 1024) -> None:
        self.received = _buffer(_LARGEST_PACKET + READ_BYTES)
        self.run = _buffer(RUN_PACKETS * (channel_packet_bytes + _RUN_OVERHEAD))
        self.padding = random(256)


def _buffer(size: int) -> memoryview:
    """Make one that takes memory page by page, when it is written to; a bytearray writes to all of it at once."""
    return memoryview(mmap(-1, size, access=ACCESS_COPY))


class Inbound:
    """One direction's decoder: fill `buffer()`, tell `received()`, then take packets until None.

    Args:
        arena: the shared buffers.
        packet_bytes: largest length field accepted (THREATS R7).
    """

    __slots__ = (
        "_doomed", "_drop_bytes", "_end", "_kept", "_length", "_position", "_received", "bytes", "decompressor",
        "opener", "packet_bytes", "packets", "rekey_bytes", "sequence",
    )  # fmt: skip

    def __init__(self, arena: Arena, packet_bytes: int) -> None:
        self._received = arena.received
        self._kept = b""
        self._position = 0
        self._end = 0
        self._length = -1
        self._doomed: IntegrityError | None = None
        self._drop_bytes = 0
        self.opener: Opener = PlainOpener()
        self.decompressor: Decompressor | None = None
        self.packet_bytes = packet_bytes
        self.sequence = 0
        self.packets = 0
        self.bytes = 0
        self.rekey_bytes = 1 << 30

    def buffer(self) -> memoryview:
        """Where the next received bytes go, at most READ_BYTES; what was kept of a packet stands before it."""
        kept = self._kept
        size = len(kept)
        if size:
            self._received[:size] = kept
        self._position = 0
        self._end = size
        return self._received[size : size + READ_BYTES]

    def received(self, count: int) -> None:
        """`count` bytes were put into `buffer()`."""
        self._end += count

    def line(self, limit: int) -> bytes | None:
        """Take one line ended by LF, or None if it is not there yet; LimitExceeded beyond `limit` bytes."""
        data = bytes(self._received[self._position : min(self._end, self._position + limit)])
        end = data.find(b"\n")
        if end < 0:
            if len(data) == limit:
                raise LimitExceeded(f"identification line longer than {limit} bytes")
            return None
        self._position += end + 1
        return data[:end]

    def packet(self) -> memoryview | None:
        """Verify and decrypt the next packet and return its payload, or None when more bytes are needed.

        Raises:
            IntegrityError: the length, padding, MAC or tag is wrong.
            LimitExceeded: the packet, or what it inflates to, is too large.
        """
        if self._doomed is not None:
            self._drop(self._doomed)
            return None
        position = self._position
        opener = self.opener
        length = self._length
        if length < 0:
            end = position + opener.header_bytes
            if end > self._end:
                return None
            length = opener.packet_length(self._received[position:end], self.sequence)
            if length > self.packet_bytes:
                # Under encryption a wrong length is more likely a damaged packet, and says nothing to an attacker.
                self._doom(IntegrityError(f"packet length {length} is over {self.packet_bytes}"))
                return None
            if length < 6 or (length + 4 - opener.aad_bytes) % opener.block_bytes:
                self._doom(IntegrityError(f"packet length {length} is impossible"))
                return None
        end = position + 4 + length + opener.tag_bytes
        if end > self._end:
            self._length = length
            return None
        self._length = -1
        packet = self._received[position:end]
        try:
            opener.open(packet, self.sequence)
        except IntegrityError as error:
            self._doom(error)
            return None
        padding = packet[4]
        if padding < 4 or padding + 1 >= length:
            raise IntegrityError(f"padding of {padding} bytes in a packet of {length}")
        self._position = end
        self.sequence = (self.sequence + 1) & _SEQUENCE_MASK
        self.packets += 1
        payload = packet[5 : 4 + length - padding]
        if self.decompressor is not None:
            payload = memoryview(self.decompressor.decompress(payload, INFLATE_BYTES))
            if not payload:
                raise IntegrityError("a payload that decompresses to nothing")
        return payload

    def _doom(self, error: IntegrityError) -> None:
        """End the connection; where CBC hides the length, only when the bytes of the longest packet are there.

        Else how soon it ends would tell what a block decrypts to that somebody has put there (CPNI-957037).
        """
        if not self.opener.chained:
            raise error
        self._doomed = error
        self._drop_bytes = 4 + self.packet_bytes + self.opener.tag_bytes
        self._drop(error)

    def _drop(self, error: IntegrityError) -> None:
        self._drop_bytes -= self._end - self._position
        self._position = self._end
        if self._drop_bytes <= 0:
            raise error

    def keep(self) -> None:
        """Keep what is left of the received bytes; call it when `packet` returned None."""
        position = self._position
        end = self._end
        self.bytes += position
        self._kept = bytes(self._received[position:end]) if position < end else b""
        self._position = self._end = 0

    def discard(self) -> None:
        """Forget all that was received."""
        self._kept = b""
        self._position = self._end = 0

    def start_keys(self, opener: Opener, rekey_bytes: int, *, reset_sequence: bool) -> None:
        """Use a new opener from the next packet on; strict KEX resets the sequence number."""
        self.opener = opener
        self.rekey_bytes = rekey_bytes
        self.packets = 0
        self.bytes = -self._position  # `keep` adds what this read held, the part under the old keys included
        if reset_sequence:
            self.sequence = 0


class Outbound:
    """One direction's encoder; sealed packets gather in `queue` until they are taken for one write."""

    __slots__ = ("_arena", "bytes", "compressor", "packets", "queue", "rekey_bytes", "sealer", "sequence")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.sealer: Sealer = PlainSealer()
        self.compressor: Compressor | None = None
        self.queue: list[Buffer] = []
        self.sequence = 0
        self.packets = 0
        self.bytes = 0
        self.rekey_bytes = 1 << 30

    def send(self, payload: Buffer) -> None:
        """Seal one payload into a packet of its own."""
        if self.compressor is not None:
            payload = self.compressor.compress(payload)
        sealer = self.sealer
        end = 5 + len(payload)
        padding = self._padding(end)
        packet = bytearray(end + padding + sealer.tag_bytes)
        _HEADER.pack_into(packet, 0, end - 4 + padding, padding)
        packet[5:end] = payload
        packet[end : end + padding] = self._arena.padding[:padding]
        sealer.seal(memoryview(packet), self.sequence)
        self.sequence = (self.sequence + 1) & _SEQUENCE_MASK
        self.packets += 1
        self.bytes += len(packet)
        self.queue.append(packet)

    def data_slots(self, header: bytes, chunk: int, limit: int, run: memoryview | None = None) -> list[memoryview]:
        """Lay out a run of data packets and return the views that take their data.

        Args:
            header: message number, recipient channel and so on, without the data's length.
            chunk: data bytes in each packet but the last.
            limit: data bytes in all.
            run: the buffer to use; the arena's when None.
        """
        run = self._arena.run if run is None else run
        offset = 5 + len(header) + 4
        # The last packet may be shorter than the others, and its padding longer.
        room = len(run) - 2 * self.sealer.block_bytes - self.sealer.tag_bytes
        if limit <= chunk and offset + limit <= room:
            return [run[offset : offset + limit]]
        stride = offset + chunk
        stride += self._padding(stride) + self.sealer.tag_bytes
        slots = []
        position = offset
        while limit > 0:
            size = min(chunk, limit)
            if position + size > room:
                break
            slots.append(run[position : position + size])
            limit -= size
            position += stride
        return slots

    def seal_run(self, header: bytes, chunk: int, count: int, run: memoryview | None = None) -> None:
        """Seal the packets whose slots hold `count` data bytes; arguments as for `data_slots`."""
        arena, sealer = self._arena, self.sealer
        run = arena.run if run is None else run
        data_start = 5 + len(header) + 4
        sequence = self.sequence
        position = packets = 0
        while count > 0:
            size = min(count, chunk)
            count -= size
            end = data_start + size
            padding = self._padding(end)
            total = end + padding + sealer.tag_bytes
            packet = run[position : position + total]
            _HEADER.pack_into(packet, 0, end - 4 + padding, padding)
            packet[5:data_start] = header + size.to_bytes(4, "big")
            packet[end : end + padding] = arena.padding[:padding]
            sealer.seal(packet, sequence)
            sequence = (sequence + 1) & _SEQUENCE_MASK
            packets += 1
            position += total
        self.sequence = sequence
        self.packets += packets
        self.bytes += position
        self.queue.append(run[:position])

    def compress_run(self, header: bytes, chunk: int, count: int, run: memoryview | None = None) -> None:
        """Like `seal_run`, packet by packet, because compression changes their sizes."""
        for slot in self.data_slots(header, chunk, count, run):
            self.send(b"".join((header, len(slot).to_bytes(4, "big"), slot)))

    def start_keys(self, sealer: Sealer, rekey_bytes: int, *, reset_sequence: bool) -> None:
        """Use a new sealer from the next packet on; strict KEX resets the sequence number."""
        self.sealer = sealer
        self.rekey_bytes = rekey_bytes
        self.packets = self.bytes = 0
        if reset_sequence:
            self.sequence = 0

    def _padding(self, end: int) -> int:
        # At least 4 bytes, to a multiple of the block, with or without the length field (RFC 4253 §6, 5647 §5.2).
        sealer = self.sealer
        block = sealer.block_bytes
        padding = block - (end - sealer.aad_bytes) % block
        return padding if padding >= 4 else padding + block
