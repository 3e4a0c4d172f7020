"""Revoked keys: OpenSSH's key revocation lists (PROTOCOL.krl), and plain lists of public keys.

    KRL          magic, version, number, date, flags, reserved, comment, then sections: a type, a string
    certificates (1)  authority or "" for all, reserved, then parts: serials (list 0x20, range 0x21, bitmap 0x22),
                      key ids 0x23, extension 0x39
    keys (2), SHA-1 (3) and SHA-256 (5) of keys, extension (255), signature (4, with a key before it, at the end)

What is not understood in full is refused as a whole, and who asks must then let nobody in, as sshd does (THREATS R17):
a list of which half counts would let in what its other half revokes.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from dunnart.errors import DecodeError, KeyFormatError
from dunnart.keys.certificate import KEY_STRINGS, Certificate, plain_name
from dunnart.keys.public import PublicKey, SignatureError, fingerprint, split_line
from dunnart.wire.encoding import Reader, byte, mpint, string, text, uint32, uint64

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"SSHKRL\n\0"
FILE_BYTES_MAX = 16 << 20
_FORMAT = 1
_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255
_SERIAL_LIST, _SERIAL_RANGE, _SERIAL_BITMAP, _KEY_ID, _CERTIFICATE_EXTENSION = 0x20, 0x21, 0x22, 0x23, 0x39
_DIGEST_BYTES = {_SHA1: 20, _SHA256: 32}
_LARGEST_SERIAL = (1 << 64) - 1


class RevokedCertificates:
    """What is revoked of one authority's certificates, or of everybody's.

    Attributes:
        key_ids: the key ids.
    """

    __slots__ = ("_bitmaps", "_ranges", "_serials", "_settled", "key_ids")

    def __init__(self) -> None:
        self.key_ids: set[str] = set()
        self._serials = array("Q")
        self._ranges: list[tuple[int, int]] = []
        self._bitmaps: list[tuple[int, bytes]] = []
        self._settled = True

    def revoke_serials(self, first: int, last: int) -> None:
        """Revoke the serial numbers from `first` to `last`; 0 stands for "no number" and cannot be revoked."""
        if not 0 < first <= last <= _LARGEST_SERIAL:
            raise KeyFormatError(f"no range of serial numbers: {first} to {last}")
        self._settled = False
        if first == last:
            self._serials.append(first)
        else:
            self._ranges.append((first, last))

    def covers(self, certificate: Certificate) -> bool:
        """Tell whether a certificate is among them."""
        serial = certificate.serial
        if certificate.key_id in self.key_ids:
            return True
        if serial == 0:
            return False
        self._settle()
        at = bisect_left(self._serials, serial)
        if at < len(self._serials) and self._serials[at] == serial:
            return True
        at = bisect_right(self._ranges, (serial, _LARGEST_SERIAL)) - 1
        if at >= 0 and serial <= self._ranges[at][1]:
            return True
        return any(_bit(bitmap, serial - offset) for offset, bitmap in self._bitmaps)

    def serials(self) -> Iterator[tuple[int, int]]:
        """Give the revoked serial numbers, in order: first and last of each range."""
        self._settle()
        single = [(serial, serial) for serial in (*self._serials, *self._in_bitmaps())]
        yield from _merged([*self._ranges, *single])

    def _in_bitmaps(self) -> Iterator[int]:
        for offset, bitmap in self._bitmaps:
            yield from (offset + at for at in range(8 * len(bitmap)) if _bit(bitmap, at))

    def _settle(self) -> None:
        if not self._settled:
            self._serials = array("Q", sorted(self._serials))
            self._ranges = _merged(self._ranges)
            self._settled = True

    def read(self, kind: int, part: Reader) -> None:
        """Read a part of a section."""
        if kind == _SERIAL_LIST:
            data = part.rest()
            if len(data) % 8:
                raise DecodeError("a list of serial numbers that ends within one")
            serials = array("Q", data)
            if sys.byteorder == "little":
                serials.byteswap()
            if 0 in serials:
                raise KeyFormatError("the serial number 0 cannot be revoked")
            self._serials.extend(serials)
            self._settled = False
        elif kind == _SERIAL_RANGE:
            self.revoke_serials(part.uint64(), part.uint64())
        elif kind == _SERIAL_BITMAP:
            offset, bitmap = part.uint64(), part.string()
            if bitmap[:1] >= b"\x80":
                raise KeyFormatError("a bitmap of serial numbers is negative")
            bitmap = bitmap.lstrip(b"\0")
            if offset == 0 and bitmap and bitmap[-1] & 1:
                raise KeyFormatError("the serial number 0 cannot be revoked")
            if bitmap and offset + 8 * len(bitmap) - 9 + bitmap[0].bit_length() > _LARGEST_SERIAL:
                raise KeyFormatError("a bitmap of serial numbers goes beyond the largest")
            self._bitmaps.append((offset, bitmap))
        elif kind == _KEY_ID:
            while part.remaining:
                self.key_ids.add(part.text())
        elif kind == _CERTIFICATE_EXTENSION:
            _skip_extension(part)
        else:
            raise KeyFormatError(f"a part of certificates of the unknown kind {kind:#x}")
        part.end()

    def parts(self) -> bytes:
        """Give the parts of a section."""
        self._settle()
        found = []
        if self._serials:
            found.append(byte(_SERIAL_LIST) + string(b"".join(map(uint64, dict.fromkeys(self._serials)))))
        found += [byte(_SERIAL_RANGE) + string(uint64(first) + uint64(last)) for first, last in self._ranges]
        found += [
            byte(_SERIAL_BITMAP) + string(uint64(offset) + mpint(int.from_bytes(bitmap, "big")))
            for offset, bitmap in self._bitmaps
        ]
        if self.key_ids:
            found.append(byte(_KEY_ID) + string(b"".join(map(text, sorted(self.key_ids)))))
        return b"".join(found)


class RevokedKeys:
    """Keys and certificates that must not be used any more.

    Attributes:
        keys: the wire forms of revoked keys.
        sha1: SHA-1 hashes of keys' wire forms.
        sha256: SHA-256 hashes likewise.
        certificates: what is revoked of certificates, by the wire form of the authority's key; b"" stands for all.
        number: the list's version, which grows each time it is changed.
        made: when it was made, in seconds since 1970.
        comment: a text for people.
    """

    def __init__(self, *, number: int = 0, made: int = 0, comment: str = "") -> None:
        self.keys: set[bytes] = set()
        self.sha1: set[bytes] = set()
        self.sha256: set[bytes] = set()
        self.certificates: dict[bytes, RevokedCertificates] = {}
        self.number = number
        self.made = made
        self.comment = comment

    @classmethod
    def parse(cls, data: bytes) -> RevokedKeys:
        """Read a key revocation list, or the text of a plain list: a public key, or a certificate for its key, a line.

        Raises:
            KeyFormatError: it is neither, is damaged, over 16 MiB, or holds what is critical and not known here.
        """
        if len(data) > FILE_BYTES_MAX:
            raise KeyFormatError("a list of revoked keys is larger than 16 MiB")
        if not data.startswith(MAGIC):
            return cls._parse_lines(data)
        try:
            return cls._decode(data)
        except DecodeError as error:
            raise KeyFormatError(f"malformed key revocation list: {error}") from error

    @classmethod
    def _parse_lines(cls, data: bytes) -> RevokedKeys:
        revoked = cls()
        for number, line in enumerate(data.decode(errors="replace").split("\n"), 1):
            stripped = line.strip()
            if stripped and not stripped.startswith("#"):
                try:
                    revoked.keys.add(_listed_blob(stripped))
                except (KeyFormatError, DecodeError) as error:
                    raise KeyFormatError(f"line {number}: {error}") from error
        return revoked

    @classmethod
    def _decode(cls, data: bytes) -> RevokedKeys:
        reader = Reader(data, len(MAGIC))
        if (version := reader.uint32()) != _FORMAT:
            raise KeyFormatError(f"a key revocation list of format {version}; only {_FORMAT} is known")
        revoked = cls(number=reader.uint64(), made=reader.uint64())
        reader.uint64()  # flags, of which none is defined
        reader.string()  # reserved
        revoked.comment = reader.text()
        signed = False
        while reader.remaining:
            kind, section = reader.byte(), reader.string()
            if kind == _SIGNATURE:
                signed = True
                body = data[: len(data) - reader.remaining]  # up to the signer's key and with it
                _check_signature(section, body, reader.string())
            elif signed:
                raise KeyFormatError("a section after the signature, which does not cover it")
            else:
                revoked._read(kind, Reader(section))
        return revoked

    def _read(self, kind: int, section: Reader) -> None:
        if kind == _CERTIFICATES:
            authority = section.string()
            if authority:
                Reader(authority).text()  # that it is a key; one that is too weak for us may be revoked all the same
            section.string()  # reserved
            found = self.of_authority(authority)
            while section.remaining:
                found.read(section.byte(), Reader(section.string()))
        elif kind in {_KEYS, _SHA1, _SHA256}:
            target = {_KEYS: self.keys, _SHA1: self.sha1, _SHA256: self.sha256}[kind]
            while section.remaining:
                blob = section.string()
                if len(blob) != _DIGEST_BYTES.get(kind, len(blob)):
                    raise KeyFormatError(f"a hash of {len(blob)} bytes, {_DIGEST_BYTES[kind]} wanted")
                target.add(blob)
        elif kind == _EXTENSION:
            _skip_extension(section)
        else:
            raise KeyFormatError(f"a section of the unknown kind {kind}")
        section.end()

    def of_authority(self, authority: bytes = b"") -> RevokedCertificates:
        """Give what is revoked of an authority's certificates, to look at or to add to.

        Args:
            authority: the wire form of its key; b"" for the certificates of every authority.
        """
        return self.certificates.setdefault(authority, RevokedCertificates())

    def reason(self, key: PublicKey | Certificate) -> str:
        """Say why a key, a certificate, or the authority that signed it must not be used; "" if nothing is against it.

        Of a certificate its key, its serial number and key id, and its authority's key are looked up.
        """
        certificate = key if isinstance(key, Certificate) else None
        plain = key.key if isinstance(key, Certificate) else key
        if self._lists(plain.blob):
            return f"the key {plain.fingerprint()} is revoked"
        if certificate is None:
            return ""
        for authority in (certificate.authority.blob, b""):
            found = self.certificates.get(authority)
            if found is not None and found.covers(certificate):
                return f"the certificate {certificate.key_id!r} (serial {certificate.serial}) is revoked"
        if self._lists(certificate.authority.blob):
            return f"the authority's key {certificate.authority.fingerprint()} is revoked"
        return ""

    def _lists(self, blob: bytes) -> bool:
        return (
            blob in self.keys
            or (bool(self.sha256) and digest(blob, "sha256") in self.sha256)
            or (bool(self.sha1) and digest(blob, "sha1") in self.sha1)
        )

    def encode(self) -> bytes:
        """Give it as a key revocation list, unsigned."""
        found = [
            MAGIC, uint32(_FORMAT), uint64(self.number), uint64(self.made), uint64(0), string(b""), text(self.comment),
        ]  # fmt: skip
        for authority, certificates in self.certificates.items():
            parts = certificates.parts()
            if parts:
                found.append(byte(_CERTIFICATES) + string(string(authority) + string(b"") + parts))
        for kind, blobs in ((_KEYS, self.keys), (_SHA1, self.sha1), (_SHA256, self.sha256)):
            if blobs:
                found.append(byte(kind) + string(b"".join(map(string, sorted(blobs)))))
        return b"".join(found)


def digest(blob: bytes, name: str) -> bytes:
    """Give the hash of a key's wire form; `name` is "sha1" or "sha256"."""
    from cryptography.hazmat.primitives import hashes

    made = hashes.Hash(hashes.SHA1() if name == "sha1" else hashes.SHA256())
    made.update(blob)
    return made.finalize()


