"""`dunnart ssh`: a shell or a command at another machine, and forwarded connections. Flags are OpenSSH's."""

from __future__ import annotations

import getopt
import sys
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.tools.terminal import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from dunnart.tools.ssh.flags import Wishes

FAILED = 255


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status: the command's, or 255 for everything that goes wrong on this side."""
    from dunnart.tools.ssh.flags import USAGE, parse

    if arguments and arguments[0] in {"-h", "--help"}:
        print(USAGE, end="")
        return 0
    if arguments and arguments[0] == "-V":
        from dunnart.tools.main import version

        print(f"dunnart {version()}", file=sys.stderr)
        return 0
    return run_by(parse, arguments, "dunnart ssh", FAILED)


def run_by(parse: Callable[[Sequence[str]], Wishes], arguments: Sequence[str], name: str, failed: int) -> int:
    """Run by a command line that `parse` reads.

    Args:
        parse: reads it.
        arguments: the command line.
        name: the program's.
        failed: the exit status when something goes wrong on this side.
    """
    # asyncio loads OpenSSL's TLS half if it can, which SSH has no use for; None makes that import fail, as it may.
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment] # None is allowed at run time
    if "asyncio" not in modules:
        modules.setdefault("ssl", None)
    try:
        wishes = parse(arguments)
        if wishes.query:
            from dunnart.tools.ssh.showing import names

            print("\n".join(names(wishes.query)))
            return 0
        from dunnart.tools.ssh.reading import read_options

        given = [
            *wishes.given,
            *([("RequestTTY", "force" if wishes.terminals > 1 else "yes")] * bool(wishes.terminals)),
        ]
        wishes.given = given
        options = read_options(wishes.host, given, wishes.file)
        if wishes.show:
            from dunnart.tools.ssh.showing import lines

            print("\n".join(lines(options)))
            return 0
        from dunnart.tools.ssh.running import run_with

        return run_with(wishes, options, name, failed)
    except (ConfigError, getopt.GetoptError) as error:
        print(f"{name}: {shown(str(error))}", file=sys.stderr)
        return failed
