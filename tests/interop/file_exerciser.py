"""Does random things to files in a folder, seeded, and compares each answer with what a model in memory says.

A program: the folder, the seed and the number of steps are its arguments, and "listed" if files have to be in the
folder's list before they are closed. It ends with 1 and the last steps when the folder's files are not what they must
be. What it leaves is there to be compared once more, from the other side.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import sys
from collections import deque
from pathlib import Path

LARGEST = 300_000
FILES = 4


class Exerciser:
    """Files in a folder, and what must be in them."""

    def __init__(self, folder: Path, seed: int, *, listed: bool) -> None:
        self.folder = folder
        self.listed = listed
        self.random = random.Random(seed)
        self.model: dict[str, bytearray] = {}
        self.opened: dict[str, int] = {}
        self.steps: deque[str] = deque(maxlen=30)
        self.actions = [self.write] * 6 + [self.read] * 6 + [self.read_mapped] * 2
        self.actions += [self.truncate, self.append, self.sync, self.rename, self.look, self.reopen, self.remove]

    def step(self) -> None:
        """Do one thing."""
        name = f"file {self.random.randrange(FILES)}"
        if name not in self.model:
            self.model[name] = bytearray()
            self.opened[name] = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        action = self.random.choice(self.actions)
        self.steps.append(f"{action.__name__} {name}, which has {len(self.model[name])} bytes")
        action(name)

    def part(self, name: str) -> tuple[int, int]:
        """Choose an offset and a length."""
        return self.random.randrange(len(self.model[name]) + 1), self.random.choice((1, 100, 4096, 5000, 70_000))

    def write(self, name: str) -> None:
        """Write anywhere, beyond the end too."""
        offset, length = self.part(name)
        offset = min(offset + self.random.choice((0, 0, 0, 9000)), LARGEST - length)
        data = self.random.randbytes(length)
        self.steps[-1] += f": {length} bytes at {offset}"
        assert os.pwrite(self.opened[name], data, offset) == length
        content = self.model[name]
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + length] = data

    def read(self, name: str) -> None:
        """Read anywhere."""
        offset, length = self.part(name)
        self.steps[-1] += f": {length} bytes at {offset}"
        assert os.pread(self.opened[name], length, offset) == self.model[name][offset : offset + length]

    def read_mapped(self, name: str) -> None:
        """Read it all as memory."""
        assert os.fstat(self.opened[name]).st_size == len(self.model[name])
        if self.model[name]:
            with mmap.mmap(self.opened[name], 0, prot=mmap.PROT_READ) as mapped:
                assert mapped[:] == bytes(self.model[name])

    def truncate(self, name: str) -> None:
        """Make it shorter or longer."""
        size = self.random.randrange(LARGEST if self.random.random() < 0.5 else len(self.model[name]) + 1)
        self.steps[-1] += f" to {size} bytes"
        if self.random.random() < 0.5:
            os.ftruncate(self.opened[name], size)
        else:
            os.truncate(self.folder / name, size)
        content = self.model[name]
        content.extend(bytes(max(0, size - len(content))))
        del content[size:]

    def append(self, name: str) -> None:
        """Write at the end."""
        if len(self.model[name]) < LARGEST:
            data = self.random.randbytes(1000)
            fd = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND)
            try:
                assert os.write(fd, data) == len(data)
            finally:
                os.close(fd)
            self.model[name].extend(data)

    def sync(self, name: str) -> None:
        """See that it is there."""
        os.fsync(self.opened[name])

    def rename(self, name: str) -> None:
        """Rename it, also over another."""
        other = f"file {self.random.randrange(FILES)}"
        if other == name:
            return
        self.steps[-1] += f" to {other}"
        os.rename(self.folder / name, self.folder / other)
        if other in self.opened:
            os.close(self.opened.pop(other))
        self.model[other], self.opened[other] = self.model.pop(name), self.opened.pop(name)

    def look(self, name: str) -> None:
        """List the folder."""
        names = os.listdir(self.folder)
        assert sorted(names) == sorted(self.model) if self.listed else set(names) <= set(self.model), names
        assert os.stat(self.folder / name).st_size == len(self.model[name])

    def reopen(self, name: str) -> None:
        """Open it anew, and read it all."""
        os.close(self.opened[name])
        self.opened[name] = os.open(self.folder / name, os.O_RDWR)
        assert (self.folder / name).read_bytes() == self.model[name]

    def remove(self, name: str) -> None:
        """Remove it."""
        os.close(self.opened.pop(name))
        os.unlink(self.folder / name)
        del self.model[name]

    def finish(self) -> None:
        """Close all, and tell the digests."""
        for name, fd in self.opened.items():
            os.close(fd)
            assert (self.folder / name).read_bytes() == self.model[name], name
        for name, content in sorted(self.model.items()):
            sys.stdout.write(f"{hashlib.sha256(content).hexdigest()} {name}\n")


def main(folder: str, seed: str, count: str, listed: str) -> int:
    """Do it."""
    exerciser = Exerciser(Path(folder), int(seed), listed=listed == "listed")
    try:
        for _ in range(int(count)):
            exerciser.step()
        exerciser.finish()
    except BaseException:
        sys.stderr.write("\n".join([*exerciser.steps, ""]))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