def _listed_blob(line: str) -> bytes:
    """Give the wire form of the key on a line; its strength is no matter, only that it is a key at all."""
    key_type, blob, _ = split_line(line)
    reader = Reader(blob)
    if reader.text() != key_type:
        raise KeyFormatError(f"the line says {key_type[:64]!r}, the key itself something else")
    if plain_name(key_type) in KEY_STRINGS:
        return Certificate.decode(blob).key.blob
    if key_type not in KEY_STRINGS:
        raise KeyFormatError(f"unsupported key type {key_type[:64]!r}")
    for _ in range(KEY_STRINGS[key_type]):
        reader.string()
    reader.end()
    return blob


def _check_signature(key: bytes, signed: bytes, signature: bytes) -> None:
    """Refuse a signature that does not hold. By whom it must be is for those to say who fetch lists from elsewhere."""
    signer = PublicKey.decode(key)
    algorithm = Reader(signature).text()
    if algorithm == "ssh-rsa":
        raise SignatureError("a key revocation list signed with ssh-rsa, which uses SHA-1")
    try:
        signer.verify(algorithm, signature, signed)
    except SignatureError as error:
        raise SignatureError(f"the list's signature by {fingerprint(key)}: {error}") from error


def _skip_extension(section: Reader) -> None:
    name, critical = section.text(), section.boolean()
    section.string()
    if critical:
        raise KeyFormatError(f"the critical extension {name[:64]!r} is not known")


def _bit(bitmap: bytes, at: int) -> bool:
    place, shift = divmod(at, 8)
    return 0 <= place < len(bitmap) and bool(bitmap[-1 - place] >> shift & 1)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
