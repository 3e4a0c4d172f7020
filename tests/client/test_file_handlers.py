"""Files that a program serves: what one client may take of what the program has."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

import dunnart
from dunnart.client.sftp import Sftp
from dunnart.client.sftp_file import SftpFile
from dunnart.sftp import LocalFiles
from tests.client.support import serving


async def test_handles_leave_descriptors_to_accept_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()
    async with (
        serving(subsystems={"sftp": dunnart.SftpHandler(LocalFiles(str(tmp_path)))}) as running,
        running.connect() as connection,
        await Sftp.begin(await connection.session(subsystem="sftp")) as sftp,
    ):
        few = len(os.listdir("/proc/self/fd")) + 40
        monkeypatch.setattr(resource, "getrlimit", lambda _: (few * 4 // 3, few * 4 // 3))
        opened: list[SftpFile] = []
        with pytest.raises(OSError, match="too many handles"):  # noqa: PT012 - as many as it takes
            while len(opened) < 100:
                opened.append(await sftp.open("f"))
        assert 10 < len(opened) < 60
        await opened.pop().close()
        await (await sftp.open("f")).close()
