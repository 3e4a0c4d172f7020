"""`dbclient`: Dropbear's client by its command line. It reads no configuration, and its exit status for errors is 1."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.tools.ssh.configuration import keyword, quoted
from dunnart.tools.ssh.flags import Wishes
from dunnart.tools.ssh.forwards import endpoint
from dunnart.tools.ssh.program import run_by
from dunnart.tools.transfer.destinations import Host, login

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USAGE = """\
usage: dbclient [options] [user@]host[^port],[user@]host[^port],... [command]

  -A  let the host use the agent           -N  no command, only forwarding
  -B  stdin and stdout go on to host:port  -o  an option as of ssh_config; -o help lists some
  -b  come from this [address][:port]      -p  the port
  -c  ciphers; -c help lists them          -Q  list cipher, mac, kex, key or sig
  -f  into the background after the login  -q  say little
  -g  others may use what listens here     -R  the host listens: [address:]port:host:port
  -I  end when idle for so many seconds    -s  the command is a subsystem
  -i  a private key (~/.ssh/id_dropbear)   -T  no terminal
  -J  a program, or &fd, in TCP's place    -t  a terminal
  -K  ask for a sign of life so often      -V  print the version
  -L  listen here: [address:]port:host:port  -v  tell what goes on
  -l  the user                             -W  the window of a channel, in bytes
  -M  end after so many seconds            -y  take hosts that are not known; -y -y: check no host
  -m  MACs; -m help lists them             -z  nothing
"""
_SAID = {
    "A": ("ForwardAgent", "yes"), "g": ("GatewayPorts", "yes"), "N": ("SessionType", "none"),
    "q": ("LogLevel", "quiet"), "s": ("SessionType", "subsystem"), "T": ("RequestTTY", "no"),
    "t": ("RequestTTY", "force"),
}  # fmt: skip
_NAMED = {
    "c": "Ciphers", "i": "IdentityFile", "l": "User", "L": "LocalForward", "m": "MACs", "p": "Port",
    "R": "RemoteForward", "K": "ServerAliveInterval",
}  # fmt: skip
_WITH_VALUES = frozenset((*_NAMED, "B", "b", "F", "I", "J", "M", "o", "Q", "W"))
_SECONDS = {"I": "idle_seconds", "M": "max_seconds"}
_LARGEST_WINDOW = 10 << 20
_YES_NO = {"y": "yes", "n": "no", "true": "yes", "false": "no"}
_FAILED = 1
_KEY = "~/.ssh/id_dropbear"


def run(arguments: Sequence[str]) -> int:
    """Run; gives the exit status: the command's, or 1 for everything that goes wrong on this side."""
    if any(argument in {"-h", "--help"} for argument in arguments[:1]):
        print(USAGE, end="")
        return 0
    if arguments and arguments[0] == "-V":
        from dunnart.tools.main import version

        print(f"dunnart {version()}", file=sys.stderr)
        return 0
    return run_by(parse, arguments, "dbclient", _FAILED)


def parse(arguments: Sequence[str]) -> Wishes:
    """Read a command line.

    Raises:
        ConfigError: it is wrong.
    """
    found = Wishes(file="none", keys=(_KEY,), password=os.environ.get("DROPBEAR_PASSWORD"))
    reading = _Reading(arguments)
    trusting = 0
    for flag, value in reading.flags():
        if flag == "y":
            trusting += 1
        else:
            _take(found, flag, value)
    if trusting:
        found.given.insert(0, ("StrictHostKeyChecking", "accept-new"))
    found.unchecked = trusting > 1 or any(each == ("stricthostkeychecking", "no") for each in found.given)
    found.command = " ".join(reading.command)
    if found.query:
        return found
    if not reading.host:
        raise ConfigError("a host is missing; dbclient -h tells more")
    _set_hosts(found, reading.host)
    return found


