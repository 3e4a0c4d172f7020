"""CTR and CBC with HMAC, against the standard library's HMAC and one-shot ciphers."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR

from dunnart.crypto.hmac_modes import EtmOpener, EtmSealer, MacOpener, MacSealer, block_cipher
from dunnart.errors import IntegrityError

MAC_KEY = bytes(range(32))
IV = b"\xff" * 15 + b"\xfe"
KEY = bytes(range(16))


def plain_packet(size: int) -> bytes:
    return (size - 4).to_bytes(4, "big") + bytes(index & 0xFF for index in range(size - 4))


@pytest.mark.parametrize("family", ["ctr", "cbc"])
def test_encrypt_then_mac(family: str) -> None:
    """The stream runs on over packets without the length fields; the MAC covers number, length and ciphertext."""
    mode = CTR(IV) if family == "ctr" else CBC(IV)
    plains = [plain_packet(20), plain_packet(68), plain_packet(36)]
    stream = Cipher(AES(KEY), mode).encryptor().update(b"".join(plain[4:] for plain in plains))
    sealer = EtmSealer(block_cipher(family, KEY, IV).encryptor(), 16, "sha256", MAC_KEY)
    opener = EtmOpener(block_cipher(family, KEY, IV).decryptor(), 16, "sha256", MAC_KEY)
    for sequence, plain in enumerate(plains):
        body, stream = stream[: len(plain) - 4], stream[len(plain) - 4 :]
        tag = hmac.digest(MAC_KEY, sequence.to_bytes(4, "big") + plain[:4] + body, "sha256")
        packet = bytearray(plain + bytes(32))
        sealer.seal(memoryview(packet), sequence)
        assert packet == plain[:4] + body + tag
        assert opener.packet_length(memoryview(packet)[:4], sequence) == len(plain) - 4
        opener.open(memoryview(packet), sequence)
        assert packet[:-32] == plain


@pytest.mark.parametrize("family", ["ctr", "cbc"])
def test_encrypt_and_mac(family: str) -> None:
    """The stream runs on over whole packets; the MAC covers number and plaintext."""
    mode = CTR(IV) if family == "ctr" else CBC(IV)
    plains = [plain_packet(16), plain_packet(64), plain_packet(32)]
    stream = Cipher(AES(KEY), mode).encryptor().update(b"".join(plains))
    sealer = MacSealer(block_cipher(family, KEY, IV).encryptor(), 16, "sha256", MAC_KEY)
    opener = MacOpener(block_cipher(family, KEY, IV).decryptor(), 16, "sha256", MAC_KEY)
    for sequence, plain in enumerate(plains):
        body, stream = stream[: len(plain)], stream[len(plain) :]
        tag = hmac.digest(MAC_KEY, sequence.to_bytes(4, "big") + plain, "sha256")
        packet = bytearray(plain + bytes(32))
        sealer.seal(memoryview(packet), sequence)
        assert packet == body + tag
        assert opener.packet_length(memoryview(packet)[:16], sequence) == len(plain) - 4
        assert packet[:16] == plain[:16]
        opener.open(memoryview(packet), sequence)
        assert packet[:-32] == plain


def test_triple_des() -> None:
    key, iv = bytes(range(24)), bytes(range(8))
    expected = Cipher(TripleDES(key), CBC(iv)).encryptor().update(bytes(32))
    assert block_cipher("3des", key, iv).encryptor().update(bytes(32)) == expected


@pytest.mark.parametrize("tampered", range(16, 48))
def test_no_byte_of_an_encrypt_and_mac_packet_is_trusted_before_its_mac(tampered: int) -> None:
    """A CBC packet whose padding or content was changed fails in one way only, wherever the change is."""
    sealer = MacSealer(block_cipher("cbc", KEY, IV).encryptor(), 16, "sha256", MAC_KEY)
    opener = MacOpener(block_cipher("cbc", KEY, IV).decryptor(), 16, "sha256", MAC_KEY)
    packet = bytearray(plain_packet(48) + bytes(32))
    sealer.seal(memoryview(packet), 0)
    packet[tampered] ^= 0xFF
    assert opener.packet_length(memoryview(packet)[:16], 0) == 44
    with pytest.raises(IntegrityError, match=r"^wrong MAC$"):
        opener.open(memoryview(packet), 0)
