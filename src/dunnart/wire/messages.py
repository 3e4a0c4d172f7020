"""The message table: every SSH message as a dataclass whose annotations are the one truth about its form.

`decode`, `encode` and `repr` (secrets redacted) come from the annotations. Names are the RFCs' without SSH_MSG_.
Message numbers 30-49 and 60-79 mean different things in different key exchange and authentication methods, so a message
is always decoded by its class, chosen by the state that expects it.

CHANNEL_DATA, CHANNEL_EXTENDED_DATA and CHANNEL_WINDOW_ADJUST are here for completeness and tests; the engine's hot path
packs them by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

from dunnart.errors import DecodeError
from dunnart.records import dataclass
from dunnart.wire import encoding
from dunnart.wire.encoding import Reader


class WireType:
    """How one type of field is read and written."""

    __slots__ = ("read", "secret", "write")

    def __init__(self, read: Callable[[Reader], Any], write: Callable[[Any], bytes], *, secret: bool = False) -> None:
        self.read = read
        self.write = write
        self.secret = secret


def _cookie(reader: Reader) -> bytes:
    return reader.raw(16)


Byte = Annotated[int, WireType(Reader.byte, encoding.byte)]
Boolean = Annotated[bool, WireType(Reader.boolean, encoding.boolean)]
UInt32 = Annotated[int, WireType(Reader.uint32, encoding.uint32)]
UInt64 = Annotated[int, WireType(Reader.uint64, encoding.uint64)]
String = Annotated[bytes, WireType(Reader.string, encoding.string)]
Text = Annotated[str, WireType(Reader.text, encoding.text)]
SecretText = Annotated[str, WireType(Reader.text, encoding.text, secret=True)]
MPInt = Annotated[int, WireType(Reader.mpint, encoding.mpint)]
NameList = Annotated[tuple[str, ...], WireType(Reader.name_list, encoding.name_list)]
Cookie = Annotated[bytes, WireType(_cookie, bytes)]
Rest = Annotated[bytes, WireType(Reader.rest, bytes)]
SecretRest = Annotated[bytes, WireType(Reader.rest, bytes, secret=True)]


class Structure:
    """A sequence of fields on the wire, without a message number before it."""

    __slots__ = ()
    _wire_types: ClassVar[tuple[tuple[str, WireType], ...]] = ()
    _prefix: ClassVar[bytes] = b""

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read all fields from `data`; DecodeError when bytes are missing, left over or malformed."""
        reader = Reader(data, len(cls._prefix))
        try:
            made = cls(*[wire_type.read(reader) for _, wire_type in cls._wire_types])
            reader.end()
        except DecodeError as error:
            raise DecodeError(f"{cls.__name__}: {error}") from error
        return made

    def encode(self) -> bytes:
        """The bytes that `decode` reads."""
        return self._prefix + b"".join([wire_type.write(getattr(self, name)) for name, wire_type in self._wire_types])

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name, _ in self._wire_types)

    __hash__ = None  # type: ignore[assignment] # its fields may change

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'…' if wire_type.secret else repr(getattr(self, name))}" for name, wire_type in self._wire_types
        )
        return f"{type(self).__name__}({shown})"

    @classmethod
    def wire_types(cls) -> dict[str, WireType]:
        """The fields' names and types, in order."""
        return dict(cls._wire_types)


class Message(Structure):
    """A structure that begins with its message number."""

    __slots__ = ()
    number: ClassVar[int] = 0


_S = TypeVar("_S", bound=Structure)
_M = TypeVar("_M", bound=Message)


@dataclass_transform()
def structure(cls: type[_S]) -> type[_S]:
    """Make a dataclass with a codec from an annotated class."""
    # There are a hundred of them: annotations, which are names here, are looked up by name, as nothing else is cheap.
    made = dataclass(slots=True, repr=False, eq=False)(cls)
    names, kinds = vars(sys.modules[cls.__module__]), made.__annotations__
    own: tuple[str, ...] = made.__slots__
    made._wire_types += tuple((name, names[kinds[name]].__metadata__[0]) for name in own)  # noqa: SLF001
    return made


