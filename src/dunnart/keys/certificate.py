"""OpenSSH certificates (PROTOCOL.certkeys; draft-miller-ssh-cert): reading, issuing, checking who signed them.

What a certificate allows (principals, validity, critical options; THREATS R17) is decided where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from dunnart.errors import DecodeError, KeyFormatError
from dunnart.keys.public import (
    CERTIFICATE_SUFFIX,
    PublicKey,
    SignatureError,
    SkDetails,
    format_line,
    split_line,
)
from dunnart.records import dataclass
from dunnart.wire.encoding import Reader, string, text, uint32, uint64

if TYPE_CHECKING:
    from dunnart.keys.private import PrivateKey

FOREVER = (1 << 64) - 1
"""A `valid_before` that never comes."""
# How many strings make up a key of each type; a certificate has them between its nonce and its serial number.
KEY_STRINGS = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
    "ssh-dss": 4,
}
_KINDS: dict[int, Literal["user", "host"]] = {1: "user", 2: "host"}
_NUMBERS = {"user": 1, "host": 2}
_NONCE_BYTES = 32
_PRINCIPALS_MAX = 256  # as in OpenSSH


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, well-formed but not yet trusted: `verify_signature` and the caller's rules come next.

    Attributes:
        key_type: "ssh-ed25519-cert-v01@openssh.com", …
        blob: the wire form.
        key: the key that is certified.
        nonce: the authority's random bytes.
        serial: the authority's number for it.
        kind: "user" or "host".
        key_id: the name by which it is logged.
        principals: user or host names; an empty tuple names nobody (THREATS R17).
        valid_after: seconds since 1970, inclusive.
        valid_before: seconds since 1970, exclusive; 2^64 - 1 is for ever.
        critical_options: names and data, in wire order; an unknown one makes the certificate useless.
        extensions: names and data, in wire order.
        authority: the key that signed it.
        signature: the signature blob.
        signed: the bytes it is made over.
    """

    key_type: str
    blob: bytes
    key: PublicKey
    nonce: bytes
    serial: int
    kind: Literal["user", "host"]
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: tuple[tuple[str, bytes], ...]
    extensions: tuple[tuple[str, bytes], ...]
    authority: PublicKey
    signature: bytes
    signed: bytes

    @classmethod
    def issue(
        cls,
        authority: PrivateKey,
        key: PublicKey,
        *,
        kind: Literal["user", "host"],
        key_id: str,
        principals: Sequence[str] = (),
        serial: int = 0,
        valid_after: int = 0,
        valid_before: int = FOREVER,
        critical_options: Mapping[str, bytes] | None = None,
        extensions: Mapping[str, bytes] | None = None,
        algorithm: str | None = None,
    ) -> Certificate:
        """Make a certificate.

        Args:
            authority: the key that signs.
            key: the key that is certified.
            kind: "user" or "host".
            key_id: the name by which it is logged.
            principals: user or host names. Without any the certificate lets nobody in.
            serial: a number to revoke it by; 0: none.
            valid_after: from when on, in seconds since 1970.
            valid_before: until when, in seconds since 1970, exclusive; by default for ever.
            critical_options: names and data; who does not know one must refuse the certificate. An option's text is
                its data as a string within (`dunnart.wire.encoding.text`).
            extensions: names and data; who does not know one passes over it.
            algorithm: how the authority signs; by default as best it can.

        Raises:
            KeyFormatError: the arguments make no certificate; says why.
        """
        plain = key.key_type
        names = tuple(principals)
        if not all(names) or any("\0" in name for name in (key_id, *names)):
            raise KeyFormatError("a principal is empty, or a name holds a NUL")
        if len(names) > _PRINCIPALS_MAX:
            raise KeyFormatError(f"a certificate has at most {_PRINCIPALS_MAX} principals")
        if not 0 <= serial <= FOREVER:
            raise KeyFormatError(f"{serial} is no serial number")
        if not 0 <= valid_after < valid_before <= FOREVER:
            raise KeyFormatError("the certificate would never be valid")
        if algorithm is None:
            algorithm = authority.signature_algorithms[0]
        fields = Reader(key.blob)
        fields.string()
        signed = b"".join((
            text(certificate_name(plain)), string(os.urandom(_NONCE_BYTES)), fields.rest(),
            uint64(serial), uint32(_NUMBERS[kind]), text(key_id), string(b"".join(map(text, names))),
            uint64(valid_after), uint64(valid_before),
            string(_encoded(critical_options or {})), string(_encoded(extensions or {})), string(b""),
            string(authority.public.blob),
        ))  # fmt: skip
        return cls.decode(signed + string(authority.sign(algorithm, signed)))

    @classmethod
    def decode(cls, blob: bytes) -> Certificate:
        """Read a certificate in wire form.

        Raises:
            KeyFormatError: it is malformed, or a key in it is malformed, weak, of an unsupported type or a certificate.
        """
        try:
            return cls._decode(bytes(blob))
        except DecodeError as error:
            raise KeyFormatError(f"malformed certificate: {error}") from error

    @classmethod
    def parse_line(cls, text: str) -> Certificate:
        """Read the line of a -cert.pub file.

        Raises:
            KeyFormatError: it is no such line, or `decode` does not take what is there.
        """
        key_type, blob, _ = split_line(text)
        found = cls.decode(blob)
        if found.key_type != key_type:
            raise KeyFormatError(f"the line says {key_type[:64]!r}, the certificate itself {found.key_type}")
        return found

    @classmethod
    def _decode(cls, blob: bytes) -> Certificate:
        reader = Reader(blob)
        key_type = reader.text()
        plain = plain_name(key_type)
        if plain not in KEY_STRINGS:
            raise KeyFormatError(f"unsupported certificate type {key_type[:64]!r}")
        nonce = reader.string()
        key = PublicKey.decode(text(plain) + b"".join(string(reader.string()) for _ in range(KEY_STRINGS[plain])))
        serial, kind, key_id = reader.uint64(), reader.uint32(), reader.text()
        if kind not in _KINDS:
            raise KeyFormatError(f"a certificate of type {kind}, which is neither user nor host")
        principals = _principals(reader.string())
        valid_after, valid_before = reader.uint64(), reader.uint64()
        critical_options, extensions = _options(reader.string()), _options(reader.string())
        reader.string()  # reserved
        authority = PublicKey.decode(reader.string())
        signed = blob[: len(blob) - reader.remaining]
        signature = reader.string()
        reader.end()
        return cls(
            key_type=key_type,
            blob=blob,
            key=key,
            nonce=nonce,
            serial=serial,
            kind=_KINDS[kind],
            key_id=key_id,
            principals=principals,
            valid_after=valid_after,
            valid_before=valid_before,
            critical_options=critical_options,
            extensions=extensions,
            authority=authority,
            signature=signature,
            signed=signed,
        )

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """The algorithms under which its key can be used in a login or as a host key, best first."""
        return tuple(certificate_name(name) for name in self.key.signature_algorithms)

    def verify(self, algorithm: str, signature: bytes, data: bytes) -> SkDetails | None:
        """Check a signature by the certified key; `algorithm` is a certificate's, the signature's label the plain one.

        Raises:
            SignatureError: the signature is not a good one by this key, algorithm and data.
        """
        if algorithm not in self.signature_algorithms:
            raise SignatureError(f"{algorithm[:64]!r} is no algorithm of a {self.key_type}")
        return self.key.verify(plain_name(algorithm), signature, data)

    @property
    def signature_algorithm(self) -> str:
        """How the authority says that it signed, as "ssh-ed25519"; "" if that is malformed."""
        try:
            return Reader(self.signature).text()
        except DecodeError:
            return ""

    def verify_signature(self, *, sha1: bool = False) -> None:
        """Check the authority's signature.

        Args:
            sha1: let an authority sign with ssh-rsa or ssh-dss too.

        Raises:
            SignatureError: it is malformed, wrong, or made with SHA-1.
        """
        algorithm = self.signature_algorithm
        if not sha1 and algorithm in {"ssh-rsa", "ssh-dss"}:
            raise SignatureError(f"a certificate signed with {algorithm}, which uses SHA-1")
        self.authority.verify(algorithm, self.signature, self.signed)

    def fingerprint(self) -> str:
        """Give the fingerprint of the certified key, as ssh-keygen -l does."""
        return self.key.fingerprint()

    def line(self, comment: str = "") -> str:
        """Give the line of a -cert.pub file, without a line end."""
        return format_line(self.key_type, self.blob, comment)


