"""The commands of `dunnart sftp`, which are those of OpenSSH's."""

from __future__ import annotations

import errno
import getopt
import glob
import os
import posixpath
import sys
from typing import TYPE_CHECKING, NoReturn

from dunnart.client.globbing import for_fnmatch, has_magic, unescaped
from dunnart.errors import DunnartError, LimitExceeded
from dunnart.sftp.attributes import Attributes
from dunnart.tools.sftp import listing
from dunnart.tools.sftp.words import escaped, escaped_word, split
from dunnart.tools.terminal import failure, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, ClassVar

    from dunnart.client.sftp import Sftp
    from dunnart.tools.transfer.foreground import Foreground
    from dunnart.tools.transfer.progress import Progress

HELP = """\
bye, exit, quit                    leave
cd [path]                          change the remote directory, to where the session began without one
chgrp [-h] number path             change the group; -h: of a link itself
chmod [-h] mode path               change permissions, such as 644
chown [-h] number path             change the owner
copy|cp old new                    copy a file at the server
df [-hi] [path]                    how full the file system is; -i: how many files there may be
get [-afpR] remote [local]         fetch: -a resume, -f see it on the disk, -p keep times and modes, -R directories too
put [-afpR] local [remote]         send; likewise
reget, reput                       the same with -a
help, ?                            this
lcd [path], lpwd, lmkdir path      local directory: change, show, make
lls [flags] [path]                 list a local directory
lumask mask                        set the local umask
ln [-s] old new                    link; -s: symbolically
ls [-1afhlnrSt] [path]             list: -1 one a line, -a hidden ones too, -f unsorted, -h short sizes, -l long,
                                   -n with numbers, -r reversed, -S by size, -t by time
mkdir path, rmdir path             make or remove a directory
progress                           switch the progress line on or off
pwd                                show the remote directory
rename old new                     rename
rm path                            remove a file
symlink old new                    as ln -s
version                            the protocol's version and the server's extensions
!command, !                        run a command, or a shell, here

Names take *, ? and [...]. Quotes and backslashes take their meaning away. A command behind - may fail in a batch,
one behind @ is not shown.
"""


class CommandFailed(Exception):
    """A command could not be done; says why."""


class Leave(Exception):
    """The person wants to leave."""


