"""The server: describe it with `ServerConfig`, run it with `Server`, serve sessions with an `Application`."""

from dunnart.server.authentication import AllowAnyone, Attempt, Authenticator, PasswordCallback
from dunnart.server.config import ServerConfig
from dunnart.server.coroutines import application
from dunnart.server.server import Server
from dunnart.server.session import Application, Session, SessionStream

__all__ = [
    "AllowAnyone",
    "Application",
    "Attempt",
    "Authenticator",
    "PasswordCallback",
    "Server",
    "ServerConfig",
    "Session",
    "SessionStream",
    "application",
]
