"""What the engine's layers share: the stage, both directions' packets, events, questions, the time that was told."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.errors import LimitExceeded
from dunnart.protocol.framing import Arena, Inbound, Outbound
from dunnart.protocol.identification import SOFTWARE_VERSION
from dunnart.protocol.limits import Limits
from dunnart.protocol.phases import Kex, Role, Stage
from dunnart.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from dunnart.keys.certificate import Certificate
    from dunnart.keys.public import PublicKey
    from dunnart.protocol.events import Event
    from dunnart.protocol.questions import Question


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What all engines of one server or client share.

    Attributes:
        role: the side the engine plays.
        algorithms: names in order of preference.
        limits: the bounds put on the peer.
        host_keys: the server's public keys; a SignQuestion asks for their signatures.
        auth_methods: chains of methods, each enough to log in ("publickey" or "publickey,password" as tuples).
        asks_methods: a MethodsQuestion gives each user's chains, in the place of auth_methods.
        version: our identification line, without CR LF.
        identified: it has been sent already.
        banner: shown to the user before authentication; "" for none.
        user: who to log in as (client).
        update_host_keys: tell clients of all host keys after login (hostkeys-00@openssh.com).
        host_certificates: certificates of some of the host keys, offered beside the plain ones.
    """

    role: Role
    algorithms: Algorithms = PROFILES["default"]
    limits: Limits = field(default_factory=Limits)
    host_keys: tuple[PublicKey, ...] = ()
    auth_methods: tuple[tuple[str, ...], ...] = (("publickey",),)
    asks_methods: bool = False
    version: bytes = SOFTWARE_VERSION
    identified: bool = False
    banner: str = ""
    user: str = ""
    update_host_keys: bool = True
    host_certificates: tuple[Certificate, ...] = ()


class Core:
    """The state that more than one layer touches.

    Attributes:
        stage: what the connection is doing; with `kex` it decides which messages are legal.
        strict: strict KEX was agreed on.
        blocked: our KEXINIT is out and our NEWKEYS is not: only key exchange messages may be sent (RFC 4253 §7.1).
        session_id: the first exchange hash, for ever.
        cookie: what our next KEXINIT shows; b"" for one that nobody knows.
        now: the time told by the last call from outside, in seconds of any monotonic clock.
    """

    __slots__ = (
        "_held", "_held_bytes", "_next_token", "_pending", "blocked", "config", "connected_at", "cookie", "ended",
        "inbound", "kex", "last_activity", "now", "outbound", "random", "server_key", "session_id", "stage", "strict",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, config: EngineConfig, arena: Arena, random: Callable[[int], bytes], now: float, cookie: bytes
    ) -> None:
        self.config = config
        self.random = random
        self.inbound = Inbound(arena, config.limits.packet_bytes_before_login)
        self.outbound = Outbound(arena)
        self.stage = Stage.FIRST_KEX
        self.kex = Kex.IDLE
        self.strict = False
        self.blocked = False
        self.ended = False
        self.cookie = cookie
        self.session_id = b""
        self.server_key = b""
        self.now = self.connected_at = self.last_activity = now
        self.waiting: dict[int, Callable[[Any], None]] = {}
        self._pending: list[Event | Question] = []
        self._next_token = 1
        self._held: list[bytes] = []
        self._held_bytes = 0

    def emit(self, event: Event) -> None:
        """Tell the owner."""
        self._pending.append(event)

    def ask(self, make: Callable[..., Question], then: Callable[[Any], None], *details: object) -> None:
        """Emit a question; `then` gets the reply."""
        token = self._next_token
        self._next_token = token + 1
        self.waiting[token] = then
        self._pending.append(make(token, *details))

    def send(self, payload: bytes) -> None:
        """Send a message, or hold it until the key exchange that runs has new keys."""
        if not self.blocked:
            self.outbound.send(payload)
            return
        self._held_bytes += len(payload)
        if self._held_bytes > self.config.limits.queued_reply_bytes:
            raise LimitExceeded("too many replies wait for the end of a key exchange")
        self._held.append(payload)

    def command(self, payload: bytes) -> None:
        """Like `send`, for what our own side wants: only what a peer makes us say is bounded."""
        if self.blocked:
            self._held.append(payload)
        else:
            self.outbound.send(payload)

    def unblock(self) -> None:
        """Our new keys are in use: send what was held."""
        self.blocked = False
        held, self._held, self._held_bytes = self._held, [], 0
        for payload in held:
            self.outbound.send(payload)
