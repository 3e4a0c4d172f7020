"""Processes with an interpreter of their own, which run a function of ours and have a socket that leads here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from dunnart.runtime.process import Spawned
from dunnart.runtime.session_keys import share_no_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

_BOOT = """\
import sys
from json import loads
path, name, without, target, arguments = loads(sys.argv[1])
sys.path[:] = path
for module in without:
    sys.modules.setdefault(module, None)
try:
    with open("/proc/self/comm", "w") as file:
        file.write(name)
except OSError:
    pass
from importlib import import_module
module, _, function = target.partition(":")
getattr(import_module(module), function)(*arguments)
"""
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # without which some interpreters do not start


def executed(
    name: str, target: str, *arguments: object, alone: bool = False, without: Sequence[str] = ()
) -> tuple[Spawned, socket.socket]:
    """Start such a process; gives what leads to it too.

    Args:
        name: what lists of processes show (Linux), at most 15 bytes.
        target: "module:function"; the function gets the descriptor of its socket, and what follows.
        arguments: what JSON has: texts, numbers, lists, tables.
        alone: it gets nothing of this process's environment, directory, session, keyring and output but errors.
        without: modules that cannot be loaded there; who tries has to do without.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    path = [os.path.abspath(entry) for entry in sys.path] if alone else sys.path
    order = json.dumps([path, name, list(without), target, [theirs.fileno(), *arguments]])
    flags = ("-I", "-S") if alone else ()
    command = (sys.executable, *flags, "-c", _BOOT, order)  # an interpreter finds its library by how it is called
    if alone and os.geteuid() == 0:  # who has started programs for users, and has the last one's keys
        share_no_keys()
    try:
        with theirs:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if alone else None,
                process_group=None if alone else 0,
                start_new_session=alone,
                cwd="/" if alone else None,
                env={each: os.environ[each] for each in _KEPT if each in os.environ} if alone else None,
            )
    except BaseException:
        ours.close()
        raise
    return Spawned(process), ours
