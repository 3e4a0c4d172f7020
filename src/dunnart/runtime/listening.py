"""What a server listens on, kept when what serves it is exchanged."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

from dunnart.runtime.listeners import ListenAddress, bound_address, listen, listens

Place = ListenAddress | socket.socket


class Listening:
    """The listening sockets, by the places that they are for; one that is named twice is two places."""

    def __init__(self) -> None:
        self._open: dict[tuple[Place, int], list[socket.socket]] = {}

    def adopt(self, address: ListenAddress, sockets: Sequence[socket.socket]) -> None:
        """Take sockets that somebody else has opened for an address."""
        self._open[address, 0] = list(sockets)

    def open(self, places: Sequence[Place]) -> tuple[list[socket.socket], tuple[ListenAddress, ...]]:
        """Open what is not open yet.

        Args:
            places: addresses, or sockets; a connected one is a connection.

        Returns:
            Copies of the sockets of all places, for somebody to have and close, and where they listen.

        Raises:
            ConfigError: an address cannot be listened on; then nothing has changed.
        """
        opened: dict[tuple[Place, int], list[socket.socket]] = {}
        connections: list[socket.socket] = []
        try:
            for key in _numbered(places):
                place = key[0]
                if isinstance(place, socket.socket) and not listens(place):
                    connections.append(place)
                elif key not in self._open:
                    opened[key] = [place] if isinstance(place, socket.socket) else listen(place)
        except BaseException:
            _close(opened)
            raise
        self._open |= opened
        # Copies share the mode, and `dup` sets it to the original's: a blocking one would stop whoever accepts now.
        for sockets in self._open.values():
            for each in sockets:
                each.setblocking(False)  # noqa: FBT003 - the name says it
        found = [each for key in _numbered(places) for each in self._open.get(key, ())]
        return [*(each.dup() for each in found), *connections], tuple(map(bound_address, found))

    def keep(self, places: Sequence[Place]) -> None:
        """Close what is for none of these places."""
        _close({key: self._open.pop(key) for key in self._open.keys() - {*_numbered(places)}})

    def close(self) -> None:
        """Close all."""
        self.keep(())

    def forget(self) -> None:
        """Close all, but leave the files of unix sockets: somebody else listens there."""
        for sockets in self._open.values():
            for each in sockets:
                each.close()
        self._open.clear()

    @property
    def sockets(self) -> tuple[tuple[Place, Sequence[socket.socket]], ...]:
        """What is open, in the order in which it was opened."""
        return tuple((place, sockets) for (place, _), sockets in self._open.items())


def _numbered(places: Sequence[Place]) -> list[tuple[Place, int]]:
    return [(place, places[:index].count(place)) for index, place in enumerate(places)]


def _close(sockets: Mapping[tuple[Place, int], Sequence[socket.socket]]) -> None:
    for (place, _), listeners in sockets.items():
        for each in listeners:
            bound = bound_address(each) if isinstance(place, ListenAddress) else None  # else it may be closed already
            each.close()
            if bound is not None:
                bound.remove()
