"""What an operator may say about files that are served, and the file system that comes of it.

It is read where the server starts, goes as JSON to the process that serves a session, and becomes a file system there.
"""

from __future__ import annotations

import copy
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dunnart.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.sftp.files import FileSystem
    from dunnart.sftp.layers.observed import FileEvent

Options = TypeVar("Options", bound="FileOptions")

EVENTS = ("off", "changes", "all")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOCAL_URLS = ("file://", "local://")
_TOKEN = re.compile(r"%(.?)", re.DOTALL)


@dataclass(frozen=True)
class FileOptions:
    """Which files are served, and what may be done with them.

    Attributes:
        root: the folder that the client sees as "/", or a URL that fsspec knows, as s3://bucket/%u; empty: the system's
            own. %h is the user's home, %u the name, %U the number, %% a percent sign.
        storage: what the store of a URL needs, by fsspec's names, as key, secret and endpoint_url.
        start: the folder where the client begins, as it sees it; empty, or if it is not there: the home, or "/" where
            there is a root.
        account: the system's user who serves everybody, so that others than the system's users can log in; empty: who
            logged in.
        read_only: refuse everything that changes something.
        umask: of the files that are made, octal; empty: the server's.
        atomic: write uploads aside and give them their names when they are complete.
        quota_bytes: how much there may be below the root; 0: no bound.
        quota_files: how many files, folders and links there may be below the root; 0: no bound.
        allow_names: patterns of the names that files may get, as *.csv; none: all names.
        deny_names: patterns of the names that files may not get.
        largest_file_bytes: how large a file may become; 0: no bound.
        events: what the audit sinks are told of: off, changes, or all, downloads too.
        digest: with the SHA-256 of what was uploaded and downloaded, which costs time.
    """

    root: str = ""
    storage: Mapping[str, str] = field(default_factory=dict)
    start: str = ""
    account: str = ""
    read_only: bool = False
    umask: str = ""
    atomic: bool = False
    quota_bytes: int = 0
    quota_files: int = 0
    allow_names: tuple[str, ...] = ()
    deny_names: tuple[str, ...] = ()
    largest_file_bytes: int = 0
    events: str = "all"
    digest: bool = False

    def __post_init__(self) -> None:
        check_folder("root", self.root, url=True)
        check_folder("start", self.start)
        if self.root.startswith(_LOCAL_URLS):
            raise ValueError(f"root is {self.root!r}: write the folder itself, which nothing leads out of")
        if self.storage and not self.remote:
            raise ValueError("storage is for a root that is a URL")
        if self.umask and not re.fullmatch(r"0?[0-7]{1,3}", self.umask):
            raise ValueError(f"umask is {self.umask!r}, and no octal number to 777")
        for name in ("quota_bytes", "quota_files", "largest_file_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is less than 0")
        bound = "quota_bytes" if self.quota_bytes else "quota_files" if self.quota_files else ""
        if bound and not self.root:
            raise ValueError(f"{bound} is for what is below a root, and there is none")
        if self.events not in EVENTS:
            raise ValueError(f"events is {self.events!r}, and none of {', '.join(EVENTS)}")

    @property
    def remote(self) -> bool:
        """The root is a URL."""
        return _URL.match(self.root) is not None

    @property
    def modules(self) -> tuple[str, ...]:
        """What `files` needs besides `dunnart.sftp.local`, to be loaded while the process may still read it.

        A process with the rights of a user who may not enter the folder of Python's modules loads no more of them.
        """
        wanted = {
            "dunnart.sftp.fsspec_files": self.remote,
            "dunnart.sftp.layers.quota": self.quota_bytes or self.quota_files,
            "dunnart.sftp.layers.atomic": self.atomic,
            "dunnart.sftp.layers.name_filter": self.allow_names or self.deny_names or self.largest_file_bytes,
            "dunnart.sftp.layers.read_only": self.read_only,
            "hashlib": self.digest,
        }
        return tuple(module for module, there in wanted.items() if there)

    def filled(self, tokens: Mapping[str, str]) -> Self:
        """Give the options for one user; `tokens` has the home as "h", the name as "u" and the number as "U".

        Raises:
            PermissionError: the name could lead elsewhere.
        """
        root, start = filled_in(self.root, tokens), filled_in(self.start, tokens)
        return _with(copy.copy(self), {"root": root, "start": start})

    def to_json(self) -> dict[str, Any]:
        """Give what `from_json` takes."""
        return {each.name: getattr(self, each.name) for each in fields(FileOptions)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make it of what `to_json` gave."""
        lists: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return _with(cls(), {**values, **lists})

    def files(self, tell: Callable[[FileEvent], None], root: str | None = None) -> FileSystem:
        """Make the file system, in the process that serves it.

        Args:
            tell: takes the events.
            root: another folder than `self.root`.

        Raises:
            OSError: there is no such folder, or the store cannot be reached.
            ImportError: what the store needs is not installed.
            ValueError: there is no such kind of store.
        """
        files = self._inmost(self.root if root is None else root)
        if self.largest_file_bytes and not self.remote:  # below Atomic: it discards what is refused here
            from dunnart.sftp.layers.name_filter import NameFilter

            files = NameFilter(files, largest_file_bytes=self.largest_file_bytes)
        if self.quota_bytes or self.quota_files:
            from dunnart.sftp.layers.quota import Quota

            files = Quota(files, largest_bytes=self.quota_bytes or None, most_files=self.quota_files or None)
        if self.atomic and not self.remote:  # a store shows nothing but whole files anyway
            from dunnart.sftp.layers.atomic import Atomic

            files = Atomic(files)
        if self.allow_names or self.deny_names:
            from dunnart.sftp.layers.name_filter import NameFilter

            files = NameFilter(files, allow=self.allow_names, deny=self.deny_names)
        if self.read_only:
            from dunnart.sftp.layers.read_only import ReadOnly

            files = ReadOnly(files)
        if self.events != "off":
            from dunnart.sftp.layers.observed import Observed

            changes = self.events == "changes"
            files = Observed(files, _changes_to(tell) if changes else tell, digest=self.digest)
        return files

    def _inmost(self, root: str) -> FileSystem:
        start = self.start or ("/" if root else os.getcwd())
        if _URL.match(root):
            from dunnart.sftp.fsspec_files import FsspecFiles

            storage: dict[str, Any] = {name: _value(each) for name, each in self.storage.items()}
            if self.largest_file_bytes:
                storage["spool_bytes"] = self.largest_file_bytes
            stored = FsspecFiles.from_url(root, start=start, **storage)
            if self.start and not _is_folder(stored, start):
                return FsspecFiles.from_url(root, start="/", **storage)
            return stored
        from dunnart.sftp.local import LocalFiles

        files = LocalFiles(root or None, start=start)
        if self.start and not _is_folder(files, start):
            return LocalFiles(root or None, start="/" if root else os.getcwd())
        return files


def _with(options: Options, values: Mapping[str, Any]) -> Options:
    """Give options values that were seen to be good: a percent sign in a user's name is no token."""
    for name, value in values.items():
        object.__setattr__(options, name, value)
    return options


def _is_folder(files: FileSystem, path: str) -> bool:
    try:
        return stat.S_ISDIR(files.stat(os.fsencode(path), follow=True).st_mode)
    except OSError:
        return False


def _changes_to(tell: Callable[[FileEvent], None]) -> Callable[[FileEvent], None]:
    def tell_changes(event: FileEvent) -> None:
        if event.kind != "downloaded":
            tell(event)

    return tell_changes


def check_folder(name: str, folder: str, *, url: bool = False) -> None:
    """See that an option may name a folder.

    Raises:
        ValueError: it may not; says why.
    """
    for token in _TOKEN.findall(folder):
        if token not in {"%", "h", "u", "U"}:
            raise ValueError(f"{name} holds %{token}, which is none of %h, %u, %U and %%")
    if folder and not folder.startswith(("/", "%h")) and not (url and _URL.match(folder)):
        raise ValueError(f"{name} is {folder!r}, and no absolute path{' or URL' if url else ''}")


def filled_in(folder: str, tokens: Mapping[str, str]) -> str:
    """Fill the tokens in.

    Raises:
        PermissionError: the user's name or home could lead elsewhere.
    """
    if "u" in _TOKEN.findall(folder):
        name = tokens["u"]
        # In a URL further signs have a meaning: "::" even names another store.
        good = re.fullmatch(r"[\w.@+-]+", name) if _URL.match(folder) else name and not {"/", "\0"} & set(name)
        if not good or name in {".", ".."}:
            raise PermissionError(f"{name!r} cannot be a part of a path")
    filled = _TOKEN.sub(lambda found: tokens.get(found[1], "%"), folder)
    if folder and not (filled.startswith("/") or _URL.match(filled)):
        raise PermissionError(f"{filled!r} is no absolute path")
    return filled


def _value(text: str) -> str | bool:
    return text == "true" if text in {"true", "false"} else text
