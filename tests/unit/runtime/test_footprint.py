"""What has been loaded and is not used need not be in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from cryptography.hazmat.primitives import hashes
from dunnart.runtime.footprint import release_files

def resident():
    with open("/proc/self/smaps", encoding="ascii") as file:
        lines = iter(file)
        for line in lines:
            if "_rust" in line and "r-xp" in line:
                while not line.startswith("Rss:"):
                    line = next(lines)
                return int(line.split()[1])

def digest():
    made = hashes.Hash(hashes.SHA256())
    made.update(b"abc")
    return made.finalize().hex()

wanted, before = digest(), resident()
released = release_files()
print(before, resident(), released // 1024, digest() == wanted)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's list of what is in memory")
def test_a_library_is_let_go_of_and_comes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    before, after, released, works = done.stdout.split()
    assert int(after) < int(before) / 2
    assert int(released) >= int(before)
    assert works == "True"
