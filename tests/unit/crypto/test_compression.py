"""zlib streams of packets, and what a peer may not do with them."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dunnart
from dunnart.crypto.compression import Compressor, Decompressor
from dunnart.errors import IntegrityError, LimitExceeded

LIMIT = 262_144


@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_packets_round_trip_one_by_one(payloads: list[bytes]) -> None:
    compressor, decompressor = Compressor(), Decompressor()
    for payload in payloads:
        assert decompressor.decompress(compressor.compress(payload), LIMIT) == payload


def test_stream_is_zlibs_and_goes_on_over_packets() -> None:
    compressor, reference = Compressor(), zlib.decompressobj()
    payload = os.urandom(500)
    first, second = compressor.compress(payload), compressor.compress(memoryview(payload))
    assert reference.decompress(first) == payload
    assert reference.decompress(second) == payload
    assert len(second) < 50  # it refers to the first


@pytest.mark.parametrize("flush", [zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_every_flush_a_peer_may_use_is_understood(flush: int) -> None:
    stream, decompressor = zlib.compressobj(), Decompressor()
    for payload in (b"a", b"b" * 5000, os.urandom(70_000)):
        assert decompressor.decompress(stream.compress(payload) + stream.flush(flush), LIMIT) == payload


def test_size_is_bounded_to_the_byte() -> None:
    for size in (LIMIT - 1, LIMIT):
        assert len(Decompressor().decompress(Compressor().compress(bytes(size)), LIMIT)) == size
    for size in (LIMIT + 1, LIMIT + 2, 50_000_000):
        with pytest.raises(LimitExceeded):
            Decompressor().decompress(Compressor().compress(bytes(size)), LIMIT)


def test_bytes_that_are_no_stream_are_refused() -> None:
    with pytest.raises(IntegrityError):
        Decompressor().decompress(b"no zlib header", LIMIT)
    compressor, decompressor = Compressor(), Decompressor()
    decompressor.decompress(compressor.compress(b"good"), LIMIT)
    with pytest.raises(IntegrityError):
        decompressor.decompress(b"\xff" * 40, LIMIT)


def test_a_stream_that_ends_is_refused() -> None:
    with pytest.raises(IntegrityError):
        Decompressor().decompress(zlib.compress(b"all"), LIMIT)
    with pytest.raises(IntegrityError):
        Decompressor().decompress(zlib.compress(b"all") + b"more", LIMIT)


def test_zlib_is_loaded_only_for_a_stream() -> None:
    program = (
        "import sys; import dunnart.crypto.compression as c; assert 'zlib' not in sys.modules; "
        "c.Compressor(); assert 'zlib' in sys.modules; print('lazy')"
    )
    source = str(Path(next(iter(dunnart.__path__))).parent)
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(  # -I would hide the path; -S keeps site's own imports out
        [sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "lazy\n", done.stderr