class SftpShell:
    """Runs commands, one a line.

    Args:
        front: where coroutines run.
        sftp: the session.
        progress: shows transfers, and takes complaints.
        always: flags that every get and put has: some of "a", "f", "p" and "r".
        quiet: do not say what is done.

    Attributes:
        start: the remote directory where the session began.
        here: the remote directory now.
    """

    def __init__(
        self, front: Foreground, sftp: Sftp, progress: Progress, *, always: str = "", quiet: bool = False
    ) -> None:
        self._front = front
        self._sftp = sftp
        self._progress = progress
        self._always = always
        self._quiet = quiet
        self._complain = progress.complain
        self.start = front.call(sftp.realpath("."))
        self.here = self.start

    # Lines.

    def run(self, line: str) -> bool:
        """Do what a line says; False if it failed and may not.

        Raises:
            Leave: it says so.
            DunnartError: the session is over.
        """
        line = line.strip()
        may_fail = False
        while line[:1] in {"-", "@"} and len(line) > 1:
            may_fail |= line[0] == "-"
            line = line[1:].lstrip()
        try:
            self._do(line)
        except (CommandFailed, ValueError) as error:
            self._complain(str(error))
        except OSError as error:
            self._complain(failure(error))
        except LimitExceeded as error:
            if self._sftp.closed:
                raise
            self._complain(str(error))
        else:
            return True
        return may_fail

    def _do(self, line: str) -> None:
        if line.startswith("!"):
            self._local_shell(line[1:].strip())
            return
        words = split(line)
        if not words:
            return
        name = words[0].lower()
        command = self._commands.get(name)
        if command is None:
            self._fail(f"there is no command {shown(words[0])}; help lists them")
        command(self, words[1:])

    @staticmethod
    def _fail(text: str) -> NoReturn:
        raise CommandFailed(text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text)

    def _arguments(self, words: list[str], flags: str, least: int, most: int) -> tuple[str, list[str]]:
        try:
            given, rest = getopt.getopt(words, flags)
        except getopt.GetoptError as error:
            self._fail(f"{shown(str(error))}; help tells more")
        if not least <= len(rest) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            self._fail(f"{wanted} names are wanted, and {len(rest)} are here; help tells more")
        return "".join(flag[1] for flag, _ in given), rest

    # Paths.

    def _path(self, word: str) -> str:
        """The absolute remote path that a word means."""
        return posixpath.join(self.here, unescaped(word))

    def _matches(self, word: str) -> list[str]:
        pattern = word if word.startswith("/") else posixpath.join(escaped(self.here), word)
        if not has_magic(word):
            return [unescaped(pattern)]
        found = self._front.call(self._sftp.glob(pattern))
        if not found:
            self._fail(f"{shown(unescaped(word))}: nothing matches")
        return found

    @staticmethod
    def _local_matches(word: str) -> list[str]:
        if not has_magic(word):
            return [unescaped(word)]
        found = sorted(glob.glob(for_fnmatch(word)))
        if not found:
            raise CommandFailed(f"{shown(unescaped(word))}: nothing matches")
        return found

    # Transfers.

    def _get(self, words: list[str], flags: str = "") -> None:
        given, names = self._arguments(words, "afpPrR", 1, 2)
        target = unescaped(names[1]) if len(names) > 1 else "."
        sources = self._matches(names[0])
        self._transfer(sources, target, "Fetching", flags + given, self._sftp.get, into=os.path.isdir(target))

    def _put(self, words: list[str], flags: str = "") -> None:
        given, names = self._arguments(words, "afpPrR", 1, 2)
        target = self._path(names[1]) if len(names) > 1 else self.here
        sources = self._local_matches(names[0])
        self._transfer(sources, target, "Uploading", flags + given, self._sftp.put, into=self.is_directory(target))

    def _transfer(
        self, sources: list[str], target: str, doing: str, flags: str, copy: Callable[..., Coroutine[Any, Any, None]],
        *, into: bool,
    ) -> None:  # fmt: skip
        """Copy to `target`, or into it if it is a directory."""
        if len(sources) > 1 and not into:
            self._fail(f"{shown(target)} is no directory, and several files match")
        flags = (flags + self._always).lower()
        how = {"recursive": "r" in flags, "preserve": "p" in flags, "resume": "a" in flags, "sync": "f" in flags}
        self._progress.failures = 0
        for source in sources:
            self._say(f"{doing} {shown(source)} to {shown(_below(target, source) if into else target)}")
            try:
                self._front.call(copy(source, target, watch=self._progress, **how))
            except OSError as error:
                self._progress.failed(source, error)
            finally:
                self._progress.interrupted()
        if self._progress.failures:
            self._fail(f"{self._progress.failures} of the files could not be copied")

    def _reget(self, words: list[str]) -> None:
        self._get(words, "a")

    def _reput(self, words: list[str]) -> None:
        self._put(words, "a")

    # Remote files.

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory at the server."""
        try:
            return self._front.call(self._sftp.stat(path)).is_directory
        except FileNotFoundError:
            return False

    def _cd(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 0, 1)
        path = self._front.call(self._sftp.realpath(self._path(names[0]) if names else self.start))
        found = self._front.call(self._sftp.stat(path))
        if found.mode is not None and not found.is_directory:
            self._fail(f"{shown(path)} is no directory")
        self.here = path

    def _pwd(self, words: list[str]) -> None:
        self._arguments(words, "", 0, 0)
        print(f"Remote working directory: {shown(self.here)}")

    def _ls(self, words: list[str]) -> None:
        from dunnart.client.sftp import Entry

        flags, names = self._arguments(words, "1afhlnrSt", 0, 1)
        paths = self._matches(names[0]) if names else [self.here]
        if len(paths) == 1 and self.is_directory(paths[0]):
            entries = self._front.call(self._sftp.entries(paths[0]))
            for name in (".", "..") if "a" in flags else ():
                entries.append(Entry(name, "", self._front.call(self._sftp.lstat(posixpath.join(paths[0], name)))))
        else:
            flags += "a"  # what is named is meant
            entries = []
            for path in paths:
                told = path
                if not (names and names[0].startswith("/")):
                    told = path.removeprefix(self.here.rstrip("/") + "/")
                entries.append(Entry(told, "", self._front.call(self._sftp.lstat(path))))
        entries = listing.arranged(entries, flags)
        users: dict[int, str] = {}
        groups: dict[int, str] = {}
        if "l" in flags and "n" not in flags:
            users, groups = self._names_of([entry.attributes for entry in entries])
        for line in listing.lines(entries, flags, users, groups):
            print(line)

    def _names_of(self, found: list[Attributes]) -> tuple[dict[int, str], dict[int, str]]:
        if "users-groups-by-id@openssh.com" not in self._sftp.extensions:
            return {}, {}
        users = sorted({each.uid for each in found if each.uid is not None})[:1000]
        groups = sorted({each.gid for each in found if each.gid is not None})[:1000]

        async def ask() -> tuple[tuple[str, ...], tuple[str, ...]]:
            return await self._sftp.result(self._sftp.core.names_of_numbers(tuple(users), tuple(groups)))

        names = self._front.call(ask())
        return (
            {number: name or str(number) for number, name in zip(users, names[0], strict=True)},
            {number: name or str(number) for number, name in zip(groups, names[1], strict=True)},
        )

    def _df(self, words: list[str]) -> None:
        flags, names = self._arguments(words, "hi", 0, 1)
        found = self._front.call(self._sftp.statvfs(self._path(names[0]) if names else self.here))
        for line in listing.free_space(found, human="h" in flags, inodes="i" in flags):
            print(line)

    def _mkdir(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 1, 1)
        self._front.call(self._sftp.mkdir(self._path(names[0]), 0o777))

    def _rmdir(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 1, 1)
        self._front.call(self._sftp.rmdir(self._path(names[0])))

    def _rm(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 1, 1)
        self._each(names[0], "Removing", lambda path: self._front.call(self._sftp.remove(path)))

    def _each(self, word: str, doing: str, act: Callable[[str], None]) -> None:
        failures = 0
        for path in self._matches(word):
            self._say(f"{doing} {shown(path)}")
            try:
                act(path)
            except OSError as error:
                failures += 1
                self._complain(failure(error))
        if failures:
            self._fail(f"{failures} could not be done")

    def _rename(self, words: list[str]) -> None:
        flags, names = self._arguments(words, "l", 2, 2)
        old, new = map(self._path, names)
        replacing = "l" not in flags and "posix-rename@openssh.com" in self._sftp.extensions
        self._front.call((self._sftp.posix_rename if replacing else self._sftp.rename)(old, new))

    def _ln(self, words: list[str]) -> None:
        flags, names = self._arguments(words, "s", 2, 2)
        if "s" in flags:
            self._front.call(self._sftp.symlink(unescaped(names[0]), self._path(names[1])))
        else:
            self._front.call(self._sftp.link(self._path(names[0]), self._path(names[1])))

    def _symlink(self, words: list[str]) -> None:
        self._ln(["-s", *words])

    def _cp(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 2, 2)
        self._front.call(self._sftp.copy(self._path(names[0]), self._path(names[1])))

    def _number(self, word: str) -> int:
        if not (word.isascii() and word.isdecimal()) or len(word) > 10 or int(word) > 0xFFFFFFFF:
            self._fail(f"{shown(word)} is no number up to 4294967295; names of users and groups are not known here")
        return int(word)

    def _mode(self, word: str) -> int:
        if not word or set(word) - set("01234567") or len(word) > 10:
            self._fail(f"{shown(word)} is no octal mode, such as 644")
        return int(word, 8)

    def _chmod(self, words: list[str]) -> None:
        flags, names = self._arguments(words, "h", 2, 2)
        mode = self._mode(names[0])
        self._change(names[1], "Changing mode of", flags, lambda _: Attributes(mode=mode & 0o7777))

    def _chown(self, words: list[str]) -> None:
        flags, names = self._arguments(words, "h", 2, 2)
        uid = self._number(names[0])
        self._change(
            names[1], "Changing owner of", flags, lambda found: Attributes(uid=uid, gid=self._known(found.gid))
        )

    def _chgrp(self, words: list[str]) -> None:
        flags, names = self._arguments(words, "h", 2, 2)
        gid = self._number(names[0])
        self._change(
            names[1], "Changing group of", flags, lambda found: Attributes(uid=self._known(found.uid), gid=gid)
        )

    @staticmethod
    def _known(owner: int | None) -> int:
        if owner is None:  # they are only set together
            raise OSError(errno.EOPNOTSUPP, "the server tells no owners")
        return owner

    def _change(self, word: str, doing: str, flags: str, wanted: Callable[[Attributes], Attributes]) -> None:
        follow = "h" not in flags

        def act(path: str) -> None:
            found = self._front.call(self._sftp.stat(path) if follow else self._sftp.lstat(path))
            self._front.call(self._sftp.set(path, wanted(found), follow=follow))

        self._each(word, doing, act)

    def _version(self, words: list[str]) -> None:
        self._arguments(words, "", 0, 0)
        print("SFTP protocol version 3")
        print("Extensions:", " ".join(sorted(self._sftp.extensions)) or "none")

    # Here.

    def _lcd(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 0, 1)
        os.chdir(os.path.expanduser(unescaped(names[0]) if names else "~"))

    def _lpwd(self, words: list[str]) -> None:
        self._arguments(words, "", 0, 0)
        print(f"Local working directory: {shown(os.getcwd())}")

    def _lmkdir(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 1, 1)
        os.mkdir(unescaped(names[0]))

    def _lls(self, words: list[str]) -> None:
        self._run_here(["ls", *(path for word in words for path in self._local_matches(word))])

    def _lumask(self, words: list[str]) -> None:
        _, names = self._arguments(words, "", 1, 1)
        mask = self._mode(names[0]) & 0o777
        os.umask(mask)
        self._say(f"Local umask: {mask:03o}")

    def _local_shell(self, command: str) -> None:
        shell = os.environ.get("SHELL") or "/bin/sh"
        self._run_here([shell, "-c", command] if command else [shell])

    def _run_here(self, command: list[str]) -> None:
        import subprocess

        sys.stdout.flush()
        status = subprocess.run(command, check=False).returncode
        if status:
            self._fail(f"{command[0]} ended with status {status}")

    def _switch_progress(self, words: list[str]) -> None:
        self._arguments(words, "", 0, 0)
        self._progress.visible = not self._progress.visible
        self._say(f"Progress line {'on' if self._progress.visible else 'off'}")

    def _help(self, words: list[str]) -> None:
        self._arguments(words, "", 0, 1)
        print(HELP, end="")

    def _leave(self, _: list[str]) -> None:
        raise Leave

    _commands: ClassVar[dict[str, Callable[[SftpShell, list[str]], None]]] = {
        "bye": _leave, "exit": _leave, "quit": _leave, "cd": _cd, "chdir": _cd, "chgrp": _chgrp, "chmod": _chmod,
        "chown": _chown, "copy": _cp, "cp": _cp, "df": _df, "get": _get, "mget": _get, "put": _put, "mput": _put,
        "reget": _reget, "reput": _reput, "help": _help, "?": _help, "lcd": _lcd, "lchdir": _lcd, "lpwd": _lpwd,
        "lmkdir": _lmkdir, "lls": _lls, "lumask": _lumask, "ln": _ln, "ls": _ls, "dir": _ls, "mkdir": _mkdir,
        "rmdir": _rmdir, "progress": _switch_progress, "pwd": _pwd, "rename": _rename, "rm": _rm, "delete": _rm,
        "symlink": _symlink, "version": _version,
    }  # fmt: skip

    # Completion.

    _LOCAL = frozenset(("lcd", "lchdir", "lls", "lmkdir", "put", "mput", "reput"))

    def completions(self, line: str, text: str) -> list[str]:
        """What may stand for the word that is being typed, `text`, in the line before the cursor."""
        before = line[: len(line) - len(text)].lstrip("-@ ")
        if not before.strip():
            return [name + " " for name in sorted(self._commands) if name.startswith(text)]
        command, *rest = before.split()
        count = sum(not word.startswith("-") for word in rest)
        local = (command in self._LOCAL and count == 0) or (command in {"get", "mget", "reget"} and count == 1)
        folder, slash, head = text.rpartition("/")
        try:
            if local:
                with os.scandir(folder + slash or ".") as entries:
                    names = [(entry.name, entry.is_dir()) for entry in entries]
            else:
                where = posixpath.join(self.here, unescaped(folder + slash))
                found = self._front.call(self._sftp.entries(where))
                names = [(entry.name, entry.attributes.is_directory) for entry in found]
        except (OSError, DunnartError):
            return []
        return [
            folder + slash + escaped_word(escaped(name)) + ("/" if is_folder else " ")
            for name, is_folder in sorted(names)
            if name.startswith(unescaped(head)) and name.isprintable() and (head or not name.startswith("."))
        ]


def _below(folder: str, source: str) -> str:
    """Tell where in a directory a copy of `source` comes to stand, as people write it."""
    name = source.rstrip("/").rpartition("/")[2]
    if name in {"", ".", ".."}:  # what is in it comes there
        return folder
    return name if folder == "." else posixpath.join(folder, name)
