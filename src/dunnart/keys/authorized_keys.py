"""authorized_keys files: the keys that may log in as a user (sshd(8), AUTHORIZED_KEYS FILE FORMAT).

It fails closed (THREATS R16): a line that is not understood in full grants nothing, and is listed with its reason. Nor
does a later line with the same key: sshd may have taken the first one, with its restrictions.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Generic, TypeVar

from dunnart.errors import KeyFormatError
from dunnart.keys.key_options import KeyOptions, Options, understand
from dunnart.keys.public import CERTIFICATE_SUFFIX, KEY_TYPES, PublicKey
from dunnart.keys.regular import open_regular
from dunnart.records import dataclass

FILE_BYTES_MAX = 1 << 20
LINE_BYTES_MAX = 1 << 16
_CACHED_FILES_MAX = 256
_BLANK = " \t\r"
_OPTION_NAME_MAX = 64
_SHOWN_MAX = 32
_OPTION_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """One line that grants something.

    Attributes:
        key: the key: a user's, or with the option cert-authority that of who signs certificates.
        comment: the rest of the line; for logs.
        options: what stands before the key: names in lower case and unquoted values, in the order of the line.
        terms: what those mean.
        line: its number, from 1.
    """

    key: PublicKey
    comment: str
    options: Options
    terms: KeyOptions
    line: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a key lets a login in.

    Attributes:
        entry: the line that does, or None.
        reasons: why others do not, for the log.
        final: a line that is not understood has this key, so that no other file or source may let it in.
    """

    entry: AuthorizedKey | None = None
    reasons: tuple[str, ...] = ()
    final: bool = False


