"""What `dunnart.pyz` begins with: it unpacks itself once, since libraries cannot be loaded from an archive.

The folder is $DUNNART_CACHE, for root /var/cache/dunnart, else $XDG_CACHE_HOME/dunnart or ~/.cache/dunnart; in it each
build has one of its own. Where none can be made, as on a disk that is read-only, it is a temporary one for each start.
Little is imported here, since it would stay in a server's memory.
"""

from __future__ import annotations

import os
import sys

BUILD = "@BUILD@"
"""Of the archive's content; the builder fills it in."""


def base_folder() -> str:
    """Give the folder that the builds' own folders are in."""
    if given := os.environ.get("DUNNART_CACHE"):
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/var/cache/dunnart"
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = configured if os.path.isabs(configured) else os.path.expanduser("~/.cache")
    return os.path.join(base, "dunnart")


def is_safe(folder: str) -> bool:
    """Whether nobody else can put code there."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return found.st_uid in {0, os.geteuid()} and found.st_mode & 0o170022 == 0o040000


def unpacked() -> str:
    """Give the folder with the packages."""
    base = base_folder()
    folder = os.path.join(base, BUILD)
    if is_safe(base) and is_safe(folder):
        return folder
    before = os.umask(0o022)  # others shall read it: a server's processes are not all one user's
    try:
        os.makedirs(base, exist_ok=True)
        if is_safe(base):
            return unpack(base, folder)
        print(f"dunnart: {base} can be written by others: not used", file=sys.stderr)
    except OSError:
        pass
    finally:
        os.umask(before)
    return temporary()


def unpack(base: str, folder: str) -> str:
    """Unpack into a folder that appears with all its files; another start may do the same at the same time."""
    aside = os.path.join(base, f".{BUILD}.{os.getpid()}")
    try:
        extract(aside)
        os.rename(aside, folder)
    except OSError:  # another one was first, or the disk is full
        remove(aside)
        if not is_safe(folder):
            raise
    return folder


def temporary() -> str:
    """Unpack for this start alone."""
    import atexit
    import tempfile

    folder = tempfile.mkdtemp(prefix="dunnart-")
    number = os.getpid()
    atexit.register(lambda: remove(folder) if os.getpid() == number else None)
    before = os.umask(0o022)
    try:
        os.chmod(folder, 0o755)  # noqa: S103 - likewise
        extract(folder)
    finally:
        os.umask(before)
    return folder


def extract(folder: str) -> None:
    """Unpack the archive in this archive."""
    import io
    import zipfile

    with zipfile.ZipFile(os.path.abspath(sys.path[0])) as outer:
        inner = io.BytesIO(outer.read("packages.zip"))
    with zipfile.ZipFile(inner) as packages:
        packages.extractall(folder)


def remove(folder: str) -> None:
    """Remove a folder with all in it."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the program."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what an older one meets
        sys.exit(f"dunnart needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}")
    sys.path[0] = unpacked()
    try:
        from dunnart.tools.main import main as run
    except ImportError as error:
        sys.exit(f"dunnart: this file is for other machines or versions of Python than {sys.executable}: {error}")
    sys.exit(run())


main()
