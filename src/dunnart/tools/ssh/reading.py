"""The options for a host: of the command line, then of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.client.connecting import this_user
from dunnart.tools.ssh.configuration import Configuration, quoted
from dunnart.tools.ssh.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dunnart.tools.transfer.destinations import Host

_NOT_ON_THE_WAY = frozenset(
    """
    hostname port user hostkeyalias proxyjump proxycommand localforward remoteforward dynamicforward remotecommand
    requesttty sessiontype stdinnull forkafterauthentication forwardagent escapechar
    """.split()  # noqa: SIM905 - a literal would have a line for each
)
"""Options of the command line that are the last host's alone."""


def read_options(host: Host, given: Sequence[tuple[str, str]], file: str | None) -> Options:
    """Read all that is said about a host.

    Args:
        host: as the command line has it: its user and port come before all.
        given: the command line's options.
        file: the only file to read, "none" for none, None for the user's and the system's.

    Raises:
        ConfigError: there is something wrong; says where.
    """
    found = Configuration(host.name, this_user())
    if host.user:
        found.take("user", quoted(host.user))
    if host.port:
        found.take("port", str(host.port))
    for name, value in given:
        found.take(name, value)
    found.read(file)
    return Options(found)


def hop_options(given: Sequence[tuple[str, str]], file: str | None) -> Callable[[Host, str], Options]:
    """Give the function that reads the options for hosts on the way: files may say something else about each."""

    def read(host: Host, before: str) -> Options:
        own = [(name, value) for name, value in given if name.lower() not in _NOT_ON_THE_WAY]
        return read_options(host, [("ProxyJump", before), *own] if before else own, file)

    return read