class AuthorizedKeys:
    """The lines of one file.

    Attributes:
        source: the file's name, for logs.
        entries: the lines that grant something, in order.
        refused: number and reason of each line that grants nothing; number 0 stands for the whole file.
    """

    __slots__ = ("_by_blob", "_dead", "entries", "refused", "source")

    def __init__(
        self, source: str, entries: tuple[AuthorizedKey, ...], refused: tuple[tuple[int, str], ...],
        dead: dict[bytes, int] | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.entries = entries
        self.refused = refused
        self._dead = dead or {}
        self._by_blob: dict[bytes, tuple[AuthorizedKey, ...]] = {}
        for entry in entries:
            self._by_blob[entry.key.blob] = (*self._by_blob.get(entry.key.blob, ()), entry)

    def find(self, key: PublicKey) -> tuple[AuthorizedKey, ...]:
        """Give the lines of a user's key, in order, or ()."""
        return tuple(entry for entry in self._by_blob.get(key.blob, ()) if not entry.terms.authority)

    def find_authority(self, key: PublicKey) -> tuple[AuthorizedKey, ...]:
        """Give the lines of a certification authority's key, in order, or ()."""
        return tuple(entry for entry in self._by_blob.get(key.blob, ()) if entry.terms.authority)

    def decide(self, key: PublicKey, address: str, now: float) -> Decision:
        """Say whether a login with `key` is let in: by the first line with it whose conditions hold, as in sshd.

        Args:
            key: the user's.
            address: the IP address that it comes from.
            now: the time, in seconds since 1970.
        """
        return self._decide(self.find(key), key, address, now)

    def decide_authority(
        self, key: PublicKey, address: str, now: float, fitted: Callable[[AuthorizedKey], AuthorizedKey]
    ) -> Decision:
        """Say the same of a certificate that the authority `key` has signed.

        `fitted` gives a line as it holds for the certificate, or raises `KeyFormatError` if that line does not let it
        in: then the next one may.
        """
        return self._decide(self.find_authority(key), key, address, now, fitted)

    def _decide(
        self, entries: Iterable[AuthorizedKey], key: PublicKey, address: str, now: float,
        fitted: Callable[[AuthorizedKey], AuthorizedKey] | None = None,
    ) -> Decision:  # fmt: skip
        reasons: list[str] = []
        for entry in entries:
            refusal = entry.terms.refusal(address, now)
            if not refusal:
                try:
                    return Decision(entry if fitted is None else fitted(entry), tuple(reasons))
                except KeyFormatError as error:
                    refusal = str(error)
            reasons.append(f"{self.source}:{entry.line}: {refusal}")
        dead = self._dead.get(key.blob)
        if dead is not None:
            reasons.append(f"{self.source}:{dead}: the line is not understood")
        return Decision(None, tuple(reasons), dead is not None)


T = TypeVar("T")


class CheckedFiles(Generic[T]):
    """Users' files, read once and again only when they change, and trusted only if nobody else could write them.

    It calls the file system, which may hang where homes come over a network: then call it in a thread.

    Args:
        parse: reads a file's content; what it gets besides is the file's name.
        refused: stands for a file, named first, that cannot be used, and why.
    """

    __slots__ = ("_files", "_parse", "_refused")

    def __init__(self, parse: Callable[[bytes, str], T], refused: Callable[[str, str], T]) -> None:
        self._parse = parse
        self._refused = refused
        self._files: dict[tuple[str, int | None, str | None], _CachedFile[T]] = {}

    def load(self, path: str, *, owner_uid: int | None, home: str | None = None) -> T:
        """Give what is in a file; nothing if it is missing, unsafe or no regular file of at most 1 MiB.

        Args:
            path: the file; symbolic links are followed, as sshd does.
            owner_uid: the user who must own the file and its directories, unless root does; None: no such check.
            home: directories above this one are not checked (as sshd's StrictModes); None: all are, up to the root.
        """
        wanted = (path, owner_uid, home)
        cached = self._files.get(wanted)
        try:
            if cached is not None and cached.identity == _identity(os.stat(path)):
                reason = None if owner_uid is None else _unsafe_directory(cached.directories, owner_uid)
                return cached.content if reason is None else self._refused(path, reason)
            self._files.pop(wanted, None)
            real = os.path.realpath(path)
            status, data = _read(real, os.stat(home) if home is not None and path.startswith(f"{home}/") else None)
            if owner_uid is not None:
                reason = _unsafe(real, status, owner_uid) or _unsafe_directory(_directories(real, home), owner_uid)
                if reason is not None:
                    return self._refused(path, reason)
        except FileNotFoundError:
            return self._parse(b"", path)
        except OSError as error:
            return self._refused(path, error.strerror or "cannot be read")
        except KeyFormatError as error:
            return self._refused(path, str(error))
        content = self._parse(data, path)
        if len(self._files) >= _CACHED_FILES_MAX:
            self._files.pop(next(iter(self._files)), None)
        self._files[wanted] = _CachedFile(_identity(status), _directories(real, home), content)
        return content


class AuthorizedKeysCache(CheckedFiles[AuthorizedKeys]):
    """The users' authorized_keys files.

    Args:
        variables: patterns of the names that the option environment may set.
    """

    __slots__ = ()

    def __init__(self, variables: Iterable[str] = ()) -> None:
        super().__init__(partial(parse, variables=tuple(variables)), _refused)


@dataclass(frozen=True)
class _CachedFile(Generic[T]):
    identity: tuple[int, ...]
    directories: tuple[str, ...]
    content: T


def parse(text: bytes | str, source: str, *, variables: Iterable[str] = ()) -> AuthorizedKeys:
    """Read the text of an authorized_keys file. Never raises for what stands in it.

    Args:
        text: the lines.
        source: its name for logs.
        variables: patterns of the names that the option environment may set; a line that sets others grants nothing.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    variables = tuple(variables)
    entries: list[AuthorizedKey] = []
    refused: list[tuple[int, str]] = []
    dead: dict[bytes, int] = {}
    # Not splitlines(), which takes form feeds and Unicode's separators for line ends too.
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(_BLANK)
        if not stripped or stripped.startswith("#"):
            continue
        try:
            entry = _parse_line(stripped, number, variables)
        except KeyFormatError as error:
            refused.append((number, str(error)))
            for blob in _keys_in(stripped):
                dead.setdefault(blob, number)
            continue
        if entry.key.blob in dead:
            refused.append((number, f"line {dead[entry.key.blob]} has the same key and is not understood"))
        else:
            entries.append(entry)
    return AuthorizedKeys(source, tuple(entries), tuple(refused), dead)


def strict_modes_reason(path: str, owner_uid: int, home: str | None = None) -> str | None:
    """Say why a file is not safe to trust, or None: sshd's StrictModes.

    The file must be a regular one; it and its directories, up to `home` (or the root), must belong to root or
    `owner_uid` and be writable by nobody else.
    """
    try:
        real = os.path.realpath(path)
        return _unsafe(real, os.stat(real), owner_uid) or _unsafe_directory(_directories(real, home), owner_uid)
    except OSError as error:
        return f"{path}: {error.strerror}"


def _parse_line(line: str, number: int, variables: tuple[str, ...]) -> AuthorizedKey:
    if len(line) > LINE_BYTES_MAX:
        raise KeyFormatError(f"the line is longer than {LINE_BYTES_MAX} bytes")
    if "\0" in line:
        raise KeyFormatError("the line holds a NUL")
    if line.startswith("-----BEGIN"):
        raise KeyFormatError("a key's file as it is; its public half belongs here, on one line")
    options: Options = ()
    rest = line
    if not _begins_with_key(line):
        options, rest = parse_options(line)
        if not _begins_with_key(rest):
            raise KeyFormatError("no key of a supported type on the line")
    if _first_word(rest).endswith(CERTIFICATE_SUFFIX):
        raise KeyFormatError("a certificate; its authority's key with the option cert-authority belongs here")
    key, comment = PublicKey.parse_line(rest)
    shown = comment.encode(errors="replace").decode()
    return AuthorizedKey(key, shown, options, understand(options, variables), number)


def _keys_in(line: str) -> list[bytes]:
    """Give the keys that may be meant by a line that is not understood."""
    words = line.replace('"', " ").split()
    found = []
    for word, following in pairwise(words):
        if word in KEY_TYPES:
            try:
                found.append(PublicKey.parse_line(f"{word} {following}")[0].blob)
            except KeyFormatError:
                continue
    return found


def _begins_with_key(line: str) -> bool:
    word = _first_word(line)
    return word in KEY_TYPES or word.endswith(CERTIFICATE_SUFFIX)


def _first_word(line: str) -> str:
    return (line.split(None, 1) or [""])[0]


def parse_options(line: str) -> tuple[Options, str]:
    r"""Read name, name="value", … up to the first blank outside quotes; \" in a value is a quote, other \ are plain."""
    options: list[tuple[str, str | None]] = []
    position = 0
    while True:
        start = position
        while position < len(line) and line[position] not in '=," \t':
            position += 1
        name = line[start:position].lower()
        if not name or len(name) > _OPTION_NAME_MAX or not _OPTION_NAME.issuperset(name):
            if not name:
                raise KeyFormatError("no key of a supported type, or a blank or nothing where an option belongs")
            # What is too long may be a secret that stands here by mistake.
            shown = repr(name) if len(name) <= _SHOWN_MAX else f"a word of {len(name)} characters"
            raise KeyFormatError(f"no key of a supported type and no option: {shown}")
        value: str | None = None
        if line.startswith("=", position):
            value, position = _parse_value(line, position + 1, name)
        options.append((name, value))
        if position == len(line):
            raise KeyFormatError("options, but no key on the line")
        if line[position] in _BLANK:
            return tuple(options), line[position:].lstrip(_BLANK)
        if line[position] != ",":
            raise KeyFormatError(f"comma or blank wanted after option '{name}'")
        position += 1


def _parse_value(line: str, position: int, name: str) -> tuple[str, int]:
    """Read a quoted value; give it and the position behind its closing quote."""
    if not line.startswith('"', position):
        raise KeyFormatError(f"the value of option '{name}' is not quoted")
    start = position = position + 1
    while (end := line.find('"', position)) >= 0:
        if line[end - 1] != "\\":
            return line[start:end].replace('\\"', '"'), end + 1
        position = end + 1
    raise KeyFormatError(f"the quotes of option '{name}' are not closed")


def _read(real: str, home: os.stat_result | None) -> tuple[os.stat_result, bytes]:
    """Read a regular file of bounded size (THREATS R23), from a home nothing that only root can read (R25)."""
    descriptor, status = open_regular(real, home)
    try:
        chunks = []
        left = FILE_BYTES_MAX + 1
        while left and (chunk := os.read(descriptor, left)):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(descriptor)
    if not left:
        raise KeyFormatError("the file is over 1 MiB")
    return status, b"".join(chunks)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Tell one state of a file from another; the change time also betrays chmod, chown and a set-back mtime."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _directories(real: str, home: str | None) -> tuple[str, ...]:
    """Give the directories above a file, up to and with `home` or the root."""
    last = "/" if home is None else os.path.realpath(home)
    found = [os.path.dirname(real)]
    while found[-1] not in {last, "/"}:
        found.append(os.path.dirname(found[-1]))
    return tuple(found)


def _unsafe(path: str, status: os.stat_result, owner_uid: int) -> str | None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return f"{path}: not a regular file"
    if status.st_uid not in {0, owner_uid}:
        return f"{path}: bad owner: uid {status.st_uid}; chown {owner_uid} {path}"
    if status.st_mode & 0o022:
        # Nothing can be done about a folder that is meant for everybody, such as /tmp.
        remedy = "keep the file elsewhere" if status.st_mode & stat.S_ISVTX else f"chmod go-w {path}"
        return f"{path}: bad modes: {stat.S_IMODE(status.st_mode):o}: writable by others; {remedy}"
    return None


def _unsafe_directory(directories: tuple[str, ...], owner_uid: int) -> str | None:
    for directory in directories:
        reason = _unsafe(directory, os.stat(directory), owner_uid)
        if reason is not None:
            return reason
    return None


def _refused(path: str, reason: str) -> AuthorizedKeys:
    return AuthorizedKeys(path, (), ((0, reason.removeprefix(f"{path}: ")),))
