"""Lists of revoked keys: making, adding to, and asking them."""

from __future__ import annotations

import binascii
import os
import time
from typing import TYPE_CHECKING

from dunnart.errors import KeyFormatError
from dunnart.keys.certificate import FOREVER, Certificate
from dunnart.keys.revocation import RevokedKeys, digest
from dunnart.tools.keygen.files import key_in, public_in, read, read_text, write
from dunnart.tools.keygen.flags import Flags, KeygenError, whole
from dunnart.tools.terminal import shown

if TYPE_CHECKING:
    from collections.abc import Iterable


def make(flags: Flags) -> int:
    """-k: write a list of what files name."""
    path = _list_file(flags)
    revoked = _load(path) if "u" in flags else RevokedKeys()
    revoked.made = int(time.time())
    if "z" in flags:
        revoked.number = flags.number("z", 0, FOREVER)
    if (comment := flags.value("C")) is not None:
        revoked.comment = comment
    authority = _authority(flags.value("s"))
    for each in flags.rest:
        name = os.path.expanduser(each)
        place = "(standard input)" if each == "-" else shown(name)
        if "q" not in flags:
            print(f"Revoking from {place}")
        for number, line in enumerate(read_text(name).splitlines(), 1):
            said = line.partition("#")[0].strip()
            if said:
                try:
                    _revoke(revoked, authority, said)
                except (KeyFormatError, KeygenError) as error:
                    raise KeygenError(f"{place}:{number}: {shown(str(error))}") from error
    write(path, revoked.encode(), 0o644)
    return 0


def _list_file(flags: Flags) -> str:
    path = flags.value("f")
    if path is None:
        raise KeygenError("which list of revoked keys? Name it with -f")
    return os.path.expanduser(path)


def _load(path: str) -> RevokedKeys:
    try:
        return RevokedKeys.parse(read(path))
    except KeyFormatError as error:
        raise KeygenError(f"{shown(path)}: {shown(str(error))}") from error


def _authority(path: str | None) -> bytes | None:
    """The authority of -s; b"" for all of them, None if none is named."""
    if path is None or path.lower() == "none":
        return None if path is None else b""
    key, _ = public_in(os.path.expanduser(path))
    return key.key.blob if isinstance(key, Certificate) else key.blob


def _revoke(revoked: RevokedKeys, authority: bytes | None, said: str) -> None:
    """Add what a line says: WORD: VALUE, or a key or certificate alone."""
    word, colon, value = said.partition(":")
    word, value = word.lower(), value.strip()
    if not colon or word not in {"serial", "id", "hash", "key", "sha1", "sha256"}:
        key, _ = key_in(said)
        if not isinstance(key, Certificate):
            revoked.keys.add(key.blob)
        elif key.serial:
            revoked.of_authority(key.authority.blob).revoke_serials(key.serial, key.serial)
        else:
            revoked.of_authority(key.authority.blob).key_ids.add(key.key_id)
    elif word in {"serial", "id"}:
        if authority is None:
            raise KeygenError("whose certificates? Name the authority's key with -s, or none for everybody's")
        certificates = revoked.of_authority(authority)
        if word == "id":
            certificates.key_ids.add(value)
        else:
            first, dash, last = value.partition("-")
            start = whole(first, FOREVER, f"serial number {first!r}", any_base=True)
            end = whole(last, FOREVER, f"serial number {last!r}", any_base=True) if dash else start
            certificates.revoke_serials(start, end)
    elif word == "hash":
        revoked.sha256.add(_hash(value))
    else:
        key, _ = key_in(value)
        blob = key.key.blob if isinstance(key, Certificate) else key.blob
        if word == "key":
            revoked.keys.add(blob)
        else:
            (revoked.sha1 if word == "sha1" else revoked.sha256).add(digest(blob, word))


def _hash(value: str) -> bytes:
    encoded = value.removeprefix("SHA256:")
    try:
        found = binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError:
        found = b""
    if encoded == value or len(found) != 32:  # SHA-256
        raise KeygenError(f"{value!r} is no fingerprint such as SHA256:…")
    return found


def query(flags: Flags) -> int:
    """-Q: show a list (-l), and look keys up; the exit status is 1 if one is revoked."""
    revoked = _load(_list_file(flags))
    if "l" in flags:
        print(*_lines(revoked), sep="\n")
    found = False
    for path in flags.rest:
        key, comment = public_in(os.path.expanduser(path))
        reason = revoked.reason(key)
        said = f" ({shown(comment)})" if comment else ""
        print(f"{shown(path)}{said}: {'REVOKED' if reason else 'ok'}")
        found = found or bool(reason)
    return 1 if found else 0


def _lines(revoked: RevokedKeys) -> Iterable[str]:
    from dunnart.keys.public import fingerprint as of_blob
    from dunnart.wire.encoding import Reader

    yield f"# KRL version {revoked.number}"
    yield f"# Generated at {time.strftime('%Y%m%dT%H%M%S', time.localtime(revoked.made))}"
    if revoked.comment:
        yield f"# Comment: {shown(revoked.comment)}"
    yield ""
    for blob in sorted(revoked.keys):
        yield f"hash: {of_blob(blob)} # {shown(Reader(blob).string())}"
    for held in sorted(revoked.sha256):
        yield f"hash: SHA256:{binascii.b2a_base64(held, newline=False).decode().rstrip('=')}"
    for held in sorted(revoked.sha1):
        yield f"# hash SHA1:{held.hex()}"
    for authority, certificates in revoked.certificates.items():
        yield ""
        name = f"CA key {shown(Reader(authority).string())} {of_blob(authority)}" if authority else "Wildcard CA"
        yield f"# {name}"
        for first, last in certificates.serials():
            yield f"serial: {first}" if first == last else f"serial: {first}-{last}"
        yield from (f"id: {shown(key_id)}" for key_id in sorted(certificates.key_ids))
