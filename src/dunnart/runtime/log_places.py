"""Where else the log can go than to standard error: syslog and systemd's journal. Loaded only if it does."""

from __future__ import annotations

import logging
import socket
import syslog

from dunnart.errors import ConfigError

JOURNAL = "/run/systemd/journal/socket"
_NAME = "dunnart"
_MOST_BYTES = 64 * 1024


def priority(level: int) -> int:
    """Give syslog's number for a level of logging's."""
    if level >= logging.CRITICAL:
        return syslog.LOG_CRIT
    if level >= logging.ERROR:
        return syslog.LOG_ERR
    if level >= logging.WARNING:
        return syslog.LOG_WARNING
    return syslog.LOG_INFO if level >= logging.INFO else syslog.LOG_DEBUG


class SyslogHandler(logging.Handler):
    """Sends lines to syslog, as sshd does. Without a syslog daemon they are lost, as sshd's are.

    Args:
        facility: the part of syslog, one of `dunnart.runtime.logs.FACILITIES`.
    """

    def __init__(self, facility: str = "auth") -> None:
        super().__init__()
        syslog.openlog(_NAME, syslog.LOG_PID, getattr(syslog, f"LOG_{facility.upper()}"))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one."""
        try:
            syslog.syslog(priority(record.levelno), self.format(record))
        except Exception:  # noqa: BLE001 - what cannot be logged must not become its writer's fault
            self.handleError(record)


class JournalHandler(logging.Handler):
    """Sends lines to systemd's journal by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    Args:
        path: the journal's socket.

    Raises:
        ConfigError: there is no journal.
    """

    def __init__(self, path: str = JOURNAL) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"there is no journal at {path}: {error.strerror}", key="log_to") from error

    def emit(self, record: logging.LogRecord) -> None:
        """Send one. A line is printable, so that no field can end early or begin where it should not."""
        try:
            context = getattr(record, "connection", None)
            fields = {
                "MESSAGE": self.format(record),
                "PRIORITY": str(priority(record.levelno)),
                "SYSLOG_IDENTIFIER": _NAME,
                "SYSLOG_FACILITY": "4",  # auth
            }
            if context is not None:
                fields["DUNNART_CONNECTION"] = str(context.id)
            data = "".join(f"{name}={value}\n" for name, value in fields.items())
            self._socket.send(data.encode(errors="backslashreplace")[:_MOST_BYTES])
        except OSError:  # a journal that restarts
            pass
        except Exception:  # noqa: BLE001 - what cannot be logged must not become its writer's fault
            self.handleError(record)

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()
        super().close()
