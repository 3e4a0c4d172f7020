"""The interface of Dropbear for eCos: a server started by one call, callbacks, and sessions that are local sockets.

    daemon = init(DropbearData(private_host_keys=["host_key"], authenticate_password=check, connected=connected))

`init` returns once the server listens, and the application, which needs no event loop, goes on. The server lives in a
thread of its own. None of the application's code runs in it:

    accept_connection, get_public_keys, …   a few threads for callbacks; one that takes too long denies
    connected                               a thread for each session, which it may keep
    logger                                  a thread of its own

    client ◄── SSH ──► server's thread ◄── local socket ──► whatever part of the application serves the session

Built on the public names of `dunnart.server` and `dunnart.keys`; docs/how-to/ecos.md has the names in C, and what a
connection costs.
"""

from dunnart.ecos.daemon import Daemon, init
from dunnart.ecos.data import DropbearData
from dunnart.ecos.sessions import Handle

__all__ = ["Daemon", "DropbearData", "Handle", "init"]
