r"""Log lines: text or JSON, one event a line, nothing of a peer's raw (THREATS R25), and what fail2ban's filter reads.

Loggers are `dunnart.<part>`; see `PARTS`. Importing this module changes nothing; `setup` does.

A text line is `TIME LEVEL/PART/CONNECTION MESSAGE`:

    2026-10-01T12:00:00.123Z info/auth/17 Failed password for invalid user bob from 192.0.2.2 port 50022 ssh2

What stands between time and message is one word, since that is all fail2ban's sshd filter allows there, and it is the
same for all login lines of one connection and differs between connections, since the filter takes it for the id by
which lines belong together (sshd has its process number there). So all messages made by the functions below go to
`dunnart.auth` at INFO. With lines in a file the filter needs no change:

    [sshd]
    logpath = /var/log/dunnart.log

With lines in systemd's journal, where the journal itself keeps the time and we leave ours out, it needs the name:

    [sshd]
    backend = systemd
    filter = sshd[logtype=journal, _daemon="dunnart\[\d+\]: \S+"]
    journalmatch = _SYSTEMD_UNIT=dunnart.service
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Literal, Protocol, TextIO

from dunnart.errors import ConfigError

PARTS = ("server", "transport", "auth", "session", "forward", "daemon")
LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
FACILITIES = ("auth", "authpriv", "daemon", "user", *(f"local{number}" for number in range(8)))
"""Which parts of syslog lines may be sent to."""
SHOWN_CHARACTERS = 200
"""The longest that a text of a peer's gets in the log, escapes counted."""


class Context(Protocol):
    """What a log line says about its connection. The connection itself can be one: nothing is copied or kept."""

    @property
    def id(self) -> int:
        """A number that no other connection of this process has."""

    @property
    def user(self) -> str:
        """The name the peer has given so far, or ""; need not be clean."""

    @property
    def peer(self) -> object:
        """Where the connection comes from; as text `192.0.2.1:50022`."""


def report(logger: logging.Logger, level: int, context: Context, message: str, *args: object) -> None:
    """Log an event of one connection. Arguments that a peer sent must be `clean`."""
    if logger.isEnabledFor(level):
        logger.log(level, message, *args, extra={"connection": context})


def clean(value: str | bytes, *, word: bool = False, most: int = SHOWN_CHARACTERS) -> str:
    r"""Make a peer's text fit for a log line: at most 200 characters, all printable, backslashes doubled.

    Args:
        value: the text; bytes that are no UTF-8 are shown as \xNN.
        word: escape spaces as well, so that the text cannot look like more than one word of a line.
        most: how many characters, if not 200.
    """
    # A character of UTF-8 has at most 4 bytes.
    limit = 4 * most + 4
    text = value[:limit].decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if len(text) <= most and text.isprintable() and "\\" not in text and not (word and " " in text):
        return text
    kept, tail, size = "", "", 0
    for character in text:
        piece = "\\\\" if character == "\\" else _escaped(character, word=word)
        size += len(piece)
        if size <= most - 3:
            kept += piece
        elif size <= most:
            tail += piece
        else:
            return kept + "..."
    return kept + tail


def _escaped(character: str, *, word: bool = False) -> str:
    if character.isprintable() and not (word and character == " "):
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as surrogateescape carries it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def setup(
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    form: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
    *,
    to: str = "stderr",
) -> None:
    """Send the log of this process somewhere; for programs, not for libraries.

    Args:
        level: error, warning, info or debug.
        levels: the levels of single parts.
        form: text or json; syslog and the journal get text.
        stream: in the place of standard error.
        to: stderr, syslog, journald, or a file's absolute path, to which lines are added; syslog:FACILITY for another
            than auth.

    Raises:
        ConfigError: the file cannot be written, or there is no journal.
    """
    # What no line shows need not be found out for each line (Python's logging HOWTO, "Optimization").
    for name in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, name, False)
    setattr(logging, "_srcfile", None)  # noqa: B010 - typed as a str, documented to be set to None
    handler = _handler(to, form, stream or sys.stderr)
    root = logging.getLogger()
    for before in root.handlers:
        if isinstance(before.formatter, TextFormatter | JsonFormatter):
            before.close()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("dunnart").setLevel(LEVELS[level])
    for part in PARTS:
        own = (levels or {}).get(part)
        logging.getLogger(f"dunnart.{part}").setLevel(logging.NOTSET if own is None else LEVELS[own])


def _handler(to: str, form: Literal["text", "json"], stream: TextIO) -> logging.Handler:
    place, _, facility = to.partition(":")
    if place in {"syslog", "journald"}:
        from dunnart.runtime.log_places import JournalHandler, SyslogHandler

        handler: logging.Handler = SyslogHandler(facility or "auth") if place == "syslog" else JournalHandler()
        handler.setFormatter(TextFormatter(timed=False))
        return handler
    journal = False
    if to == "stderr":
        handler = logging.StreamHandler(stream)
        journal = _is_journal(stream)
    else:
        try:
            handler = logging.FileHandler(to, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", path=to, key="log_to") from error
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(timed=not journal, leveled=journal))
    return handler


