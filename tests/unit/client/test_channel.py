"""A channel's bytes for coroutines: what wakes those who wait."""

from __future__ import annotations

import asyncio
import contextlib

from dunnart.client.channel import Bell


def test_a_bell_forgets_who_has_left() -> None:
    async def work() -> None:
        bell = Bell()
        stays = asyncio.ensure_future(bell.wait())
        for rings in (False, True):
            leaves = asyncio.ensure_future(bell.wait())
            await asyncio.sleep(0)
            if rings:
                bell.ring()
            leaves.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaves
            assert leaves.cancelled()
            assert len(bell._waiting) == (not rings)
        await stays

    asyncio.run(asyncio.wait_for(work(), 45))
