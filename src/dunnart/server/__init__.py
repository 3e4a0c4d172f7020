"""The server: describe it with `ServerConfig`, run it with `Server`, serve sessions with an `Application`."""

from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    Credential,
    Deny,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
)
from dunnart.runtime.bridge import Bridge
from dunnart.runtime.process import Command
from dunnart.server.authentication import AllowAnyone, Attempt, Authenticator, PasswordCallback
from dunnart.server.config import ServerConfig
from dunnart.server.coroutines import application
from dunnart.server.server import Server
from dunnart.server.session import Application, Session, SessionStream

__all__ = [
    "Allow",
    "AllowAnyone",
    "Application",
    "Attempt",
    "AuthReply",
    "Authenticator",
    "Bridge",
    "Command",
    "Credential",
    "Deny",
    "InteractiveCredential",
    "PasswordCallback",
    "PasswordCredential",
    "Prompt",
    "PublicKeyCredential",
    "Server",
    "ServerConfig",
    "Session",
    "SessionStream",
    "application",
]
