"""The flags that `dunnart sftp` and `dunnart scp` have in common, and how both programs begin and end."""

from __future__ import annotations

import getopt
import sys
from typing import TYPE_CHECKING, TypeVar

from dunnart.errors import ConfigError, DunnartError
from dunnart.sftp.messages import DATA_BYTES
from dunnart.tools.ssh.configuration import option
from dunnart.tools.terminal import failure, shown
from dunnart.tools.transfer.connections import ConnectionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dunnart.tools.transfer.foreground import Foreground

_T = TypeVar("_T")

_DIGITS = 9


def run(
    program: str, usage: str, known: str, arguments: Sequence[str], prepare: Callable[[TransferFlags], _T],
    work: Callable[[Foreground, TransferFlags, _T], int],
) -> int:  # fmt: skip
    """Run a program that transfers files.

    Args:
        program: its name.
        usage: what --help prints.
        known: its flags, as `getopt` wants them.
        arguments: the command line.
        prepare: makes what `work` needs of the flags; a ConfigError is a wrong command line.
        work: does all; gives the exit status.

    Returns:
        The exit status: that of `work`, 1 for a wrong command line or a file that fails, 255 if there is no way to a
        server.
    """
    from dunnart.tools.transfer.foreground import Foreground

    if "--help" in arguments or "-h" in arguments:
        print(usage, end="")
        return 0
    try:
        flags = TransferFlags(arguments, known)
        prepared = prepare(flags)
    except (ConfigError, getopt.GetoptError) as error:
        print(f"dunnart {program}: {error}; dunnart {program} --help tells more", file=sys.stderr)
        return 1
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # what a terminal cannot show
    with Foreground() as front:
        try:
            return work(front, flags, prepared)
        except DunnartError as error:
            print(f"dunnart {program}: {shown(str(error))}", file=sys.stderr)
            return 255
        except OSError as error:
            print(f"dunnart {program}: {failure(error)}", file=sys.stderr)
            return 1


class TransferFlags:
    """A command line that was read.

    Args:
        arguments: the command line.
        known: its flags, as `getopt` wants them.

    Raises:
        getopt.GetoptError: there is no such flag, or its value is missing.
        ConfigError: a value is wrong.

    Attributes:
        rest: what is no flag.
        connection: what was said about connections.
        requests: how many requests may be outstanding.
        chunk_bytes: how much one request reads or writes; 0: what the server likes.
    """

    def __init__(self, arguments: Sequence[str], known: str) -> None:
        given, self.rest = getopt.getopt(list(arguments), known)
        self._given = [(flag[1:], value) for flag, value in given]
        batch = "b" in self or ("B" in self and "B:" not in known)
        self.connection = ConnectionOptions(
            program=self.value("S") or "",
            direct=self.value("D") or "",
            subsystem=self.value("s") or "sftp",
            port=self.number("P", 0, largest=65535) or None,
            family="inet" if "4" in self else "inet6" if "6" in self else "any",
            identities=self._values("i"),
            options=[
                ("Ciphers", value) if flag == "c" else option(value) for flag, value in self._given if flag in "co"
            ],
            file=self.value("F"),
            jump=self.value("J") or "",
            compress="C" in self,
            batch=batch,
            verbose=sum(flag == "v" for flag, _ in self._given),
            quiet="q" in self,
            kilobits=self.number("l", 0),
        )
        self.requests = self.number("R", 64, largest=10_000)
        self.chunk_bytes = self.number("B", 0, largest=DATA_BYTES) if "B:" in known else 0
        if "A" in self:
            self.connection.passed.append("-A")
        if self.connection.verbose and not self.connection.program:
            import logging

            logging.basicConfig(format="%(name)s: %(message)s", level=logging.DEBUG)

    def __contains__(self, flag: str) -> bool:
        return any(name == flag for name, _ in self._given)

    def _values(self, flag: str) -> list[str]:
        return [value for name, value in self._given if name == flag]

    def value(self, flag: str) -> str | None:
        """The value that was given last, or None."""
        values = self._values(flag)
        return values[-1] if values else None

    def number(self, flag: str, default: int, largest: int = 10**_DIGITS) -> int:
        """The same as a number from 1 to `largest`; `default` if the flag is not given."""
        text = self.value(flag)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS or not 1 <= int(text) <= largest:
            raise ConfigError(f"-{flag} wants a number from 1 to {largest}, not {text!r}")
        return int(text)
