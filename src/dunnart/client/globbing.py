r"""Patterns of paths as OpenSSH's sftp has them: `*`, `?`, `[…]` in one part each; `\` takes their meaning away."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.client.sftp import Sftp

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MAGIC = re.compile(r"(?:\\.|[^\\*?[])*[*?[]", re.DOTALL)


def has_magic(pattern: str) -> bool:
    """Whether a pattern can match anything but one path."""
    return _MAGIC.match(pattern) is not None


def unescaped(pattern: str) -> str:
    """The path that a pattern without magic is."""
    return _ESCAPED.sub(r"\1", pattern)


def for_fnmatch(pattern: str) -> str:
    """The same for `fnmatch` and `glob`, to which a backslash means nothing."""
    return _ESCAPED.sub(lambda found: f"[{found[1]}]" if found[1] in "*?[" else found[1], pattern)


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches one part of a pattern."""
    if name.startswith(".") and not unescaped(pattern).startswith("."):
        return False
    return fnmatch.fnmatchcase(name, for_fnmatch(pattern))


async def expand(sftp: Sftp, pattern: str) -> list[str]:
    """The paths at a server that match, in order."""
    parts = pattern.split("/")
    found = [""]
    literal = True  # nothing has been looked up yet
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if not has_magic(part):
            found = [path + unescaped(part) + ("" if last else "/") for path in found]
            continue
        literal = False
        matched = []
        for path in found:
            with contextlib.suppress(OSError):  # no directory, or none that may be read
                for entry in await sftp.entries(path or "."):
                    if matches(entry.name, part) and (last or not entry.attributes.is_file):
                        matched.append(path + entry.name + ("" if last else "/"))  # noqa: PERF401 - awaits between
        found = matched
    if literal or not has_magic(parts[-1]):
        found = [path for path in found if await sftp.exists(path or "/")]
    return found
