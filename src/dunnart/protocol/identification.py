"""The version lines: RFC 4253 §4.2, bounded as THREATS R10 says."""

from __future__ import annotations

from dunnart.errors import DecodeError, RemoteProtocolError

SOFTWARE_VERSION = b"SSH-2.0-dunnart_0.1"
LINE_BYTES = 255
PRELUDE_LINES = 50
"""How many lines a server may send before its version line (a client none)."""


class VersionMismatch(RemoteProtocolError):
    """The peer speaks another protocol, or another version of this one."""

    disconnect_code = 8
    disconnect_text = "protocol version not supported"


def parse(line: bytes) -> bytes:
    """Check a version line without its LF, and return it without CR.

    Raises:
        VersionMismatch: it is not SSH 2.
        DecodeError: it holds control bytes.
    """
    line = line.removesuffix(b"\r")
    if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
        raise VersionMismatch(f"not an SSH 2 version line: {line[:40]!r}")
    if any(byte < 0x20 or byte == 0x7F for byte in line):
        raise DecodeError("version line holds control bytes")
    return line
