"""known_hosts files: which keys hosts have (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Only the text is handled here; reading and appending to files is the caller's.
"""

from __future__ import annotations

import binascii
import os
from typing import Literal

from dunnart.errors import KeyFormatError
from dunnart.keys.patterns import matches
from dunnart.keys.public import PublicKey
from dunnart.records import dataclass

Verdict = Literal["known", "unknown", "changed", "revoked"]
_HASH_MARK = "|1|"
_MARKERS = ("@cert-authority", "@revoked")


@dataclass(frozen=True, slots=True)
class KnownHost:
    """One line: `hosts` as written (patterns or one hash), `marker` "", "@cert-authority" or "@revoked"."""

    hosts: str
    key: PublicKey
    marker: str
    comment: str
    line: int

    def matches(self, name: str) -> bool:
        """Whether the line is for `name`, "host" or "[host]:port" in lower case."""
        return names_match(self.hosts, name)


class KnownHosts:
    """The lines of one or more files.

    Attributes:
        entries: the lines that could be read.
        refused: number and reason of each that could not; they are as good as not there.
    """

    __slots__ = ("entries", "refused")

    def __init__(self, text: str = "") -> None:
        self.entries: list[KnownHost] = []
        self.refused: list[tuple[int, str]] = []
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            try:
                self.entries.append(_parse_line(stripped, number))
            except KeyFormatError as error:
                self.refused.append((number, str(error)))

    def check(self, host: str, port: int, key: PublicKey) -> Verdict:
        """Say what is known of a host's key.

        Returns:
            "revoked" if the key must not be used, "known" if it is the host's, "changed" if only other keys are known
            of the host, else "unknown". A host known without its port is known, as ssh has it, with any port.
        """
        verdict = self._check(host_name(host, port), key)
        if verdict == "unknown" and port != 22:
            without_port = self._check(host_name(host, 22), key)
            return verdict if without_port == "changed" else without_port
        return verdict

    def keys(self, host: str, port: int) -> tuple[PublicKey, ...]:
        """Give the keys known of a host; a client asks for algorithms of their types first."""
        return self._marked(host_name(host, port), "")

    def authorities(self, host: str, port: int) -> tuple[PublicKey, ...]:
        """Give the keys that may sign the host's certificates."""
        return self._marked(host_name(host, port), "@cert-authority")

    def add(self, host: str, port: int, key: PublicKey, *, hashed: bool = False, comment: str = "") -> str:
        """Take a host's key as known; give the line to append to the file, without a line end."""
        name = host_name(host, port)
        if not name.isprintable() or any(char in name for char in " ,*?!|#@"):
            raise KeyFormatError(f"no host name: {name[:64]!r}")
        hosts = hashed_name(name) if hashed else name
        self.entries.append(KnownHost(hosts, key, "", comment, 0))
        return f"{hosts} {key.line(comment)}"

    def _check(self, name: str, key: PublicKey) -> Verdict:
        verdict: Verdict = "unknown"
        for entry in self.entries:
            if entry.marker == "@cert-authority" or not entry.matches(name):
                continue
            if entry.marker == "@revoked":
                if entry.key == key:
                    return "revoked"
            elif entry.key == key:
                verdict = "known"
            elif verdict == "unknown":
                verdict = "changed"
        return verdict

    def _marked(self, name: str, marker: str) -> tuple[PublicKey, ...]:
        return tuple(entry.key for entry in self.entries if entry.marker == marker and entry.matches(name))


def host_name(host: str, port: int) -> str:
    """Give the name under which a host stands in the file."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def names_match(hosts: str, name: str) -> bool:
    """Tell whether a line's hosts, patterns or a hash, are for `name`: "host" or "[host]:port" in lower case."""
    if hosts.startswith(_HASH_MARK):
        return _hash_matches(hosts, name)
    found = False
    for pattern in hosts.lower().split(","):
        if matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def hashed_name(name: str) -> str:
    """Give a host's name as it stands in a file that does not show names."""
    return _hash(name, os.urandom(20))


def is_hashed(hosts: str) -> bool:
    """Tell whether a line's hosts are a well-formed hash."""
    return _hash_parts(hosts) is not None


def _parse_line(line: str, number: int) -> KnownHost:
    marker = ""
    if line.startswith("@"):
        marker, _, line = line.replace("\t", " ").partition(" ")
        if marker not in _MARKERS:
            raise KeyFormatError(f"unknown marker {marker[:64]!r}")
    hosts, _, rest = line.replace("\t", " ").strip().partition(" ")
    key, comment = PublicKey.parse_line(rest)
    if hosts.startswith("|") and not is_hashed(hosts):
        raise KeyFormatError("a malformed hashed host name")
    return KnownHost(hosts, key, marker, comment, number)


def _hash(name: str, salt: bytes) -> str:
    """Give "|1|salt|HMAC-SHA1(salt, name)" in base64."""
    from cryptography.hazmat.primitives import hashes, hmac

    digest = hmac.HMAC(salt, hashes.SHA1())
    digest.update(name.encode())
    parts = (binascii.b2a_base64(part, newline=False).decode() for part in (salt, digest.finalize()))
    return _HASH_MARK + "|".join(parts)


def _hash_parts(hosts: str) -> tuple[bytes, bytes] | None:
    parts = hosts.removeprefix(_HASH_MARK).split("|")
    try:
        salt, digest = (binascii.a2b_base64(part, strict_mode=True) for part in parts)
    except ValueError:
        return None
    return (salt, digest) if hosts.startswith(_HASH_MARK) and salt and len(digest) == 20 else None


def _hash_matches(hosts: str, name: str) -> bool:
    parts = _hash_parts(hosts)
    return parts is not None and _hash(name, parts[0]) == hosts
