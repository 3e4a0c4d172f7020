"""What a person needs for the first login, printed once the server listens."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from dunnart.daemon.uses import ONE_TIME_PASSWORD
from dunnart.daemon.values import OFF

if TYPE_CHECKING:
    from dunnart.daemon.preparing import Prepared
    from dunnart.runtime.listeners import ListenAddress

_LOG = logging.getLogger("dunnart.daemon")
_EVERY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown as what reaches them from here


def announce(prepared: Prepared, addresses: Sequence[ListenAddress], stream: TextIO | None = None) -> None:
    """Print, on standard output, what a person needs for the first login. The password is in no log."""
    lines = [f"listening on {address}" for address in addresses]
    lines += [
        f"host key {key.public.key_type} {key.public.fingerprint()}" for key in prepared.host_keys
    ]  # fmt: skip
    if prepared.way_in:
        config = prepared.config
        theirs = {"authorized-keys", ONE_TIME_PASSWORD}
        known = not config.authenticators or not theirs.isdisjoint(config.authenticators)
        if sys.platform != "win32" and os.geteuid() == 0:  # root's server is there for others
            known = prepared.one_time_password is not None
        user = prepared.user if known else "USER"  # other plug-ins need not know who runs the server
        files = config.shell == OFF and config.subsystem.get("sftp") != OFF
        lines += [f"log in with: {login_command(user, address, files=files)}" for address in addresses]
    else:
        lines += ["nobody can log in yet: put a key into ~/.ssh/authorized_keys, or allow a password"]
    if prepared.one_time_password is not None:
        lines += [
            f"password of {prepared.user} for this run: {prepared.one_time_password}",
            "(no authorized key was found)" if prepared.config.password == "auto" else "",  # noqa: S105
        ]
    print(*filter(None, lines), sep="\n", file=stream, flush=True)
    for address in addresses:
        # Messages as sshd's, which log readers know.
        _LOG.info("Server listening on %s", address)


def login_command(user: str, address: ListenAddress, *, files: bool = False) -> str:
    """Give the command that reaches an address from this machine: ssh, or sftp where there is no shell."""
    from shlex import quote

    program = "sftp" if files else "ssh"
    if address.path:
        return f"{program} -o {quote(f'ProxyCommand=nc -U {quote(address.path)}')} {quote(user)}@localhost"
    port = "" if address.port == 22 else f"-{'P' if files else 'p'} {address.port} "
    host = _EVERY.get(address.host, address.host)
    target = quote(f"{user}@[{host}]") if files and ":" in host else f"{quote(user)}@{host}"
    return f"{program} {port}{target}"
