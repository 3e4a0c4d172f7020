"""Hangman for many players in one thread: plain sockets and `select`, as for any other network service.

    python examples/hangman.py
    ssh -p 2222 ann@127.0.0.1

The password is "gallows"; control-C ends a game.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import select
import socket

from dunnart import PrivateKey
from dunnart.ecos import Daemon, DropbearData, Handle, init

WORDS = ["anchovy", "bagpipe", "dunnart", "gazebo", "jukebox", "marsupial", "quokka", "zephyr"]
PASSWORD = "gallows"  # noqa: S105 - it stands in the docstring
_GALLOWS = " +---+\r\n |   {}\r\n |  {}{}{}\r\n |  {} {}\r\n_|_\r\n"
_BODY = "O/|\\/\\"  # in the order in which it comes to hang there
_CLEAR = "\x1b[H\x1b[2J"
_ENDS = "\x03\x04"  # control-C, control-D


class Player:
    """Somebody who plays. What he types comes letter by letter: his terminal is raw, and echoes nothing."""

    def __init__(self, sock: socket.socket, handle: Handle, words: list[str]) -> None:
        self._sock, self._handle, self._words = sock, handle, words
        self._word, self._tried = secrets.choice(words), set[str]()
        sock.settimeout(0)  # one who does not read must not keep the others waiting

    @property
    def _wrong(self) -> list[str]:
        return sorted(self._tried - set(self._word))

    @property
    def _won(self) -> bool:
        return self._tried >= set(self._word)

    @property
    def _over(self) -> bool:
        return self._won or len(self._wrong) >= len(_BODY)

    def show(self) -> bool:
        """Draw the picture; False if there is no room for it, because he does not look."""
        picture = _GALLOWS.format(*_BODY[: len(self._wrong)].ljust(len(_BODY)))
        word = " ".join(letter if letter in self._tried or self._over else "_" for letter in self._word)
        below = f"wrong: {' '.join(self._wrong)}" if self._tried else "Type a letter."
        if self._over:
            below = f"You {'live' if self._won else 'hang'}. Another one? (y/n)"
        data = f"{_CLEAR}{self._handle.username} plays hangman\r\n\r\n{picture}\r\n{word}\r\n\r\n{below}\r\n".encode()
        with contextlib.suppress(OSError):
            return self._sock.send(data) == len(data)
        return False

    def play(self) -> bool:
        """Take what he has typed; False if he wants no more, or has gone."""
        typed = b""
        with contextlib.suppress(OSError):
            typed = self._sock.recv(100)
        for letter in typed.decode("ascii", "ignore").lower():
            if letter in _ENDS or (self._over and letter == "n"):
                return False
            if self._over and letter == "y":
                self._word, self._tried = secrets.choice(self._words), set()
            elif not self._over and letter.isalpha():
                self._tried.add(letter)
        return typed != b"" and self.show()

    def leave(self) -> None:
        """End his session: first the socket, then the handle."""
        self._sock.close()
        self._handle.done(0 if self._won else 1)


def play(door: socket.socket, daemon: Daemon, words: list[str]) -> None:
    """Serve everybody, for ever."""
    players: dict[socket.socket, Player] = {}
    while True:
        for sock in select.select([door, *players], [], [])[0]:
            if sock is door:
                visitor, _ = door.accept()
                handle = daemon.handle_for(visitor)
                if handle is None:
                    visitor.close()  # somebody on this machine, who has not come by SSH
                    continue
                player = players[visitor] = Player(visitor, handle, words)
                stays = player.show()
            else:
                visitor, player = sock, players[sock]
                stays = player.play()
            if not stays:
                del players[visitor]
                player.leave()


def main() -> None:
    """Play with whoever knows the password, until control-C."""
    parser = argparse.ArgumentParser(description="Hangman over SSH.")
    parser.add_argument("--port", type=int, default=2222)
    parser.add_argument("words", nargs="*", default=WORDS, help="to be guessed: letters from a to z")
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as door:
        data = DropbearData(
            private_host_keys=[PrivateKey.load_or_generate("example_host_key")],
            authenticate_password=lambda _user, _address, password: password == PASSWORD,
            address="127.0.0.1",
            port=arguments.port,
            local_port=door.getsockname()[1],  # sessions arrive there, as connections from this machine
        )
        with init(data) as daemon, contextlib.suppress(KeyboardInterrupt):
            print(f"ssh -p {daemon.port} 127.0.0.1   (the password is {PASSWORD})")
            play(door, daemon, arguments.words)


if __name__ == "__main__":
    main()
