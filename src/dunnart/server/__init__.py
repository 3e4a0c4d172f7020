"""The server: `Server`, the handlers that serve its sessions, and the authenticators that let users in."""

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
from dunnart.protocol.requests import BreakRequest, SignalRequest, WindowChange
from dunnart.runtime.process import Command
from dunnart.server.applications import AsyncHandler, BlockingHandler, Handler, Middleware
from dunnart.server.authentication import (
    AllowAnyone,
    Attempt,
    Authenticator,
    KeyCallback,
    PasswordCallback,
    PublicKeys,
)
from dunnart.server.blocking import BlockingSession
from dunnart.server.config import ServerConfig
from dunnart.server.event_objects import EventSession, SessionEvents
from dunnart.server.facts import Address, Terminal
from dunnart.server.raw import Application, RawSession
from dunnart.server.server import Server
from dunnart.server.session import Session

__all__ = [
    "Address",
    "Allow",
    "AllowAnyone",
    "Application",
    "AsyncHandler",
    "Attempt",
    "AuthReply",
    "Authenticator",
    "BlockingHandler",
    "BlockingSession",
    "BreakRequest",
    "Command",
    "Credential",
    "Deny",
    "EventSession",
    "Handler",
    "InteractiveCredential",
    "KeyCallback",
    "Middleware",
    "PasswordCallback",
    "PasswordCredential",
    "Prompt",
    "PublicKeyCredential",
    "PublicKeys",
    "RawSession",
    "Server",
    "ServerConfig",
    "Session",
    "SessionEvents",
    "SignalRequest",
    "Terminal",
    "WindowChange",
]
