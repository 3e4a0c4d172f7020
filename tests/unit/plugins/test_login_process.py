"""What rc files read of a forwarded display."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no such processes", allow_module_level=True)

from dunnart.plugins import login_process, x11_forwarding

WANTED = x11_forwarding.Wanted(once=False, protocol="MIT-MAGIC-COOKIE-1", cookie=bytes(range(16)), screen=0)


def test_the_protocol_and_the_cookie_of_a_display(tmp_path: Path) -> None:
    path = tmp_path / "Xauthority"
    path.write_bytes(x11_forwarding._entry(256, b"host", 10, WANTED) + x11_forwarding._entry(65535, b"", 10, WANTED))
    assert login_process._cookie(str(path)) == f"MIT-MAGIC-COOKIE-1 {WANTED.cookie.hex()}\n"


@pytest.mark.parametrize("data", [b"", b"\1", b"\1\0\0\4ab", b"\1\0\xff\xff"])
def test_a_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "Xauthority"
    path.write_bytes(data)
    assert login_process._cookie(str(path)).strip() == ""
    assert login_process._cookie(str(tmp_path / "none")) == ""
