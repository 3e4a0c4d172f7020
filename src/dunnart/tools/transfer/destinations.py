"""What names hosts and files on a command line: `[user@]host[:path]`, `scp://[user@]host[:port][/path]`, paths."""

from __future__ import annotations

import os
import re

from dunnart.errors import ConfigError
from dunnart.records import dataclass

_URI = re.compile(r"(scp|sftp)://(?:([^@/]*)@)?(\[[^\]/]+\]|[^:/@]*)(?::([0-9]{1,5}))?(?:/(.*))?", re.DOTALL)
_BRACKETED = re.compile(r"(?:([^/]*)@)?\[([^\]/]+)\](?::(.*))?", re.DOTALL)
_HOP = re.compile(r"(?:ssh://)?(?:(.*)@)?(\[[^\]]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?", re.DOTALL)
_SHELLS = frozenset("'`\"$\\;&<>|(){}")
"""What is not in names: they may come from elsewhere, and stand in commands that a shell runs, such as ProxyCommand."""
_DRIVES = os.name == "nt"


@dataclass(frozen=True, slots=True)
class Host:
    """Who is to be connected to: `user` is empty and `port` 0 if nothing was said."""

    name: str
    user: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A path at a host, or here."""

    host: Host | None
    path: str


def place(text: str, *, drives: bool = _DRIVES) -> Place:
    """What scp means by a source or target.

    A colon makes a host of what stands before it, unless a slash does too: a file that is called `a:b` is `./a:b`.
    Where there are drives, one letter before the colon is a drive here.

    Raises:
        ConfigError: it is no URI, or has no host.
    """
    if text.startswith("scp://"):
        return uri(text)
    if drives and re.match(r"[A-Za-z]:", text):
        return Place(None, text)
    found = _BRACKETED.fullmatch(text)
    if found is not None and found[3] is not None:
        return Place(_host(found[2], found[1]), found[3] or ".")
    head, colon, path = text.partition(":")
    if not colon or "/" in head or not head or text.startswith("["):
        return Place(None, text)
    user, _, name = head.rpartition("@")
    return Place(_host(name, user), path or ".")


def destination(text: str) -> Place:
    """What sftp means by its argument: a host, and a path there that may be empty.

    Raises:
        ConfigError: it is no URI, or has no host.
    """
    if text.startswith("sftp://"):
        return uri(text, default="")
    found = _BRACKETED.fullmatch(text)
    if found is not None:
        return Place(_host(found[2], found[1]), found[3] or "")
    head, _, path = text.partition(":")
    user, _, name = head.rpartition("@")
    return Place(_host(name, user), path)


def jump(text: str) -> Host:
    """A host to go through: `[user@]host[:port]`, or `ssh://` before that.

    Raises:
        ConfigError: it is none.
    """
    found = _HOP.fullmatch(text)
    port = int(found[3] or 0) if found is not None else 0
    if found is None or port > 65535:
        raise ConfigError(f"{text!r} is no host to go through: [user@]host[:port] is")
    return _host(found[2].strip("[]"), found[1], port)


def login(text: str) -> Host:
    """What ssh means by its argument: `[user@]host`, or `ssh://[user@]host[:port]`.

    Raises:
        ConfigError: it is none.
    """
    if text.startswith("ssh://"):
        return jump(text.removesuffix("/"))
    user, _, name = text.rpartition("@")
    return _host(name.strip("[]"), user)


def uri(text: str, default: str = ".") -> Place:
    """What a URI of scp or sftp means; its path is relative, as OpenSSH has it.

    Raises:
        ConfigError: it is none.
    """
    from urllib.parse import unquote

    found = _URI.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no URI like scp://user@host:port/path")
    port = int(found[4] or 0)
    if port > 65535:
        raise ConfigError(f"{text!r} has an impossible port")
    host = _host(found[3].strip("[]"), unquote(found[2] or ""), port)
    return Place(host, unquote(found[5] or "", errors="surrogateescape") or default)


def _host(name: str, user: str | None, port: int = 0) -> Host:
    if not name or name.startswith("-") or not name.isprintable() or " " in name:
        raise ConfigError(f"{name!r} is no host")
    if _SHELLS.intersection(name):
        raise ConfigError(f"{name!r} is no host: a shell would take some of it for its own")
    if (user or "").startswith("-") or _SHELLS.difference("\\").intersection(user or "") or (user or "").endswith("\\"):
        raise ConfigError(f"{user!r} is no user")
    return Host(name, user or "", port)
