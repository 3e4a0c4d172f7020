from __future__ import annotations

import pytest

from dunnart.errors import DecodeError
from dunnart.protocol.identification import VersionMismatch, parse


@pytest.mark.parametrize(
    "line", [b"SSH-2.0-OpenSSH_10.5", b"SSH-1.99-x", b"SSH-2.0-x with a comment", b"SSH-2.0-\xc3\xa4"]
)
def test_good_lines(line: bytes) -> None:
    assert parse(line) == parse(line + b"\r") == line


@pytest.mark.parametrize("line", [b"", b"SSH-1.5-x", b"ssh-2.0-x", b" SSH-2.0-x", b"SSH-2.1-x", b"\x16\x03\x01"])
def test_other_protocols(line: bytes) -> None:
    with pytest.raises(VersionMismatch):
        parse(line)


@pytest.mark.parametrize("byte", [0, 7, 10, 13, 27, 127])
def test_control_bytes(byte: int) -> None:
    with pytest.raises(DecodeError):
        parse(b"SSH-2.0-x" + bytes([byte]) + b"y")
