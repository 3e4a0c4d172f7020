"""known_hosts files: finding, removing and hashing hosts."""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple

from dunnart.errors import KeyFormatError
from dunnart.keys.known_hosts import hashed_name, is_hashed, names_match
from dunnart.tools.keygen.files import key_in, read_text, write
from dunnart.tools.keygen.fingerprints import fingerprint, kind
from dunnart.tools.keygen.flags import Flags, KeygenError
from dunnart.tools.terminal import failure, shown

_MARKERS = {"@cert-authority": "CA", "@revoked": "REVOKED"}


class _Line(NamedTuple):
    """A line of the file: as it stands there, and, if it is about a host, what it says."""

    text: str
    marker: str = ""
    hosts: str = ""
    rest: str = ""
    wrong: bool = False


def _parse(text: str) -> _Line:
    said = text.strip()
    if not said or said.startswith("#"):
        return _Line(text)
    marker = ""
    if said.startswith("@"):
        marker, _, said = said.replace("\t", " ").partition(" ")
    parts = said.split(None, 1)
    if (marker and marker not in _MARKERS) or len(parts) < 2 or len(parts[1].split()) < 2:
        return _Line(text, wrong=True)
    return _Line(text, marker, parts[0], parts[1], wrong=parts[0].startswith("|") and not is_hashed(parts[0]))


def _lines(path: str) -> list[_Line]:
    text = read_text(path)
    # Not splitlines(), which takes form feeds and Unicode's separators for line ends too.
    return [_parse(line) for line in text.removesuffix("\n").split("\n")] if text else []


def _file(flags: Flags) -> str:
    return os.path.expanduser(flags.value("f") or "~/.ssh/known_hosts")


def find(flags: Flags) -> int:
    """-F: show the lines about a host, with -l as fingerprints, with -H hashed; 1 if there is none."""
    host = flags.value("F") or ""
    found = False
    for number, line in enumerate(_lines(_file(flags)), 1):
        if not line.hosts or line.wrong or not names_match(line.hosts, host.lower()):
            continue
        found = True
        if "q" not in flags:
            print(f"# Host {shown(host)} found: line {number} {_MARKERS.get(line.marker, '')}")
        if "H" in flags:
            print(*_hashed(line), sep="\n")
        elif "l" in flags:
            try:
                key, comment = key_in(line.rest)
            except KeyFormatError as error:
                print(f"line {number}: {shown(str(error))}", file=sys.stderr)
                continue
            print(f"{shown(host)} {kind(key)} {fingerprint(flags, key)} {shown(comment)}".rstrip())
        else:
            print(line.text)
    return 0 if found else 1


def remove(flags: Flags) -> int:
    """-R: remove the lines about a host; those of authorities and revoked keys stay."""
    path, host = _file(flags), flags.value("R") or ""
    lines = _good_lines(path)
    kept = []
    for number, line in enumerate(lines, 1):
        if line.hosts and not line.marker and names_match(line.hosts, host.lower()):
            if "q" not in flags:
                print(f"# Host {shown(host)} found: line {number}")
        else:
            kept.append(line.text)
    if len(kept) == len(lines):
        print(f"Host {shown(host)} not found in {shown(path)}", file=sys.stderr)
        return 0
    _replace(path, kept)
    return 0


def hash_names(flags: Flags) -> int:
    """-H: hash the names of all hosts; patterns cannot be."""
    path = _file(flags)
    lines = _good_lines(path)
    changed = False
    made: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.marker and any(char in line.hosts for char in "*?!"):
            print(f"{shown(path)}:{number}: a pattern cannot be hashed: {shown(line.hosts[:64])}", file=sys.stderr)
        hashed = _hashed(line)
        changed = changed or hashed != [line.text]
        made += hashed
    old = _replace(path, made)
    if changed:
        print(f"{shown(old)} still shows names; remove it if nobody is to read them", file=sys.stderr)
    return 0


def _hashed(line: _Line) -> list[str]:
    if not line.hosts or line.marker or line.hosts.startswith("|") or any(char in line.hosts for char in "*?!"):
        return [line.text]
    return [f"{hashed_name(name.lower())} {line.rest}" for name in line.hosts.split(",") if name]


def _good_lines(path: str) -> list[_Line]:
    lines = _lines(path)
    wrong = [number for number, line in enumerate(lines, 1) if line.wrong]
    for number in wrong:
        print(f"{shown(path)}:{number}: invalid line", file=sys.stderr)
    if wrong:
        raise InvalidFile(f"{shown(path)} is not a valid known_hosts file; it stays as it is")
    return lines


class InvalidFile(KeygenError):
    """The file has lines that are not understood; the exit status is 1."""


def _replace(path: str, lines: list[str]) -> str:
    """Write the file anew; the one that was there gets .old behind its name."""
    old = f"{path}.old"
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode) & 0o644
        if os.path.lexists(old):
            os.unlink(old)
        os.link(path, old)
    except OSError as error:
        raise KeygenError(failure(error)) from error
    write(path, "".join(f"{line}\n" for line in lines), mode)
    print(f"{shown(path)} updated.\nOriginal contents retained as {shown(old)}")
    return old
