"""What a person sees of transfers."""

from __future__ import annotations

import pytest

from dunnart.tools.transfer.progress import Progress, size


def test_sizes_are_short() -> None:
    assert [size(count) for count in (0, 999, 1000, 1536, 10**6, 2**40)] == [
        "0B", "999B", "1.0KB", "1.5KB", "976.6KB", "1.0TB",
    ]  # fmt: skip
    assert max(len(size(10**power)) for power in range(20)) <= 7


def test_failures_are_told_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True, prefix="dunnart scp: ")
    progress.failed("a\x1b", PermissionError(13, "no"))
    progress.failed("", OSError("scp: /x: gone"))
    progress.skipped("b", "is a symbolic link")
    assert progress.failures == 2
    assert capsys.readouterr().err.splitlines() == [
        r"dunnart scp: a\x1b: no", "dunnart scp: /x: gone", "dunnart scp: b is a symbolic link: left out",
    ]  # fmt: skip
