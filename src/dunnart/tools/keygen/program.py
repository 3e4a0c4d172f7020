"""`dunnart keygen`: what a command line asks for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dunnart.errors import DunnartError
from dunnart.tools.keygen.flags import USAGE, Flags, KeygenError, UsageError
from dunnart.tools.terminal import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

_FATAL = 255
_BOTH = (("p", "c"), ("l", "H"), ("l", "R"), ("k", "Q"), ("e", "i"), ("s", "Q"))


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status: 0; 1 for a wrong command line and for "no"; 255 if something cannot be done."""
    if "--help" in arguments:
        print(USAGE, end="")
        return 0
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # what a terminal cannot show
    try:
        return _run(Flags(arguments))
    except UsageError as error:
        print(f"dunnart keygen: {shown(str(error))}\n{USAGE}", end="", file=sys.stderr)
        return 1
    except (KeygenError, DunnartError) as error:
        from dunnart.tools.keygen.hosts import InvalidFile

        print(f"dunnart keygen: {shown(str(error))}", file=sys.stderr)
        return 1 if isinstance(error, InvalidFile) else _FATAL


def _run(flags: Flags) -> int:
    for one, other in _BOTH:
        if one in flags and other in flags and not ("F" in flags and one == "l"):
            raise UsageError(f"-{one} and -{other} do not go together")
    signs = "s" in flags and "k" not in flags
    if signs and not flags.rest:
        raise UsageError("which keys are to be signed?")
    if flags.rest and not signs and not {"k", "Q"} & {flag for flag in "kQ" if flag in flags}:
        raise UsageError(f"what is {flags.rest[0]!r} for? Files are named with -f")
    if "k" in flags or "Q" in flags:
        from dunnart.tools.keygen import revoked

        return revoked.make(flags) if "k" in flags else revoked.query(flags)
    if signs or "L" in flags:
        from dunnart.tools.keygen import certificates

        return certificates.sign(flags) if signs else certificates.show(flags)
    if "F" in flags or "R" in flags or "H" in flags:
        from dunnart.tools.keygen import hosts

        return hosts.find(flags) if "F" in flags else hosts.remove(flags) if "R" in flags else hosts.hash_names(flags)
    return _run_for_pairs(flags)


def _run_for_pairs(flags: Flags) -> int:
    if "l" in flags or "B" in flags:
        from dunnart.tools.keygen import fingerprints

        return fingerprints.show(flags)
    from dunnart.tools.keygen import making

    for flag, action in (
        ("p", making.change_passphrase), ("c", making.change_comment), ("e", making.export), ("i", making.import_),
        ("y", making.show_public),
    ):  # fmt: skip
        if flag in flags:
            return action(flags)
    return making.make(flags)