@dataclass_transform()
def message(number: int) -> Callable[[type[_M]], type[_M]]:
    """Like `structure`, with the message number before the fields."""

    def make(cls: type[_M]) -> type[_M]:
        made = structure(cls)
        made.number = number
        made._prefix = bytes((number,))  # noqa: SLF001
        return made

    return make


# Transport layer, RFC 4253 §12.


@message(1)
class Disconnect(Message):
    """RFC 4253 §11.1."""

    reason_code: UInt32
    description: String
    language: String = b""


@message(2)
class Ignore(Message):
    """RFC 4253 §11.2."""

    data: Rest


@message(3)
class Unimplemented(Message):
    """RFC 4253 §11.4; `sequence` is that of the packet that was not understood."""

    sequence: UInt32


@message(4)
class Debug(Message):
    """RFC 4253 §11.3. Peers are not held to its form."""

    data: Rest


@message(5)
class ServiceRequest(Message):
    """RFC 4253 §10."""

    service: Text


@message(6)
class ServiceAccept(Message):
    """RFC 4253 §10."""

    service: Text


@message(7)
class ExtInfo(Message):
    """RFC 8308 §2.3; `extensions` holds `count` pairs of strings."""

    count: UInt32
    extensions: Rest


@message(20)
class KexInit(Message):
    """RFC 4253 §7.1."""

    cookie: Cookie
    kex: NameList
    host_key: NameList
    ciphers_to_server: NameList
    ciphers_to_client: NameList
    macs_to_server: NameList
    macs_to_client: NameList
    compression_to_server: NameList
    compression_to_client: NameList
    languages_to_server: NameList = ()
    languages_to_client: NameList = ()
    first_kex_packet_follows: Boolean = False
    reserved: UInt32 = 0


@message(21)
class NewKeys(Message):
    """RFC 4253 §7.3."""


@message(30)
class KexExchangeInit(Message):
    """KEXDH_INIT, KEX_ECDH_INIT (RFC 4253 §8, 5656 §4): the share is an mpint or a string, framed alike."""

    share: String


@message(31)
class KexExchangeReply(Message):
    """KEXDH_REPLY, KEX_ECDH_REPLY (RFC 4253 §8, 5656 §4)."""

    host_key: String
    share: String
    signature: String


@message(30)
class KexGssInit(Message):
    """RFC 4462 §2.1, 8732 §5: a mechanism's token, and the share as in KexExchangeInit."""

    token: String
    share: String


@message(32)
class KexGssComplete(Message):
    """RFC 4462 §2.1: `token` is a boolean, and a string where that is true."""

    share: String
    mic: String
    token: Rest


@message(31)
class KexGssContinue(Message):
    """RFC 4462 §2.1, both ways."""

    token: String


@message(34)
class KexGexRequest(Message):
    """RFC 4419 §3."""

    minimum: UInt32
    preferred: UInt32
    maximum: UInt32


@message(31)
class KexGexGroup(Message):
    """RFC 4419 §3."""

    p: MPInt
    g: MPInt


@message(32)
class KexGexInit(Message):
    """RFC 4419 §3."""

    share: String


@message(33)
class KexGexReply(Message):
    """RFC 4419 §3."""

    host_key: String
    share: String
    signature: String


# Authentication, RFC 4252 §6 and 4256.


@message(50)
class UserauthRequest(Message):
    """RFC 4252 §5; `method_data` has the form that `method` gives it."""

    user: Text
    service: Text
    method: Text
    method_data: Rest


@structure
class PublicKeyQuery(Structure):
    """RFC 4252 §7: asks whether this key would do; `has_signature` is False."""

    has_signature: Boolean
    algorithm: Text
    key: String


@structure
class PublicKeySigned(Structure):
    """RFC 4252 §7: the key with a signature."""

    has_signature: Boolean
    algorithm: Text
    key: String
    signature: String


@structure
class HostboundSigned(Structure):
    """publickey-hostbound-v00@openssh.com (OpenSSH PROTOCOL §3.1): the server's host key is part of what is signed."""

    has_signature: Boolean
    algorithm: Text
    key: String
    host_key: String
    signature: String


@structure
class HostboundQuery(Structure):
    """The query of publickey-hostbound-v00@openssh.com."""

    has_signature: Boolean
    algorithm: Text
    key: String
    host_key: String


@structure
class PasswordData(Structure):
    """RFC 4252 §8."""

    change: Boolean
    password: SecretText


