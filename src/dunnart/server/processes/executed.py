"""A process with an interpreter of its own, which runs a function of ours and has a socket that leads here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from dunnart.runtime.process import Spawned

if TYPE_CHECKING:
    from dunnart.runtime.process import Child

_BOOT = """\
import json, sys
sys.modules.setdefault("ssl", None)  # asyncio can do without, and it is 4.5 MB
sys.path[:] = json.loads(sys.argv[1])
from importlib import import_module
module, _, name = sys.argv[2].partition(":")
sys.exit(getattr(import_module(module), name)(int(sys.argv[3]), *sys.argv[4:]))
"""
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # without which some interpreters do not start


def executed(target: str, *arguments: str, alone: bool = False) -> tuple[Child, socket.socket]:
    """Start such a process; gives what leads to it too.

    Args:
        target: "module:function"; the function gets the descriptor of its socket, and what follows.
        arguments: texts.
        alone: it gets nothing of this process's environment, directory and session.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    path = json.dumps([os.path.abspath(entry) for entry in sys.path] if alone else sys.path)
    flags = ("-I", "-S") if alone else ()
    command = (sys.executable, *flags, "-c", _BOOT, path, target, str(theirs.fileno()), *arguments)
    try:
        with theirs:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=None if alone else 0,
                start_new_session=alone,
                cwd="/" if alone else None,
                env={name: os.environ[name] for name in _KEPT if name in os.environ} if alone else None,
            )
    except BaseException:
        ours.close()
        raise
    return Spawned(process), ours