def _encoded(options: Mapping[str, bytes]) -> bytes:
    # PROTOCOL.certkeys: in the order of their names.
    return b"".join(text(name) + string(options[name]) for name in sorted(options))


def decode_public(blob: bytes) -> PublicKey | Certificate:
    """Read a public key or a certificate in wire form, as a peer sends it.

    Raises:
        KeyFormatError: it is malformed, weak, or of an unsupported type.
    """
    try:
        name = Reader(blob).string()
    except DecodeError as error:
        raise KeyFormatError(f"malformed public key: {error}") from error
    return Certificate.decode(blob) if name.endswith(CERTIFICATE_SUFFIX.encode()) else PublicKey.decode(blob)


def plain_name(name: str) -> str:
    """Give the key type or algorithm inside a certificate's name; "" if `name` is none."""
    if not name.endswith(CERTIFICATE_SUFFIX):
        return ""
    plain = name.removesuffix(CERTIFICATE_SUFFIX)
    return f"{plain}@openssh.com" if plain.startswith("sk-") else plain


def certificate_name(name: str) -> str:
    """Give the certificate's name for a key type or algorithm."""
    return name.removesuffix("@openssh.com") + CERTIFICATE_SUFFIX


def _principals(data: bytes) -> tuple[str, ...]:
    reader = Reader(data)
    names = []
    while reader.remaining:
        names.append(reader.text())
        if len(names) > _PRINCIPALS_MAX:
            raise KeyFormatError(f"a certificate with more than {_PRINCIPALS_MAX} principals")
    return tuple(names)


def _options(data: bytes) -> tuple[tuple[str, bytes], ...]:
    reader = Reader(data)
    options: dict[str, bytes] = {}
    while reader.remaining:
        name = reader.text()
        if name in options:
            raise KeyFormatError(f"a certificate with the option {name[:64]!r} twice")
        options[name] = reader.string()
    return tuple(options.items())
