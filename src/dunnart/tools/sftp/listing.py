"""How `ls` and `df` of `dunnart sftp` look."""

from __future__ import annotations

import shutil
import stat
import time
from typing import TYPE_CHECKING

from dunnart.tools.terminal import shown
from dunnart.tools.transfer.progress import size as short_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dunnart.client.sftp import Entry
    from dunnart.sftp.attributes import Attributes
    from dunnart.sftp.client import FileSystemStatus

_HALF_YEAR_SECONDS = 365 * 24 * 3600 // 2
_KEYS: dict[str, Callable[[Entry], int]] = {
    "S": lambda entry: -(entry.attributes.size or 0),
    "t": lambda entry: -(entry.attributes.mtime or 0),
}


def arranged(entries: Sequence[Entry], flags: str) -> list[Entry]:
    """Those to be shown, in order: `-a` hidden ones too, `-f` unsorted, `-S` by size, `-t` by time, `-r` reversed."""
    found = [entry for entry in entries if "a" in flags or not entry.name.startswith(".")]
    if "f" in flags:
        return found
    key = next((_KEYS[flag] for flag in flags if flag in _KEYS), None)
    found.sort(key=lambda entry: entry.name)
    if key is not None:
        found.sort(key=key)
    return found[::-1] if "r" in flags else found


def lines(entries: Sequence[Entry], flags: str, users: Mapping[int, str], groups: Mapping[int, str]) -> list[str]:
    """The lines for them: long with `-l` or `-n`, one each with `-1`, else in columns."""
    if "l" in flags or "n" in flags:
        now = time.time()
        return [_long(entry, flags, users, groups, now) for entry in entries]
    names = [shown(entry.name) for entry in entries]
    return names if "1" in flags else columns(names)


def columns(names: Sequence[str]) -> list[str]:
    """Names side by side, down and then across."""
    if not names:
        return []
    width = max(map(len, names)) + 2
    across = max(1, shutil.get_terminal_size().columns // width)
    rows = -(-len(names) // across)
    return ["".join(f"{name:<{width}}" for name in names[row::rows]).rstrip() for row in range(rows)]


def _long(entry: Entry, flags: str, users: Mapping[int, str], groups: Mapping[int, str], now: float) -> str:
    found = entry.attributes
    if not (users or groups or "n" in flags or "h" in flags) and entry.long_name:
        return shown(entry.long_name)  # the server knows names for its numbers
    user, group = _number(found.uid), _number(found.gid)
    if "n" not in flags:
        user, group = users.get(found.uid or 0) or user, groups.get(found.gid or 0) or group
    count = "?" if found.size is None else short_size(found.size) if "h" in flags else str(found.size)
    mode = "?---------" if found.mode is None else stat.filemode(found.mode)
    return f"{mode}    ? {shown(user):<8} {shown(group):<8} {count:>8} {_day(found, now)} {shown(entry.name)}"


def _number(number: int | None) -> str:
    return "?" if number is None else str(number)


def _day(found: Attributes, now: float) -> str:
    if found.mtime is None:
        return f"{'?':<12}"
    recent = now - _HALF_YEAR_SECONDS < found.mtime <= now + 86400
    return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(found.mtime))


def free_space(found: FileSystemStatus, *, human: bool, inodes: bool) -> list[str]:
    """What `df` prints; sizes in KiB."""
    if inodes:
        total, free, available = found.files, found.free_files, found.available_files
        names = ("Inodes", "Used", "Avail", "(root)")
    else:
        unit = 1024
        total, free, available = (
            count * found.fragment_bytes // unit for count in (found.blocks, found.free_blocks, found.available_blocks)
        )
        names = ("Size", "Used", "Avail", "(root)")
    used = max(0, total - free)
    percent = f"{min(100, used * 100 // total)}%" if total else "-"
    numbers = (total, used, available, free)
    told = [short_size(number * 1024) if human and not inodes else str(number) for number in numbers]
    head = "".join(f"{name:>13}" for name in names) + "    %Capacity"
    return [head, "".join(f"{number:>13}" for number in told) + f"{percent:>13}"]
