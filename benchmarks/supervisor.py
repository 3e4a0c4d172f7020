"""Runs one server and inherits its orphans: `python -m benchmarks.supervisor COMMAND ...`.

Some servers do not wait for all they fork (sshd 9.2's monitor leaves the user's process behind), and what such a
process used would be in nobody's account. Here every descendant that loses its parent is waited for, so that the
supervisor's `cutime` is complete. SIGTERM is handed on; the exit status is the server's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Start the server and wait until it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    server = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    while True:
        pid, status = os.wait()
        if pid == server.pid:
            server.returncode = os.waitstatus_to_exitcode(status)
            return abs(server.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
