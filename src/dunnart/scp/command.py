"""The command that an SCP client asks the server to execute: `scp -t TARGET` or `scp -f SOURCE...`."""

from __future__ import annotations

import shlex

from dunnart.records import dataclass

_FLAGS = frozenset("tfrpdvq")


@dataclass(frozen=True, slots=True)
class ScpCommand:
    """What is asked for.

    Attributes:
        paths: sources, or the one target.
        sink: files come from the client (-t); else they go to it (-f).
        recursive: directories too (-r).
        preserve: times and modes too (-p).
        directory: the target must be a directory (-d).
    """

    paths: tuple[bytes, ...]
    sink: bool
    recursive: bool = False
    preserve: bool = False
    directory: bool = False

    @classmethod
    def parse(cls, command: bytes) -> ScpCommand:
        """Read a command line as a shell would split it; nothing else of a shell's is done.

        Raises:
            ValueError: it is no such command; says why.
        """
        # Byte for byte, for names need not be UTF-8.
        words = [word.encode("latin-1") for word in shlex.split(command.decode("latin-1"))]
        if not words or words[0].rpartition(b"/")[2] != b"scp":
            raise ValueError("only scp is served here")
        flags, paths = set(), words[1:]
        while paths and paths[0].startswith(b"-") and len(paths[0]) > 1:
            word = paths.pop(0)
            if word == b"--":
                break
            flags |= set(word[1:].decode("latin-1"))
        if not flags <= _FLAGS:
            raise ValueError(f"scp has no flag -{min(flags - _FLAGS)} here")
        if len(flags & {"t", "f"}) != 1:
            raise ValueError("scp wants one of -t and -f")
        if not paths or ("t" in flags and len(paths) > 1):
            raise ValueError("scp -t wants one path, and scp -f one or more")
        return cls(tuple(paths), "t" in flags, "r" in flags, "p" in flags, "d" in flags)