class _Reading:
    """Flags stand before the host and behind it; the first word behind the host that is none begins the command."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._rest = list(arguments)
        self.host = ""
        self.command: list[str] = []

    def flags(self) -> Iterator[tuple[str, str]]:
        """Each flag with its value, "" for those that have none."""
        while self._rest:
            word = self._rest.pop(0)
            if not word.startswith("-"):
                if self.host:
                    self.command = [word, *self._rest]
                    return
                self.host = word
                continue
            letters = word[1:]
            while letters:
                flag, letters = letters[0], letters[1:]
                value = ""
                if flag in _WITH_VALUES:
                    if not letters and not self._rest:
                        raise ConfigError(f"-{flag} wants a value")
                    value, letters = letters or self._rest.pop(0), ""
                yield flag, value


def _take(found: Wishes, flag: str, value: str) -> None:
    if value == "help" and flag in "cmo":
        found.query = {"c": "cipher", "m": "mac", "o": "option"}[flag]
    elif flag in _SAID:
        found.given.append(_SAID[flag])
    elif flag in _NAMED:
        found.given.append((_NAMED[flag], quoted(value)))
    elif flag == "f":
        found.given += [("ForkAfterAuthentication", "yes"), ("StdinNull", "yes")]
    elif flag == "o":
        _take_option(found, value)
    elif flag == "J":
        _take_program(found, value)
    elif flag == "B":
        found.to = endpoint(value)
        found.given += [("SessionType", "none")]
    elif flag == "b":
        host, _, port = value.rpartition(":") if value.count(":") == 1 else (value, "", "0")
        found.bind = host, _number(port or "0", flag, 65535)
    elif flag == "W":
        found.window_bytes = max(1024, _number(value, flag, _LARGEST_WINDOW))
    elif flag in _SECONDS:
        setattr(found, _SECONDS[flag], _number(value, flag))
    elif flag == "Q":
        found.query = value
    elif flag == "v":
        found.verbose += 1
    elif flag not in "uzF":
        print(f"dbclient: -{flag} is not known and is ignored", file=sys.stderr)


def _take_program(found: Wishes, value: str) -> None:
    if value.startswith("&"):
        found.descriptor = _number(value[1:], "J")
    else:
        found.given.append(("ProxyCommand", value.replace("%", "%%")))  # Dropbear knows no tokens


def _take_option(found: Wishes, text: str) -> None:
    name, value = keyword(text)
    if not name or not value:
        raise ConfigError(f"-o wants Name=value, not {text!r}")
    value = _YES_NO.get(value, value)
    if name.lower() == "disabletrivialauth":
        if value != "no":
            raise ConfigError("this cannot be had here", key=name)
    elif name.lower() != "usesyslog":
        found.given.append((name.lower(), value))


def _set_hosts(found: Wishes, text: str) -> None:
    user = next((value.strip('"') for name, value in found.given if name == "User"), "")
    if "," in user and "@" in user:  # scp and rsync make -l of what stands before the last @
        found.given = [each for each in found.given if each[0] != "User"]
        text = f"{user}@{text}"
    hosts = [_host(each) for each in text.split(",")]
    found.host = hosts.pop()
    if hosts:
        jumps = ",".join(f"{host.user}{'@' * bool(host.user)}{_bracketed(host)}" for host in hosts)
        if any(name == "ProxyCommand" for name, _ in found.given):
            raise ConfigError("-J is for one host")
        found.given.append(("ProxyJump", jumps))


def _host(text: str) -> Host:
    name, port = text, ""
    for separator in "^/":
        if not port:
            name, _, port = text.partition(separator)
    found = login(name)
    return Host(found.name, found.user, _number(port, "p", 65535) if port else 0)


def _bracketed(host: Host) -> str:
    name = f"[{host.name}]" if ":" in host.name else host.name
    return f"{name}:{host.port}" if host.port else name


def _number(text: str, flag: str, largest: int = 1 << 30) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > largest:
        raise ConfigError(f"-{flag} wants a number, not {text!r}")
    return int(text)
