"""Every exception dunnart raises.

What a peer did wrong is a `RemoteProtocolError`, what the calling program did wrong is a `LocalProtocolError`.
A peer's error ends its connection with the disconnect code of its class (RFC 4253 §11.1); the peer is told a fixed
text, the details go to the log.
"""

from __future__ import annotations


class DunnartError(Exception):
    """The base of all errors raised by dunnart."""


class ProtocolError(DunnartError):
    """The SSH protocol was violated, by either side."""


class LocalProtocolError(ProtocolError):
    """The calling program asked for something the protocol does not allow in this state."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol does not allow.

    `disconnect_code` is the reason in SSH_MSG_DISCONNECT (RFC 4253 §11.1), `disconnect_text` what the peer is told.
    """

    disconnect_code = 2
    disconnect_text = "protocol error"


class DecodeError(RemoteProtocolError):
    """A message does not have the form that its number promises: short, trailing or malformed bytes."""

    disconnect_text = "malformed message"


class UnexpectedMessage(RemoteProtocolError):
    """A message number that is not legal in this phase and role."""

    disconnect_text = "unexpected message"


class IntegrityError(RemoteProtocolError):
    """A packet failed its MAC or authentication tag, or its framing is impossible."""

    disconnect_code = 5
    disconnect_text = "packet corrupt"


class FlowControlError(RemoteProtocolError):
    """The peer sent more channel data than its window or the maximum packet allow."""

    disconnect_text = "channel window exceeded"


class LimitExceeded(RemoteProtocolError):
    """The peer went beyond one of the configured `Limits`."""

    disconnect_code = 11
    disconnect_text = "limit exceeded"


class NegotiationError(RemoteProtocolError):
    """Both sides have no algorithm in common, or the key exchange failed."""

    disconnect_code = 3
    disconnect_text = "key exchange failed"


class HostKeyError(DunnartError):
    """The server's host key is unknown, has changed, or did not sign the exchange."""

    disconnect_code = 9


class AuthenticationFailed(DunnartError):
    """No method offered let the user in; `methods` are those the server would go on with."""

    def __init__(self, message: str, methods: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.methods = methods


class RightsConflict(DunnartError):
    """What two parts of a login allow cannot be put together: they force different commands."""


class ChannelError(DunnartError):
    """A channel could not be opened or a channel request was refused; `reason_code` as in RFC 4254 §5.1."""

    def __init__(self, message: str, reason_code: int = 0) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class ConnectionClosed(DunnartError):
    """The connection is gone, so the operation cannot be done."""


class Interrupted(DunnartError):
    """The user pressed ctrl-C while a line was read."""


class KeyFormatError(DunnartError):
    """A key, certificate or signature is malformed, unsupported, or locked by a passphrase."""


class KeyLocked(KeyFormatError):
    """A private key is locked by a passphrase, and none was given."""


class AgentError(DunnartError):
    """An SSH agent cannot be reached, refused, or said what makes no sense."""


class ConfigError(DunnartError):
    """A configuration, flag or file that cannot be used.

    Args:
        message: what is wrong and what to do.
        path: the file it stands in, if any.
        line: the line in that file, from 1, if known.
        key: the option's name, if known.
    """

    def __init__(
        self, message: str, *, path: str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        where = ""
        if path is not None:
            where = path if line is None else f"{path}:{line}"
        if key is not None:
            where = f"{where}: {key}" if where else key
        super().__init__(f"{where}: {message}" if where else message)
        self.path = path
        self.line = line
        self.key = key


class PluginError(DunnartError):
    """A plug-in could not be found, loaded or run; `plugin` is its name."""

    def __init__(self, message: str, plugin: str) -> None:
        super().__init__(f"{plugin}: {message}")
        self.plugin = plugin