@structure
class InteractiveData(Structure):
    """RFC 4256 §3.1."""

    language: String
    submethods: Text


@message(51)
class UserauthFailure(Message):
    """RFC 4252 §5.1."""

    methods: NameList
    partial_success: Boolean


@message(52)
class UserauthSuccess(Message):
    """RFC 4252 §5.1."""


@message(53)
class UserauthBanner(Message):
    """RFC 4252 §5.4."""

    text: Text
    language: String = b""


@message(60)
class UserauthPkOk(Message):
    """RFC 4252 §7."""

    algorithm: Text
    key: String


@message(60)
class UserauthInfoRequest(Message):
    """RFC 4256 §3.2; `prompts` holds `count` pairs of text and echo."""

    name: Text
    instruction: Text
    language: String
    count: UInt32
    prompts: Rest


@message(61)
class UserauthInfoResponse(Message):
    """RFC 4256 §3.4; `responses` holds `count` strings."""

    count: UInt32
    responses: SecretRest


@structure
class GssapiData(Structure):
    """RFC 4462 §3.2: how many mechanisms follow, each as a string with the DER form of its OID."""

    count: UInt32
    mechanisms: Rest


@structure
class GssapiKeyexData(Structure):
    """RFC 4462 §4: a MIC by the context that keys were exchanged with."""

    mic: String


@message(60)
class UserauthGssapiResponse(Message):
    """RFC 4462 §3.3."""

    mechanism: String


@message(61)
class UserauthGssapiToken(Message):
    """RFC 4462 §3.4, both ways."""

    token: String


@message(63)
class UserauthGssapiExchangeComplete(Message):
    """RFC 4462 §3.5: in the place of a MIC, where the mechanism has none."""


@message(65)
class UserauthGssapiErrtok(Message):
    """RFC 4462 §3.9: what a mechanism that failed says."""

    token: String


@message(66)
class UserauthGssapiMic(Message):
    """RFC 4462 §3.5."""

    mic: String


# Connection, RFC 4254 §9.


@message(80)
class GlobalRequest(Message):
    """RFC 4254 §4."""

    name: Text
    want_reply: Boolean
    data: Rest = b""


@message(81)
class RequestSuccess(Message):
    """RFC 4254 §4."""

    data: Rest = b""


@message(82)
class RequestFailure(Message):
    """RFC 4254 §4."""


@message(90)
class ChannelOpen(Message):
    """RFC 4254 §5.1."""

    channel_type: Text
    sender: UInt32
    window: UInt32
    packet: UInt32
    data: Rest = b""


@message(91)
class ChannelOpenConfirmation(Message):
    """RFC 4254 §5.1."""

    recipient: UInt32
    sender: UInt32
    window: UInt32
    packet: UInt32
    data: Rest = b""


@message(92)
class ChannelOpenFailure(Message):
    """RFC 4254 §5.1."""

    recipient: UInt32
    reason_code: UInt32
    description: String
    language: String = b""


@message(93)
class ChannelWindowAdjust(Message):
    """RFC 4254 §5.2."""

    recipient: UInt32
    count: UInt32


@message(94)
class ChannelData(Message):
    """RFC 4254 §5.2."""

    recipient: UInt32
    data: String


@message(95)
class ChannelExtendedData(Message):
    """RFC 4254 §5.2."""

    recipient: UInt32
    data_type: UInt32
    data: String


@message(96)
class ChannelEof(Message):
    """RFC 4254 §5.3."""

    recipient: UInt32


@message(97)
class ChannelClose(Message):
    """RFC 4254 §5.3."""

    recipient: UInt32


@message(98)
class ChannelRequest(Message):
    """RFC 4254 §5.4."""

    recipient: UInt32
    name: Text
    want_reply: Boolean
    data: Rest = b""


@message(99)
class ChannelSuccess(Message):
    """RFC 4254 §5.4."""

    recipient: UInt32


@message(100)
class ChannelFailure(Message):
    """RFC 4254 §5.4."""

    recipient: UInt32


@message(192)
class Ping(Message):
    """ping@openssh.com (OpenSSH PROTOCOL §1.8)."""

    data: String


@message(193)
class Pong(Message):
    """The answer to `Ping`."""

    data: String
