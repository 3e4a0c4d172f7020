"""What a process has in memory only because it has started, and can give back (Linux)."""

from __future__ import annotations

import sys
from contextlib import suppress

_MADV_DONTNEED = 4  # madvise(2)
_PAGES = "/proc/self/smaps"


def release_files() -> int:
    """Unmap what libraries have in memory of their files: what is used again comes back from the page cache.

    Loading a library touches most of it: of cryptography's, an idle server would keep 6 MB. What was written to, as
    the linker does, stays.

    Returns:
        How many bytes were let go of; 0 where there is no /proc, too.
    """
    if not sys.platform.startswith("linux"):
        return 0
    import ctypes

    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    released = 0
    with suppress(OSError):
        for start, end, resident in _unwritten():
            if madvise(start, end - start, _MADV_DONTNEED) == 0:
                released += resident
    return released


def _unwritten() -> list[tuple[int, int, int]]:
    """List the mappings of files of which no page was written to: where they begin and end, and what is in memory."""
    found = []
    start = end = resident = 0
    wanted = False
    with open(_PAGES, "rb") as file:
        for line in file:
            name, _, rest = line.partition(b" ")
            if not name.endswith(b":"):  # 7f52c0a00000-7f52c0b00000 r-xp 00001000 08:01 1234  /usr/lib/…
                permissions, _, _, inode, *_ = rest.split()
                first, _, last = name.partition(b"-")
                start, end = int(first, 16), int(last, 16)
                wanted = inode != b"0" and permissions in {b"r--p", b"r-xp"}
            elif name == b"Rss:":
                resident = 1024 * int(rest.split()[0])
            elif name in {b"Anonymous:", b"Swap:"} and rest.split()[0] != b"0":
                wanted = False
            elif name == b"VmFlags:" and wanted and resident:
                found.append((start, end, resident))
    return found
