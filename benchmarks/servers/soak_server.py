"""dunnart for a soak: `python -m benchmarks.servers.soak_server OFFSET serve ...`.

OFFSET is a file with eight bytes, a number of seconds that is added to what `time.time` says. The machine's clock is
not ours to step: this stands for it, in every process that is forked from here.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time


def main(arguments: list[str]) -> int:
    """Put the clock in place, and serve."""
    file = os.open(arguments[0], os.O_RDONLY)
    shared = mmap.mmap(file, 8, prot=mmap.PROT_READ)
    os.close(file)
    true_time = time.time

    def stepped() -> float:
        offset: float = struct.unpack_from("<d", shared)[0]
        return true_time() + offset

    time.time = stepped
    from dunnart.tools.main import main as dunnart

    return dunnart(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
