"""The server: `Server`, the handlers that serve its sessions, and the authenticators that let users in."""

from dunnart.crypto.profiles import Algorithms
from dunnart.keys.rights import Rights
from dunnart.protocol.limits import Limits
from dunnart.protocol.questions import (
    Allow,
    AuthReply,
    Credential,
    Deny,
    GssapiCredential,
    GssapiKeyExchange,
    GssapiStep,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
    Refusal,
)
from dunnart.protocol.requests import BreakRequest, SignalRequest, WindowChange
from dunnart.runtime.admission import Admission, Network, Penalties, SourceBits, StartupLimit
from dunnart.runtime.listeners import ListenAddress
from dunnart.runtime.logs import clean, report
from dunnart.runtime.process import Call, Command
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
from dunnart.server.facts import Address, Candidate, ConnectionFacts, Terminal, UserTerms
from dunnart.server.file_transfer import ScpHandler, SftpHandler
from dunnart.server.forwarding import ClientLink, Listener, Scope, Tunnel
from dunnart.server.interfaces import (
    AccountCheck,
    AuditEvent,
    AuditSink,
    ChannelOpening,
    ChannelType,
    ConnectionRequest,
    Forward,
    ForwardingPolicy,
    GlobalRequestHandler,
    KeySource,
    SessionRequest,
    SessionRequestHandler,
)
from dunnart.server.plugins import Context, plugin
from dunnart.server.raw import Application, RawSession
from dunnart.server.server import Server
from dunnart.server.session import Session

__all__ = [
    "AccountCheck",
    "Address",
    "Admission",
    "Algorithms",
    "Allow",
    "AllowAnyone",
    "Application",
    "AsyncHandler",
    "Attempt",
    "AuditEvent",
    "AuditSink",
    "AuthReply",
    "Authenticator",
    "BlockingHandler",
    "BlockingSession",
    "BreakRequest",
    "Call",
    "Candidate",
    "ChannelOpening",
    "ChannelType",
    "ClientLink",
    "Command",
    "ConnectionFacts",
    "ConnectionRequest",
    "Context",
    "Credential",
    "Deny",
    "EventSession",
    "Forward",
    "ForwardingPolicy",
    "GlobalRequestHandler",
    "GssapiCredential",
    "GssapiKeyExchange",
    "GssapiStep",
    "Handler",
    "InteractiveCredential",
    "KeyCallback",
    "KeySource",
    "Limits",
    "ListenAddress",
    "Listener",
    "Middleware",
    "Network",
    "PasswordCallback",
    "PasswordCredential",
    "Penalties",
    "Prompt",
    "PublicKeyCredential",
    "PublicKeys",
    "RawSession",
    "Refusal",
    "Rights",
    "Scope",
    "ScpHandler",
    "Server",
    "ServerConfig",
    "Session",
    "SessionEvents",
    "SessionRequest",
    "SessionRequestHandler",
    "SftpHandler",
    "SignalRequest",
    "SourceBits",
    "StartupLimit",
    "Terminal",
    "Tunnel",
    "UserTerms",
    "WindowChange",
    "clean",
    "plugin",
    "report",
]
