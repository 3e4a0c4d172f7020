"""The built-in plug-ins that forward, for programs that embed a server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from dunnart.errors import ConfigError
from dunnart.server.plugins import Context

if TYPE_CHECKING:
    from dunnart.server.interfaces import ChannelType, ForwardingPolicy, GlobalRequestHandler, SessionRequestHandler

KINDS = ("tcp", "unix", "agent", "x11")


class Forwarding(TypedDict):
    """Arguments of `Server`."""

    channel_types: Mapping[str, ChannelType]
    global_requests: Mapping[str, GlobalRequestHandler]
    session_requests: Mapping[str, SessionRequestHandler]
    forwarding: Sequence[ForwardingPolicy]


def forwarding(*kinds: str, rules: Sequence[str] | None = None, gateway_ports: str = "no") -> Forwarding:
    """Give the arguments of `Server` that let clients have things forwarded: `Server(…, **forwarding("tcp"))`.

    Args:
        kinds: "tcp" (`ssh -L`, `-R`, `-D`, `-J`, `-W`), "unix" (the same with unix sockets), "agent" (`-A`), "x11"
            (`-X`); all of them when none is named.
        rules: what is allowed, as the plug-in `allow-list` has it: "connect HOST:PORTS", "listen ADDRESS:PORTS",
            "connect-unix PATH", "listen-unix PATH", "agent", "x11". None allows all of these kinds.
        gateway_ports: where clients may have the server listen: "no", on loopback addresses only; "yes", on all;
            "client", where they ask for.

    Raises:
        ConfigError: there is no such kind, or a rule cannot be read.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"{kind!r} is none of {', '.join(KINDS)}", key="kinds")
    wanted = kinds or KINDS
    found = Forwarding(channel_types={}, global_requests={}, session_requests={}, forwarding=[])
    try:
        for kind in wanted:
            _PARTS[kind](found, gateway_ports)
        found["forwarding"] = [_policy(rules)]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return found


def _context(name: str, options: Any = None) -> Context[Any]:  # noqa: ANN401 - the plug-in's
    return Context(name, options, logging.getLogger(f"dunnart.plugin.{name}"))


def _policy(rules: Sequence[str] | None) -> ForwardingPolicy:
    from dunnart.plugins.allow_list import AllowList, Options

    return AllowList(_context("allow-list", Options() if rules is None else Options(tuple(rules))))


def _tcp(found: Forwarding, gateway_ports: str) -> None:
    from dunnart.plugins.direct_tcpip import DirectTcpip
    from dunnart.plugins.direct_tcpip import Options as Connecting
    from dunnart.plugins.tcpip_forward import Options, TcpipForward

    listens = TcpipForward(_context("tcpip-forward", Options(gateway_ports)))
    connects = DirectTcpip(_context("direct-tcpip", Connecting()))
    found["channel_types"] = {**found["channel_types"], "direct-tcpip": connects}
    found["global_requests"] = {
        **found["global_requests"], "tcpip-forward": listens, "cancel-tcpip-forward": listens,
    }  # fmt: skip


def _unix(found: Forwarding, _gateway_ports: str) -> None:
    from dunnart.plugins.direct_streamlocal import DirectStreamlocal
    from dunnart.plugins.direct_streamlocal import Options as Connecting
    from dunnart.plugins.streamlocal_forward import Options, StreamlocalForward

    listens = StreamlocalForward(_context("streamlocal-forward", Options()))
    connects = DirectStreamlocal(_context("direct-streamlocal", Connecting()))
    found["channel_types"] = {**found["channel_types"], "direct-streamlocal@openssh.com": connects}
    found["global_requests"] = {
        **found["global_requests"], "streamlocal-forward@openssh.com": listens,
        "cancel-streamlocal-forward@openssh.com": listens,
    }  # fmt: skip


def _agent(found: Forwarding, _gateway_ports: str) -> None:
    from dunnart.plugins.agent_forwarding import AgentForwarding

    agents = AgentForwarding(_context("agent-forwarding"))
    found["session_requests"] = {**found["session_requests"], "auth-agent-req@openssh.com": agents}


def _x11(found: Forwarding, _gateway_ports: str) -> None:
    from dunnart.plugins.x11_forwarding import Options, X11Forwarding

    displays = X11Forwarding(_context("x11-forwarding", Options()))
    found["session_requests"] = {**found["session_requests"], "x11-req": displays}


_PARTS: dict[str, Callable[[Forwarding, str], None]] = {"tcp": _tcp, "unix": _unix, "agent": _agent, "x11": _x11}
