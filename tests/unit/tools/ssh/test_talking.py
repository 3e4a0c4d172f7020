"""A session between the server and our own streams."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import dunnart
from dunnart.client import connect
from dunnart.keys import KnownHosts
from dunnart.tools.ssh.streams import Input
from dunnart.tools.ssh.talking import Talk
from tests.client.support import KEY
from tests.runtime.driver import HOST_KEY, USER, eventually, serving

SECONDS = 45.0


def test_a_program_that_has_closed_its_outputs_still_gets_its_input(tmp_path: Path) -> None:
    file = tmp_path / "file"

    async def work() -> None:
        known = KnownHosts(f"127.0.0.1 {HOST_KEY.public.line()}")
        reader, writer = os.pipe()
        async with (
            serving(authenticators=(dunnart.PublicKeys(KEY.public.line()),)) as server,
            connect(*server.address, user=USER, keys=[KEY], agent=False, known_hosts=known) as connection,
            await connection.session(f"exec cat >'{file}' 2>&1") as session,
        ):
            talking = asyncio.ensure_future(Talk(session, Input(reader)).run(session.stderr))
            await eventually(lambda: session.ended)
            os.write(writer, b"all of it")
            os.close(writer)
            await talking
            assert session.exit.status == 0
        os.close(reader)

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert file.read_bytes() == b"all of it"
