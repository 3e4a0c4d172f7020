"""How a server for tests notices what happens to it, and refuses what it is to refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dunnart.keys import PublicKey
from dunnart.protocol.events import AuthFailed, KeysExchanged, LoggedIn
from dunnart.protocol.questions import ChannelOpenQuestion, ChannelRequestQuestion, PublicKeyCredential
from dunnart.protocol.requests import ExecRequest, ShellRequest, SubsystemRequest, UnknownOpen
from dunnart.records import dataclass
from dunnart.server import Application, Attempt, Authenticator, AuthReply, Deny, PublicKeys, RawSession, Terminal
from dunnart.testing.faults import Faults
from dunnart.testing.relay import Link

if TYPE_CHECKING:
    from dunnart.protocol.events import Event
    from dunnart.protocol.questions import Question
    from dunnart.server.connection import ServerConnection


@dataclass(frozen=True, slots=True)
class Login:
    """An attempt to log in.

    Attributes:
        user: the name given.
        method: "password", "publickey" and so on; attempts of the method "none" are left out.
        accepted: whether it let the user in.
        key: the key that let the user in, if one did.
    """

    user: str
    method: str
    accepted: bool
    key: PublicKey | None = None


@dataclass(frozen=True, slots=True)
class SeenSession:
    """A session that has begun.

    Attributes:
        user: who is logged in.
        kind: "shell", "exec" or "subsystem".
        command: what is to be executed, for "exec".
        subsystem: its name, for "subsystem".
        environment: the variables that the client has set.
        terminal: the client's terminal as it was at the beginning, or None.
        connection: the connection's number: sessions of one connection share it.
    """

    user: str
    kind: str
    command: str | None
    subsystem: str | None
    environment: Mapping[str, str]
    terminal: Terminal | None
    connection: int


class Watch:
    """Stands between a pump and its connection: notes what happens, and refuses channels.

    Args:
        connection: what hears everything else.
        link: is told of the stages.
        faults: which channels to refuse.
        note: is told of logins.
    """

    def __init__(self, connection: ServerConnection, link: Link, faults: Faults, note: Callable[[Login], None]) -> None:
        self._connection = connection
        self._link = link
        self._faults = faults
        self._note = note

    def handle(self, item: Event | Question) -> None:
        """One event or question of the engine."""
        if isinstance(item, ChannelOpenQuestion):
            request = item.request
            name = request.wire_name if isinstance(request, UnknownOpen) else request.name
            refusal = self._faults.refusal(name)
            if refusal is not None:
                self._connection.pump.engine.answer(item.token, refusal)
                return
        self._connection.handle(item)
        match item:
            case KeysExchanged(first=True):
                self._link.reach("keys")
            case LoggedIn():
                self._note(Login(item.user, item.method, accepted=True, key=item.key))
                self._link.reach("login")
            case AuthFailed() if item.method != "none":
                self._note(Login(item.user, item.method, accepted=False))
            case ChannelRequestQuestion(request=ShellRequest() | ExecRequest() | SubsystemRequest()):
                self._link.reach("session")

    def uncongested(self) -> None:
        """The socket takes bytes again."""
        self._connection.uncongested()

    def failed(self, error: Exception) -> None:
        """The server's own code raised."""
        self._connection.failed(error)

    def lost(self) -> None:
        """The socket is closed."""
        self._connection.lost()


class Recorded:
    """An application that notes each session.

    Args:
        note: is told of it.
        application: gives what serves it.
    """

    def __init__(self, note: Callable[[SeenSession], None], application: Callable[[], Application]) -> None:
        self._note = note
        self._application = application

    def begin(self, session: RawSession) -> bool:
        """Note a session, and begin to serve it."""
        seen = SeenSession(
            session.user, session.kind, session.command, session.subsystem, dict(session.environment),
            session.terminal, session.connection_id,
        )  # fmt: skip
        self._note(seen)
        return self._application().begin(session)


class PresentKeys:
    """The keys that may log in just now.

    Args:
        keys: gives them.
    """

    method = "publickey"
    on_any_loop = True

    def __init__(self, keys: Callable[[], PublicKeys]) -> None:
        self._keys = keys

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Look for the key."""
        return await self._keys().authenticate(attempt)


class Refusing:
    """An authenticator that is not asked while logins are to be refused.

    Args:
        faults: whether they are.
        inner: the authenticator.
    """

    on_any_loop = True

    def __init__(self, faults: Faults, inner: Authenticator) -> None:
        self._faults = faults
        self._inner = inner
        self.method = inner.method

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Decide on one request."""
        # A client may ask first whether a key would do: that is no attempt yet.
        asks = isinstance(attempt.credential, PublicKeyCredential) and not attempt.credential.signed
        if not asks and self._faults.refuses(attempt.user):
            return Deny("refused by the test")
        if getattr(self._inner, "on_any_loop", False):
            return await self._inner.authenticate(attempt)
        reply: AuthReply = await attempt.run(self._inner.authenticate, attempt)
        return reply
