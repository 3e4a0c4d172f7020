"""The sockets that the daemon listens on. They outlive a server made from an older configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.runtime.listeners import ListenAddress, listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from dunnart.daemon.handed import Handed


class Listening:
    """The sockets, by the address in the configuration that they are for.

    Args:
        handed: what others have handed over is served in the place of what the configuration says.
    """

    def __init__(self, handed: Handed) -> None:
        self._handed = handed.sockets
        self._open: dict[ListenAddress, list[socket.socket]] = {}

    def open(self, wanted: Iterable[ListenAddress]) -> Sequence[socket.socket]:
        """Open what is not open yet; gives copies of all that is wanted, for a server to have and close.

        Raises:
            ConfigError: an address cannot be listened on; then nothing has changed.
        """
        if self._handed:
            return [each.dup() for each in self._handed]
        opened: dict[ListenAddress, list[socket.socket]] = {}
        try:
            for address in wanted:
                if address not in self._open:
                    opened[address] = listen(address)
        except BaseException:
            _close(opened)
            raise
        self._open |= opened
        return [each.dup() for address in wanted for each in self._open[address]]

    def keep(self, wanted: Iterable[ListenAddress]) -> None:
        """Close all others."""
        gone = {address: self._open.pop(address) for address in self._open.keys() - {*wanted}}
        _close(gone)

    def close(self) -> None:
        """Close them all."""
        _close(self._open)
        self._open.clear()


def _close(sockets: dict[ListenAddress, list[socket.socket]]) -> None:
    for address, listeners in sockets.items():
        for listener in listeners:
            listener.close()
        address.remove()
