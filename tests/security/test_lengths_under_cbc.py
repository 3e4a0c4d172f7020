"""What a block decrypts to is not told by how soon a connection ends (CPNI-957037, CVE-2008-5161).

Under CBC with encrypt-and-MAC the length is known before the MAC can be looked at. Somebody on the way who puts another
packet's block there would learn its first bytes from when the server hangs up.
"""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from dunnart.crypto.ciphers import CIPHERS, MACS
from dunnart.errors import IntegrityError
from dunnart.protocol.framing import Arena, Inbound

PACKET_BYTES = 16 * 1024
LENGTHS = [0, 5, 60, 1020, 5100, PACKET_BYTES + 12, 0x6ABCDEF0]


def bytes_until_the_end(cipher: str, length: int) -> int:
    """How much is read of what begins with a block that decrypts to that length, and is noise."""
    spec, mac = CIPHERS[cipher], MACS["hmac-sha2-256"]
    key, iv = bytes(spec.key_bytes), os.urandom(spec.iv_bytes)
    inbound = Inbound(Arena(os.urandom), PACKET_BYTES)
    inbound.opener = spec.opener(key, iv, mac, bytes(mac.key_bytes))
    assert spec.family == "cbc"
    data = Cipher(AES(key), CBC(iv)).encryptor().update(length.to_bytes(4, "big") + b"of a secret.")
    read = 0
    while True:
        inbound.buffer()[: len(data)] = data
        inbound.received(len(data))
        read += len(data)
        try:
            assert inbound.packet() is None
        except IntegrityError:
            return read
        inbound.keep()
        data = os.urandom(256)


@pytest.mark.parametrize("cipher", ["aes128-cbc", "aes256-cbc"])
def test_every_length_is_found_wrong_after_as_many_bytes(cipher: str) -> None:
    found = {length: bytes_until_the_end(cipher, length) for length in LENGTHS}
    most = 4 + PACKET_BYTES + 32
    # A length that is possible is found wrong by its MAC, and only then the bytes of the longest packet are counted.
    assert all(read >= most for read in found.values()), found
    assert found[0] == found[5] == found[LENGTHS[-1]] == found[LENGTHS[-2]]