def _is_journal(stream: TextIO) -> bool:
    """Tell whether a stream goes to systemd's journal (systemd.exec(5), $JOURNAL_STREAM)."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def _stamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _context(record: logging.LogRecord) -> Context | None:
    context: Context | None = getattr(record, "connection", None)
    return context


def _part(record: logging.LogRecord) -> str:
    return record.name.removeprefix("dunnart.")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "" if not record.exc_info else " | ".join(formatter.formatException(record.exc_info).splitlines())


def _journal_level(level: int) -> int:
    """Give the number that the journal takes from the head of a line (sd-daemon(3))."""
    return 3 if level >= logging.ERROR else 4 if level >= logging.WARNING else 6 if level >= logging.INFO else 7


class TextFormatter(logging.Formatter):
    """The lines that the module's description shows; a traceback stands on the same line.

    Args:
        timed: they begin with the time.
        leveled: they begin with the level as systemd takes it away.
    """

    def __init__(self, *, timed: bool = True, leveled: bool = False) -> None:
        super().__init__()
        self._timed = timed
        self._leveled = leveled

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        context = _context(record)
        source = f"{record.levelname.lower()}/{_part(record)}" + ("" if context is None else f"/{context.id}")
        line = f"{source} {record.getMessage()}"
        if record.exc_info:
            line += f" | {_traceback(self, record)}"
        if not line.isprintable():  # the arguments are clean; this is for what comes with an exception
            line = "".join(map(_escaped, line))
        if self._leveled:
            return f"<{_journal_level(record.levelno)}>{line}"
        return f"{_stamp(record)} {line}" if self._timed else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, part, connection, user, peer, message, traceback; absent ones left out."""

    def __init__(self) -> None:
        super().__init__()
        from json import dumps

        self._dumps = dumps

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        fields: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "part": _part(record),
        }
        context = _context(record)
        if context is not None:
            fields["connection"] = context.id
            if context.user:
                fields["user"] = clean(context.user)
            fields["peer"] = clean(str(context.peer))
        fields["message"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = _traceback(self, record)
        return self._dumps(fields)


# Messages in the form that programs reading sshd's log know, fail2ban's sshd filter above all.


def _from(address: str, port: int) -> str:
    return f"from {_address(address)} port {port}"


def _address(address: str) -> str:
    return clean(address, word=True) or "UNKNOWN"  # a unix socket; the word is sshd's


def _who(user: str | bytes, *, invalid: bool) -> str:
    return f"{'invalid user ' if invalid else ''}{clean(user, word=True)}"


def _detailed(line: str, detail: str) -> str:
    return f"{line}: {detail}" if detail else line


def accepted(method: str, user: str, address: str, port: int, detail: str = "") -> str:
    """A user has logged in; `detail` is the key, "ED25519 SHA256:…"."""
    return _detailed(f"Accepted {method} for {_who(user, invalid=False)} {_from(address, port)} ssh2", detail)


def partial(method: str, user: str, address: str, port: int, detail: str = "") -> str:
    """One method of a chain has succeeded."""
    return _detailed(f"Partial {method} for {_who(user, invalid=False)} {_from(address, port)} ssh2", detail)


def failed(
    method: str, user: str | bytes, address: str, port: int, *, invalid: bool = False, detail: str = "",
) -> str:  # fmt: skip
    """A method did not let a user in; `invalid`: there is no such user."""
    method = clean(method, word=True)
    return _detailed(f"Failed {method} for {_who(user, invalid=invalid)} {_from(address, port)} ssh2", detail)


def invalid_user(user: str | bytes, address: str, port: int) -> str:
    """A peer has named a user who does not exist."""
    return f"Invalid user {clean(user, word=True)} {_from(address, port)}"


def too_many_failures(user: str | bytes, address: str, port: int, *, invalid: bool = False) -> str:
    """A connection has used up its attempts."""
    who = _who(user, invalid=invalid)
    return f"maximum authentication attempts exceeded for {who} {_from(address, port)} ssh2 [preauth]"


def ended(
    address: str,
    port: int,
    *,
    how: Literal["Connection closed", "Connection reset", "Disconnected"] = "Connection closed",
    user: str | bytes = "",
    invalid: bool = False,
    before_login: bool = True,
) -> str:
    """A connection has ended: closed or reset by the peer, or disconnected by us."""
    preposition = "from" if how == "Disconnected" else "by"
    who = ""
    if user:
        kind = "user" if not before_login else "invalid user" if invalid else "authenticating user"
        who = f"{kind} {clean(user, word=True)} "
    return f"{how} {preposition} {who}{_address(address)} port {port}{' [preauth]' if before_login else ''}"


def received_disconnect(address: str, port: int, code: int, text: str | bytes, *, before_login: bool = True) -> str:
    """The peer has sent a DISCONNECT message (RFC 4253 §11.1)."""
    end = " [preauth]" if before_login else ""
    return f"Received disconnect {_from(address, port)}:{code}: {clean(text)}{end}"


def no_identification(address: str, port: int) -> str:
    """The peer has ended the connection before its version line."""
    return f"Did not receive identification string {_from(address, port)}"


def bad_identification(address: str, port: int) -> str:
    """The peer's version line is none."""
    return f"banner exchange: Connection {_from(address, port)}: invalid format"


def not_negotiated(address: str, port: int, why: str) -> str:
    """No keys were exchanged, mostly for want of an algorithm in common: what the `NegotiationError` says."""
    return f"Unable to negotiate with {_address(address)} port {port}: {clean(why)}"


def grace_exceeded(address: str, port: int) -> str:
    """Nobody has logged in in time."""
    return f"Timeout before authentication for connection {_from(address, port)}"


def refused(address: str, port: int, reason: str) -> str:
    """A connection was not let in, or thrown out, by one of the limits."""
    return f"drop connection from [{_address(address)}]:{port}: {reason}"
