"""What travels inside CHANNEL_OPEN, CHANNEL_REQUEST and GLOBAL_REQUEST, typed.

Each class names its wire name. What is not known arrives as `Unknown…` with the bytes it came with.
"""

from __future__ import annotations

from typing import ClassVar

from dunnart.errors import DecodeError
from dunnart.wire.encoding import Reader, byte, string, uint32
from dunnart.wire.messages import Boolean, Rest, String, Structure, Text, UInt32, structure

_LONGEST_SIDE = 10_000


class ChannelRequest(Structure):
    """A request of a channel."""

    __slots__ = ()
    name: ClassVar[str] = ""


class GlobalRequest(Structure):
    """A request of the connection."""

    __slots__ = ()
    name: ClassVar[str] = ""


class OpenRequest(Structure):
    """What a CHANNEL_OPEN carries beside its type."""

    __slots__ = ()
    name: ClassVar[str] = ""


@structure
class PtyRequest(ChannelRequest):
    """RFC 4254 §6.2; sizes in characters and pixels, `modes` encoded as in §8."""

    name = "pty-req"
    term: Text
    columns: UInt32
    rows: UInt32
    width_pixels: UInt32
    height_pixels: UInt32
    modes: String


@structure
class WindowChange(ChannelRequest):
    """RFC 4254 §6.7."""

    name = "window-change"
    columns: UInt32
    rows: UInt32
    width_pixels: UInt32
    height_pixels: UInt32


@structure
class EnvironmentRequest(ChannelRequest):
    """RFC 4254 §6.4."""

    name = "env"
    variable: Text
    value: Text


@structure
class ShellRequest(ChannelRequest):
    """RFC 4254 §6.5."""

    name = "shell"


@structure
class ExecRequest(ChannelRequest):
    """RFC 4254 §6.5; commands are bytes, for not every system's names are UTF-8."""

    name = "exec"
    command: String


@structure
class SubsystemRequest(ChannelRequest):
    """RFC 4254 §6.5."""

    name = "subsystem"
    subsystem: Text


@structure
class SignalRequest(ChannelRequest):
    """RFC 4254 §6.9; the name comes without SIG."""

    name = "signal"
    signal: Text


@structure
class BreakRequest(ChannelRequest):
    """RFC 4335 §3."""

    name = "break"
    milliseconds: UInt32


@structure
class ExitStatus(ChannelRequest):
    """RFC 4254 §6.10."""

    name = "exit-status"
    status: UInt32


@structure
class ExitSignal(ChannelRequest):
    """RFC 4254 §6.10."""

    name = "exit-signal"
    signal: Text
    core_dumped: Boolean
    message: Text
    language: String = b""


@structure
class EndOfWrite(ChannelRequest):
    """eow@openssh.com (OpenSSH PROTOCOL §2.1): the sender takes no more data."""

    name = "eow@openssh.com"


@structure
class Keepalive(ChannelRequest):
    """keepalive@openssh.com: only the answer counts."""

    name = "keepalive@openssh.com"


@structure
class UnknownRequest(ChannelRequest):
    """A request that the engine does not know."""

    wire_name: Text
    data: Rest


@structure
class NoMoreSessions(GlobalRequest):
    """no-more-sessions@openssh.com (OpenSSH PROTOCOL §2.2)."""

    name = "no-more-sessions@openssh.com"


@structure
class HostkeysProve(GlobalRequest):
    """hostkeys-prove-00@openssh.com (OpenSSH PROTOCOL §2.5): `keys` is a row of strings."""

    name = "hostkeys-prove-00@openssh.com"
    keys: Rest


@structure
class GlobalKeepalive(GlobalRequest):
    """keepalive@openssh.com: only the answer counts."""

    name = "keepalive@openssh.com"


@structure
class UnknownGlobalRequest(GlobalRequest):
    """A request that the engine does not know; the owner may."""

    wire_name: Text
    data: Rest


@structure
class SessionOpen(OpenRequest):
    """RFC 4254 §6.1."""

    name = "session"


@structure
class UnknownOpen(OpenRequest):
    """A channel type that the engine does not know; the owner may."""

    wire_name: Text
    data: Rest


CHANNEL_REQUESTS: dict[str, type[ChannelRequest]] = {
    made.name: made
    for made in (PtyRequest, WindowChange, EnvironmentRequest, ShellRequest, ExecRequest, SubsystemRequest,
                 SignalRequest, BreakRequest, ExitStatus, ExitSignal, EndOfWrite, Keepalive)
}  # fmt: skip
GLOBAL_REQUESTS: dict[str, type[GlobalRequest]] = {
    made.name: made for made in (NoMoreSessions, HostkeysProve, GlobalKeepalive)
}
OPEN_REQUESTS: dict[str, type[OpenRequest]] = {SessionOpen.name: SessionOpen}


def decode_channel_request(name: str, data: bytes) -> ChannelRequest:
    """Read a channel request's data by its name."""
    known = CHANNEL_REQUESTS.get(name)
    return UnknownRequest(name, data) if known is None else known.decode(data)


def decode_global_request(name: str, data: bytes) -> GlobalRequest:
    """Read a global request's data by its name."""
    known = GLOBAL_REQUESTS.get(name)
    return UnknownGlobalRequest(name, data) if known is None else known.decode(data)


def decode_open(name: str, data: bytes) -> OpenRequest:
    """Read a channel open's data by the channel's type."""
    known = OPEN_REQUESTS.get(name)
    return UnknownOpen(name, data) if known is None else known.decode(data)


def clamp_side(size: int) -> int:
    """A terminal's side in characters, as an application can use it: 1 to 10,000."""
    return max(1, min(size, _LONGEST_SIDE))


def decode_modes(modes: bytes) -> dict[int, int]:
    """Read encoded terminal modes (RFC 4254 §8): opcode → value, up to TTY_OP_END or an opcode that has no value."""
    found: dict[int, int] = {}
    reader = Reader(modes)
    while reader.remaining:
        opcode = reader.byte()
        if opcode == 0 or opcode >= 160:
            break
        try:
            found[opcode] = reader.uint32()
        except DecodeError as error:
            raise DecodeError("terminal modes end inside a value") from error
    return found


def encode_modes(modes: dict[int, int]) -> bytes:
    """The bytes that `decode_modes` reads."""
    return b"".join(byte(opcode) + uint32(value) for opcode, value in modes.items()) + b"\0"


def decode_strings(data: bytes) -> list[bytes]:
    """Read a row of strings to the end of the data."""
    reader = Reader(data)
    found = []
    while reader.remaining:
        found.append(reader.string())
    return found


def encode_strings(strings: list[bytes]) -> bytes:
    """The bytes that `decode_strings` reads."""
    return b"".join(string(item) for item in strings)
