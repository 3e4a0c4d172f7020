"""`dunnart sftp`: files at a server, for a person or a batch of commands. Flags and commands are OpenSSH's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.tools.terminal import failure, shown
from dunnart.tools.transfer import flags
from dunnart.tools.transfer.destinations import Place, destination

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunnart.client.sftp import Sftp
    from dunnart.tools.sftp.shell import SftpShell
    from dunnart.tools.transfer.flags import TransferFlags
    from dunnart.tools.transfer.foreground import Foreground

USAGE = """\
usage: dunnart sftp [-46aCfNpqrv] [-B bytes] [-b batchfile] [-c cipher] [-D server_command] [-F ssh_config]
                    [-i key] [-J jump] [-l kbit/s] [-o option] [-P port] [-R requests] [-S program]
                    [-s subsystem] [user@]host[:path] [local]
       dunnart sftp ... sftp://[user@]host[:port][/path] [local]

Without a path, or with the path of a directory, it takes commands (help lists them); with the path of a file it
fetches that.

  -4, -6  one kind of address only            -N  say and show what is done, also in a batch
  -a      resume transfers                    -o  an option of ssh_config; of dunnart's client: see the documentation
  -B      bytes for each request              -P  the port
  -b      commands from a file, - for stdin   -p  keep times and modes
  -C      compress                            -q  say and show little
  -D      speak to a server's program here    -R  so many requests at once (64)
  -f      have files on the disk at once      -r  directories too
  -i      a private key                       -S  an ssh program to connect with, such as ssh
  -l      at most so many kbit/s              -s  another subsystem, or the path of a program at the host
  -v      tell what goes on                   -c, -F: for the ssh program
  -J      go through another host
"""
PROMPT = "sftp> "


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status: 0, 1 for a command that failed, 255 if there is no way to the server."""
    return flags.run("sftp", USAGE, "46aB:b:Cc:D:F:fi:J:l:No:P:pqR:rS:s:v", arguments, _places, _connected)


def _places(given: TransferFlags) -> tuple[Place, str]:
    rest = ["", *given.rest] if given.connection.direct else given.rest
    if not 1 <= len(rest) <= 2:
        raise ConfigError("a host is wanted, and perhaps a local path")
    where = Place(None, "") if given.connection.direct else destination(rest[0])
    return where, rest[1] if len(rest) > 1 else ""


def _connected(front: Foreground, given: TransferFlags, places: tuple[Place, str]) -> int:
    from dunnart.client.sftp import Sftp
    from dunnart.tools.transfer.connections import connect

    where, local = places
    connection = front.call(connect(given.connection, where.host, front))
    try:
        stream = front.call(connection.sftp())
        sftp = front.call(Sftp.begin(stream, requests=given.requests, chunk_bytes=given.chunk_bytes))
        try:
            return _work(front, sftp, given, where.path, local)
        finally:
            front.call(sftp.close())
    finally:
        front.call(connection.close())


def _work(front: Foreground, sftp: Sftp, given: TransferFlags, path: str, local: str) -> int:
    from dunnart.tools.sftp.shell import SftpShell
    from dunnart.tools.sftp.words import escaped, escaped_word
    from dunnart.tools.transfer.progress import Progress

    batch = given.value("b")
    quiet = "q" in given or (batch is not None and "N" not in given)
    always = "".join(flag for flag in "afpr" if flag in given)
    shell = SftpShell(front, sftp, Progress(quiet=quiet), always=always, quiet="q" in given)
    if path:
        if not shell.is_directory(path) or local:
            target = f" {escaped_word(local)}" if local else ""
            return 0 if shell.run(f"get {escaped_word(path)}{target}") else 1
        if not shell.run(f"cd {escaped_word(escaped(path))}"):
            return 1
    if batch is not None:
        return _batch(shell, batch)
    return _talk(shell) if sys.stdin.isatty() else _all(shell, sys.stdin, stop=False)


def _batch(shell: SftpShell, path: str) -> int:
    if path == "-":
        return _all(shell, sys.stdin, stop=True)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            return _all(shell, lines, stop=True)
    except OSError as error:
        print(f"dunnart sftp: {failure(error)}", file=sys.stderr)
        return 1


def _all(shell: SftpShell, lines: Iterator[str], *, stop: bool) -> int:
    from dunnart.tools.sftp.shell import Leave

    if lines is sys.stdin:
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[attr-defined] # names need not be UTF-8
    for line in lines:
        text = line.strip()
        if "@" not in text[: len(text) - len(text.lstrip("-@ "))]:
            print(f"{PROMPT}{shown(text)}", flush=True)
        try:
            if not shell.run(text) and stop:
                return 1
        except Leave:
            break
        sys.stdout.flush()
    return 0


def _talk(shell: SftpShell) -> int:
    """Take lines from the terminal, with editing, history and completion."""
    from dunnart.tools.sftp.shell import Leave

    try:
        import readline
    except ImportError:  # a Python without it
        readline = None  # type: ignore[assignment]
    if readline is not None:
        found: list[str] = []

        def complete(text: str, state: int) -> str | None:
            if state == 0:
                found[:] = shell.completions(readline.get_line_buffer()[: readline.get_endidx()], text)
            return found[state] if state < len(found) else None

        readline.set_completer_delims(" \t\n")
        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")
    while True:
        try:
            shell.run(input(PROMPT))
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return 0
        except Leave:
            return 0
