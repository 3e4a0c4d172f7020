"""Applications written as coroutines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dunnart.server.session import Application, Session, SessionStream


def application(handler: Callable[[Session, SessionStream], Awaitable[int]]) -> Application:
    """Make an application of a coroutine function; can be used as a decorator.

    Args:
        handler: serves one session; what it returns is the session's exit status. An exception is logged and gives 1;
            it is cancelled when the channel is closed.
    """

    def begin(session: Session) -> bool:
        stream = session.stream()

        async def run() -> None:
            status = 1
            try:
                status = await handler(session, stream)
            except ConnectionClosed:
                pass  # the client left first
            finally:
                stream.exit(status)

        stream.task = session.connection.spawn(run())
        return True

    return begin
