"""A chat room: everybody who comes in is heard by all the others.

    python examples/chat.py
    ssh -p 2222 ann@127.0.0.1        and, from another terminal:        ssh -p 2222 bob@127.0.0.1

/name NEW, /who and /quit are commands; everything else is said aloud.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator

import dunnart

_MESSAGES_AHEAD = 100
_NAME_CHARACTERS = 20


class Visitor:
    """Somebody in the room. What he has not been shown yet waits in a queue of his own, so that he delays nobody."""

    def __init__(self, session: dunnart.Session, name: str) -> None:
        self.name = name
        self._session = session
        self._waiting: asyncio.Queue[str] = asyncio.Queue(_MESSAGES_AHEAD)

    def tell(self, text: str) -> None:
        """Have him see a line soon; one who is too slow for the room misses some of them."""
        if not self._waiting.full():
            self._waiting.put_nowait(f"{text}\n")

    async def show(self) -> None:
        """Show him line after line, as fast as his connection takes them."""
        while True:
            await self._session.write(await self._waiting.get())


class Room:
    """Who is there."""

    def __init__(self) -> None:
        self._visitors: list[Visitor] = []

    async def visit(self, session: dunnart.Session) -> None:
        """Serve a visitor from the door and back."""
        visitor = Visitor(session, self._free_name(session.user))
        self._visitors.append(visitor)
        showing = asyncio.create_task(visitor.show())
        try:
            self._tell_all(f"* {visitor.name} comes in")
            visitor.tell("* /name NEW, /who and /quit are commands")
            async for line in session:
                if line.strip() == "/quit":
                    break
                self._heard(visitor, line.strip())
        finally:
            showing.cancel()
            self._visitors.remove(visitor)
            self._tell_all(f"* {visitor.name} leaves")

    def _heard(self, visitor: Visitor, line: str) -> None:
        command, _, argument = line.partition(" ")
        if command == "/who":
            visitor.tell("* here: " + ", ".join(sorted(each.name for each in self._visitors)))
        elif command == "/name" and argument:
            before, visitor.name = visitor.name, self._free_name(argument)
            self._tell_all(f"* {before} is now {visitor.name}")
        elif command.startswith("/"):
            visitor.tell("* there are: /name NEW, /who, /quit")
        elif line:
            self._tell_all(f"<{visitor.name}> {_printable(line)}", but=visitor)

    def _tell_all(self, text: str, but: Visitor | None = None) -> None:
        for visitor in self._visitors:
            if visitor is not but:
                visitor.tell(text)

    def _free_name(self, wanted: str) -> str:
        taken = {visitor.name for visitor in self._visitors}
        return next(name for name in _names(_printable(wanted)[:_NAME_CHARACTERS].strip()) if name not in taken)


def _names(wanted: str) -> Iterator[str]:
    name = wanted or "somebody"
    yield name
    number = 2
    while True:
        yield f"{name}{number}"
        number += 1


def _printable(text: str) -> str:
    """Drop what could do something to another's terminal."""
    return "".join(character for character in text if character.isprintable())


def main() -> None:
    """Open the room to everybody, until control-C."""
    parser = argparse.ArgumentParser(description="A chat room.")
    parser.add_argument("--port", type=int, default=2222)
    port = parser.parse_args().port
    server = dunnart.Server(
        Room().visit,
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[dunnart.AllowAnyone()],  # whoever comes may talk, by whatever name
        listen=f"127.0.0.1:{port}",
    )
    print(f"ssh -p {port} yourname@127.0.0.1")
    server.run()


if __name__ == "__main__":
    main()
