"""`dunnart sftp-server`: SFTP on standard input and output, in the place of OpenSSH's program of that name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

USAGE = """\
usage: dunnart sftp-server [-R] [-d FOLDER] [-u UMASK] [-h]

  -R         refuse everything that changes something
  -d FOLDER  where relative paths begin; default: where the program was started
  -u UMASK   of the files that are made, octal
"""


def main(arguments: Sequence[str]) -> int:
    """Serve until the client is done; the exit status is 0, 1 for a client that sent no SFTP, 2 for wrong arguments."""
    read_only, start, rest = False, os.getcwd(), list(arguments)
    while rest:
        flag = rest.pop(0)
        value = rest.pop(0) if flag in {"-d", "-u"} and rest else ""
        if flag == "-h":
            print(USAGE, end="")
            return 0
        if flag == "-R":
            read_only = True
        elif flag == "-d" and value:
            start = value
        elif flag == "-u" and value.isdecimal() and set(value) <= set("01234567"):
            os.umask(int(value, 8) & 0o777)
        else:
            print(f"dunnart sftp-server: {flag!r} is no flag that it has, or has no such value\n{USAGE}", end="",
                  file=sys.stderr)  # fmt: skip
            return 2
    return serve(start, read_only=read_only)


def serve(start: str, *, read_only: bool = False) -> int:
    """Serve this process's files."""
    from dunnart.errors import DunnartError
    from dunnart.sftp.layers.read_only import ReadOnly
    from dunnart.sftp.local import LocalFiles
    from dunnart.sftp.streams import serve as serve_files

    files = LocalFiles(start=start)
    try:
        serve_files(ReadOnly(files) if read_only else files, 0, 1)
    except DunnartError as error:
        print(f"dunnart sftp-server: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0
