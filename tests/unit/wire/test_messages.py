from __future__ import annotations

import pytest

from dunnart.errors import DecodeError
from dunnart.protocol.channel import Channel
from dunnart.wire import messages
from dunnart.wire.encoding import string, uint32
from dunnart.wire.messages import (
    ChannelData,
    ChannelExtendedData,
    Disconnect,
    KexInit,
    PasswordData,
    UserauthFailure,
    UserauthInfoResponse,
)

# RFC 4253 §12, 4252 §6, 4256 §5, 4462 §5, 4254 §9, 4419 §5, 5656 §7.1, 8308 §2.3, OpenSSH PROTOCOL §1.8.
NUMBERS = {
    "Disconnect": 1, "Ignore": 2, "Unimplemented": 3, "Debug": 4, "ServiceRequest": 5, "ServiceAccept": 6, "ExtInfo": 7,
    "KexInit": 20, "NewKeys": 21, "KexExchangeInit": 30, "KexExchangeReply": 31, "KexGexGroup": 31, "KexGexInit": 32,
    "KexGssInit": 30, "KexGssContinue": 31, "KexGssComplete": 32, "KexGexReply": 33, "KexGexRequest": 34,
    "UserauthRequest": 50, "UserauthFailure": 51, "UserauthSuccess": 52,
    "UserauthBanner": 53, "UserauthPkOk": 60, "UserauthInfoRequest": 60, "UserauthInfoResponse": 61,
    "UserauthGssapiResponse": 60, "UserauthGssapiToken": 61, "UserauthGssapiExchangeComplete": 63,
    "UserauthGssapiErrtok": 65, "UserauthGssapiMic": 66,
    "GlobalRequest": 80, "RequestSuccess": 81, "RequestFailure": 82,
    "ChannelOpen": 90, "ChannelOpenConfirmation": 91, "ChannelOpenFailure": 92,
    "ChannelWindowAdjust": 93, "ChannelData": 94, "ChannelExtendedData": 95, "ChannelEof": 96, "ChannelClose": 97,
    "ChannelRequest": 98, "ChannelSuccess": 99, "ChannelFailure": 100, "Ping": 192, "Pong": 193,
}  # fmt: skip


def test_numbers() -> None:
    found = {
        name: kind.number
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, messages.Message) and kind.number
    }
    assert found == NUMBERS


def test_encoding_of_one_message() -> None:
    encoded = Disconnect(11, b"bye").encode()
    assert encoded.hex() == "010000000b0000000362796500000000"
    assert Disconnect.decode(encoded) == Disconnect(11, b"bye", b"")


def test_errors_name_the_message() -> None:
    with pytest.raises(DecodeError, match="Disconnect: uint32 wanted"):
        Disconnect.decode(b"\1\0")
    with pytest.raises(DecodeError, match="UserauthFailure: 1 bytes after the last field"):
        UserauthFailure.decode(UserauthFailure(("password",), partial_success=True).encode() + b"\0")


def test_repr_hides_secrets() -> None:
    assert repr(PasswordData(change=False, password="hidden")) == "PasswordData(change=False, password=…)"
    assert "hidden" not in repr(UserauthInfoResponse(1, string(b"hidden")))
    assert repr(Disconnect(2, b"x")) == "Disconnect(reason_code=2, description=b'x', language=b'')"


def test_defaults() -> None:
    kexinit = KexInit(bytes(16), (), (), (), (), (), (), (), ())
    assert (kexinit.languages_to_client, kexinit.first_kex_packet_follows, kexinit.reserved) == ((), False, 0)


def test_data_packed_by_hand_is_the_same() -> None:
    channel = Channel(0, "session", 100)
    channel.connect(0x01020304, 10, 10)
    data = b"some data"
    assert channel.header(0) + uint32(len(data)) + data == ChannelData(0x01020304, data).encode()
    assert channel.header(1) + uint32(len(data)) + data == ChannelExtendedData(0x01020304, 1, data).encode()
