"""What the connections of one event loop share, for as long as there are some."""

from __future__ import annotations

import asyncio

from dunnart.runtime.pump import ProtocolLoop

_contexts: dict[tuple[asyncio.AbstractEventLoop, int], tuple[ProtocolLoop, int]] = {}
"""What connections share, by event loop and size of their packets, and how many they are."""


def join(loop: asyncio.AbstractEventLoop, packet_bytes: int) -> ProtocolLoop:
    """Give what the connections of a loop share, to one more of them."""
    for key in [key for key in _contexts if key[0].is_closed()]:
        del _contexts[key]
    context, users = _contexts.get((loop, packet_bytes)) or (None, 0)
    if context is None:
        context = ProtocolLoop(loop, channel_packet_bytes=packet_bytes)
    _contexts[loop, packet_bytes] = (context, users + 1)
    return context


def leave(loop: asyncio.AbstractEventLoop, packet_bytes: int) -> None:
    """One of them is over."""
    context, users = _contexts[loop, packet_bytes]
    if users > 1:
        _contexts[loop, packet_bytes] = (context, users - 1)
    else:
        del _contexts[loop, packet_bytes]
