"""The arguments of a server that lets clients have things forwarded."""

from __future__ import annotations

from typing import Any

import pytest

import dunnart
from dunnart.errors import ConfigError
from dunnart.plugins import BUILT_IN
from dunnart.protocol.questions import ChannelOpenQuestion
from tests.runtime.test_placements import every_placement, placed
from tests.unit.plugins.test_tcpip_forward import connect, here, listen, opened


def test_all_kinds_or_some() -> None:
    every = dunnart.forwarding()
    assert set(every["channel_types"]) == {"direct-tcpip", "direct-streamlocal@openssh.com"}
    assert set(every["session_requests"]) == {"auth-agent-req@openssh.com", "x11-req"}
    assert len(every["global_requests"]) == 4
    made = {
        type(each).__name__
        for kind in ("channel_types", "global_requests", "session_requests")
        for each in every[kind].values()
    }  # fmt: skip
    known = {target.partition(":")[2] for group in ("channel_types", "global_requests", "session_requests")
             for target in BUILT_IN[f"dunnart.{group}"].values()}  # fmt: skip
    assert made == known
    agent = dunnart.forwarding("agent")
    assert (agent["channel_types"], agent["global_requests"]) == ({}, {})
    assert set(agent["session_requests"]) == {"auth-agent-req@openssh.com"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((("udp",), {}), "'udp' is none of"), (((), {"rules": ["connect x"]}), "rules holds 'connect x'"),
     ((("tcp",), {"gateway_ports": "maybe"}), "gateway_ports is 'maybe'")],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(arguments: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        dunnart.forwarding(*arguments[0], **arguments[1])


@every_placement
async def test_a_server_with_them(where: Any) -> None:
    arguments: dict[str, Any] = {**dunnart.forwarding("tcp", rules=["listen localhost:0"])}
    async with placed(where, **arguments) as server:
        client = await server.login(answers={ChannelOpenQuestion: True})
        assert await listen(client, "127.0.0.1") == 0
        _, writer = await connect(await listen(client, "localhost"))
        channel = await opened(client)
        writer.write(b"through")
        await client.until(lambda: channel.out == b"through")
        await here(writer)
