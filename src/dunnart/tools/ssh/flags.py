"""The command line of `dunnart ssh`, which is OpenSSH's. Most flags are another way to say an option of ssh_config."""

from __future__ import annotations

import getopt
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.records import dataclass
from dunnart.tools.ssh.configuration import option, quoted
from dunnart.tools.ssh.forwards import endpoint
from dunnart.tools.transfer.destinations import Host, login

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunnart.client.forwarding import Endpoint

USAGE = """\
usage: dunnart ssh [-46AaCfGgNnqsTtVvx] [-b address] [-c ciphers] [-D [address:]port] [-E log_file] [-e character]
                   [-F file] [-i key] [-J host,...] [-L forward] [-l user] [-m macs] [-o option] [-p port] [-Q what]
                   [-R forward] [-W host:port] [user@]host [command ...]

  -4, -6  one kind of address only                 -n  nothing is read from stdin
  -A, -a  let the host use the agent, or not       -o  an option of ssh_config
  -b      come from this address                   -p  the port
  -C      compress                                 -Q  list cipher, mac, kex, key or sig
  -c, -m  ciphers and MACs                         -q  say little
  -D      be a SOCKS server                        -R  the host listens and this machine connects
  -E      write what is told to a file             -s  the command is a subsystem
  -e      what begins escapes: a character, none   -T  no terminal
  -F      another configuration file, or none      -t  a terminal; -tt: even if there is none here
  -f      go into the background after the login   -V  print the version
  -G      print the options, and do nothing        -v  tell what goes on
  -g      others may use what listens here         -W  stdin and stdout go on to this host
  -i      a private key                            -x  no X11, as always
  -J      go through these hosts
  -L      listen here and the host connects: [address:]port:host:port
  -l      the user
  -N      no command, only forwarding

~? at the beginning of a line, on a terminal, tells what can be typed to dunnart itself.
"""
_KNOWN = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy"
_SAID = {
    "4": ("AddressFamily", "inet"), "6": ("AddressFamily", "inet6"), "A": ("ForwardAgent", "yes"),
    "a": ("ForwardAgent", "no"), "C": ("Compression", "yes"), "g": ("GatewayPorts", "yes"),
    "N": ("SessionType", "none"), "n": ("StdinNull", "yes"), "q": ("LogLevel", "quiet"),
    "s": ("SessionType", "subsystem"), "T": ("RequestTTY", "no"), "f": ("ForkAfterAuthentication", "yes"),
}  # fmt: skip
_NAMED = {
    "b": "BindAddress", "B": "BindInterface", "c": "Ciphers", "D": "DynamicForward", "e": "EscapeChar",
    "i": "IdentityFile", "J": "ProxyJump", "l": "User", "L": "LocalForward", "m": "MACs", "p": "Port",
    "R": "RemoteForward",
}  # fmt: skip
_NOT_HERE = {
    "I": "keys of PKCS#11", "O": "shared connections", "w": "tunnels of network devices", "1": "protocol 1",
}  # fmt: skip
_LEFT_OUT = {"M": "shared connections", "S": "shared connections", "X": "X11", "Y": "X11", "K": "GSSAPI"}


@dataclass
class Wishes:
    """What a command line wants.

    Attributes:
        host: the host.
        command: what is to be run there, with blanks between its words; "" for a shell.
        given: options, in the order in which they were given.
        file: the configuration file, as for `read_options`.
        to: where stdin and stdout lead.
        terminals: how often a terminal was asked for.
        verbose: how much is to be told.
        log_file: where it is told, "" for stderr.
        show: print the options.
        query: what is to be listed.
        unchecked: take whatever key a host shows.
        keys: keys to try when no other is named, as far as they are there.
        max_seconds: end the connection then; 0: never.
        window_bytes: a channel's window; 0: the usual one.
        idle_seconds: end the connection when it is idle for so long; 0: never.
        bind: the address and port to come from.
        descriptor: a connected socket in the place of a connection; -1 for none.
        password: the password, in the place of a question.
        notes: what was left out.
    """

    host: Host = field(default_factory=lambda: Host(""))
    command: str = ""
    given: list[tuple[str, str]] = field(default_factory=list)
    file: str | None = None
    to: Endpoint | None = None
    terminals: int = 0
    verbose: int = 0
    log_file: str = ""
    show: bool = False
    query: str = ""
    unchecked: bool = False
    keys: tuple[str, ...] = ()
    max_seconds: int = 0
    window_bytes: int = 0
    idle_seconds: int = 0
    bind: tuple[str, int] | None = None
    descriptor: int = -1
    password: str | None = None
    notes: list[str] = field(default_factory=list)


def parse(arguments: Sequence[str]) -> Wishes:
    """Read a command line.

    Raises:
        getopt.GetoptError: there is no such flag, or its value is missing.
        ConfigError: a value is wrong.
    """
    found = Wishes()
    flags, rest = getopt.getopt([*arguments], _KNOWN)
    for flag, value in flags:
        _take(found, flag[1], value)
    if rest:
        host = login(rest[0])
        said = {name.lower() for name, _ in found.given}  # and what is said first counts
        found.host = Host(host.name, "" if "user" in said else host.user, 0 if "port" in said else host.port)
        flags, rest = getopt.getopt(rest[1:], _KNOWN)
        for flag, value in flags:
            _take(found, flag[1], value)
    found.command = " ".join(rest)
    if not found.host.name and not found.query:
        raise ConfigError("a host is missing")
    return found


def _take(found: Wishes, flag: str, value: str) -> None:
    if flag in _SAID:
        found.given.append(_SAID[flag])
        if flag == "f":
            found.given.append(("StdinNull", "yes"))
    elif flag in _NAMED:
        found.given.append((_NAMED[flag], quoted(value)))
    elif flag == "o":
        found.given.append(option(value))
    elif flag in _NOT_HERE:
        raise ConfigError(f"-{flag}: there is nothing here for {_NOT_HERE[flag]}")
    elif flag in _LEFT_OUT:
        found.notes.append(f"-{flag}: there is nothing here for {_LEFT_OUT[flag]}; it is ignored")
    elif flag == "t":
        found.terminals += 1
    elif flag == "v":
        found.verbose += 1
    elif flag == "F":
        found.file = value
    elif flag == "E":
        found.log_file = value
    elif flag == "G":
        found.show = True
    elif flag == "Q":
        found.query = value
    elif flag == "W":
        found.to = endpoint(value)
        found.given += [("SessionType", "none"), ("RequestTTY", "no"), ("ClearAllForwardings", "yes")]
