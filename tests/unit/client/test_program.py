"""A local program's pipes as a stream."""

from __future__ import annotations

import asyncio
import sys

from dunnart.client.program import Program


def test_it_can_be_closed_while_somebody_reads() -> None:
    async def work() -> None:
        program = await Program.start([sys.executable, "-c", "import sys; sys.stdin.read()"])
        reading = asyncio.create_task(program.read())
        await asyncio.sleep(0)  # it waits for something
        await program.close()
        assert await reading == b""
        assert await program.wait() == 0

    asyncio.run(asyncio.wait_for(work(), 45))
