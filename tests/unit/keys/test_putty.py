"""PuTTY's format; that puttygen agrees is shown in tests/interop/test_dropbear_tools.py."""

from __future__ import annotations

import pytest

from dunnart.errors import KeyFormatError, KeyLocked
from dunnart.keys import PrivateKey
from dunnart.keys.conversion import comment_of
from dunnart.keys.putty import from_putty, to_putty

ED, RSA, ECDSA = PrivateKey.generate("ed25519"), PrivateKey.generate("rsa", 2048), PrivateKey.generate("ecdsa", 521)


def test_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dunnart.keys.putty._PASSES", 2)  # the file says how many
    for key in (ED, RSA, ECDSA):
        for version in (2, 3):
            for passphrase in (None, "föö bar"):
                password = None if passphrase is None else passphrase.encode()
                data = to_putty(key, "a\ncomment", password, version=version)
                assert PrivateKey.load(data, passphrase).public == key.public
                assert PrivateKey.load(data.replace(b"\n", b"\r\n"), passphrase).public == key.public
                assert comment_of(data) == "a comment"
                if passphrase:
                    with pytest.raises(KeyLocked):
                        PrivateKey.load(data)
                    with pytest.raises(KeyFormatError, match="passphrase is wrong"):
                        PrivateKey.load(data, "another")
                found = PrivateKey.load(data, passphrase)
                algorithm = found.signature_algorithms[0]
                assert key.public.verify(algorithm, found.sign(algorithm, b"x"), b"x") is None


def test_what_is_wrong_is_said() -> None:
    plain = to_putty(ED)
    locked = to_putty(ED, "", b"x")
    other = to_putty(PrivateKey.generate("ed25519"))
    for data, said in [
        (b"PuTTY-User-Key-File-1" + plain[21:], "version 1; only 2 and 3"),
        (plain.replace(b"none", b"rot13"), "unknown encryption 'rot13'"),
        (plain.replace(b"Comment: ", b"Comment: x"), "MAC is another"),
        (plain.replace(b": ssh-ed25519", b": ssh-rsa"), "MAC is another"),
        (plain.replace(b"Private-MAC", b"Private"), "no MAC"),
        (plain.replace(b"Private-Lines: 1", b"Private-Lines: 9"), "not as many"),
        (plain.replace(b"Public-Lines: 2", b"Public-Lines: x"), "not as many"),
        (plain[: plain.index(b"Private-Lines")], "one of its halves is missing"),
        (plain.replace(plain.split(b"\n")[4], other.split(b"\n")[4]), "MAC is another"),
        (locked.replace(b"Argon2id", b"Argon3"), "unknown key derivation 'Argon3'"),
        (locked.replace(b"Argon2-Memory: 8192", b"Argon2-Memory: 99999999"), "Argon2-Memory is '99999999'"),
        (locked.replace(b"Argon2-Passes: 21", b"Argon2-Passes: -1"), "Argon2-Passes is '-1'"),
        (locked.replace(b"Argon2-Salt: ", b"Argon2-Salt: x"), "key derivation cannot be done"),
        (b"PuTTY-User", "no private key"),
    ]:
        with pytest.raises(KeyFormatError, match=said):
            from_putty(data, b"x")
