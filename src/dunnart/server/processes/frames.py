"""What the protocol's processes and the application's say to each other.

Nothing is believed that comes from a protocol process beyond what its frames' structure says: it is the one that
strangers talk to.

    worker ► host                                  host ► worker
    AcceptAsked, AuthAsked      a question         Answered, AuthAnswered
    TermsAsked                a question         TermsAnswered
    SignAsked                   a question         Signed
    OpenAsked, RequestAsked     a question         OpenAnswered, RequestAnswered
    PrepareAsked                a question         Prepared
    Settled                     from its client    OpenWanted       ask the client for a channel
    UserIn, SessionAsked        serve this         Begun, Attach, AddStderr, End
    Requested, HungUp           from its client    Call             operate
    Opened, Gone                connections        Peer             another worker
    Said, Audited               for the records
    Returned                    a call's result

    acceptor ► worker: Dealt, with a connection    worker ► acceptor: Held, Entered, Left
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar

from dunnart.errors import DecodeError
from dunnart.protocol.requests import decode_strings, encode_strings
from dunnart.wire.messages import (
    Boolean,
    Rest,
    SecretRest,
    SecretText,
    String,
    Structure,
    Text,
    UInt32,
    UInt64,
    structure,
)

MOST_DESCRIPTORS = 3
"""How many one frame has at most."""


class Frame(Structure):
    """One message between processes."""

    __slots__ = ()
    number: ClassVar[int] = 0
    most_descriptors: ClassVar[int] = 0


@structure
class AcceptAsked(Frame):
    """May this client connect?"""

    token: UInt32
    host: Text
    port: UInt32


@structure
class TermsAsked(Frame):
    """How may this user log in? A `Candidate`."""

    token: UInt32
    connection: UInt64
    user: Text
    peer_host: Text
    peer_port: UInt32
    local_host: Text
    local_port: UInt32


@structure
class AuthAsked(Frame):
    """May this user in? The method says which of the last fields count."""

    token: UInt32
    connection: UInt64
    user: Text
    address: Text
    port: UInt32
    rounds: UInt32
    method: Text
    text: SecretText
    algorithm: Text
    signed: Boolean
    data: String
    answered: Boolean
    local_host: Text
    local_port: UInt32


@structure
class SignAsked(Frame):
    """Sign for a connection, with the host key that has this public half: the data, or a hash of them of that size."""

    token: UInt32
    connection: UInt64
    key: String
    algorithm: Text
    hash_bytes: UInt32
    data: SecretRest


@structure
class UserIn(Frame):
    """A user has logged in: `ConnectionFacts`; `grants` are the numbers that `AuthAnswered` gave, 32 bits each."""

    connection: UInt64
    user: Text
    peer_host: Text
    peer_port: UInt32
    local_host: Text
    local_port: UInt32
    method: Text
    key: String
    grants: String
    client_version: Text


@structure
class SessionAsked(Frame):
    """A session is to be served: `SessionFacts`; `terminal` is a `PtyRequest`, or empty."""

    connection: UInt64
    channel: UInt32
    kind: Text
    command: String
    subsystem: Text
    environment: String
    terminal: String
    opening: UInt32


@structure
class OpenAsked(Frame):
    """May a channel that is no session be opened?"""

    token: UInt32
    connection: UInt64
    channel_type: Text
    data: Rest


@structure
class Abandoned(Frame):
    """Nothing came of a channel that was to be opened."""

    opening: UInt32


@structure
class PrepareAsked(Frame):
    """Answer a request of a session that has not begun."""

    token: UInt32
    connection: UInt64
    channel: UInt32
    name: Text
    data: Rest


@structure
class Unprepared(Frame):
    """A session for which such requests were answered is gone."""

    connection: UInt64
    channel: UInt32


@structure
class Settled(Frame):
    """The client has opened a channel that it was asked for; or has refused, for the reason that follows."""

    connection: UInt64
    opening: UInt32
    refused: Boolean
    reason_code: UInt32
    description: Text


@structure
class RequestAsked(Frame):
    """Answer a global request."""

    token: UInt32
    connection: UInt64
    name: Text
    data: Rest


@structure
class Audited(Frame):
    """An `AuditEvent`: the time is in microseconds, the details are JSON."""

    time: UInt64
    kind: Text
    connection: UInt64
    user: Text
    host: Text
    port: UInt32
    details: Rest


@structure
class Requested(Frame):
    """The client asks something of a session."""

    connection: UInt64
    channel: UInt32
    name: Text
    data: Rest


@structure
class HungUp(Frame):
    """A session's channel is gone."""

    connection: UInt64
    channel: UInt32


@structure
class Opened(Frame):
    """A connection was accepted."""

    connection: UInt64


@structure
class Gone(Frame):
    """A connection has ended."""

    connection: UInt64


@structure
class Said(Frame):
    """A log line; `connection` 0 belongs to none."""

    level: UInt32
    logger: Text
    message: Text
    connection: UInt64
    user: Text
    peer: Text


@structure
class Returned(Frame):
    """What a call gave, as JSON; or, if it `failed`, why as a text in JSON."""

    token: UInt32
    failed: Boolean
    result: Rest


@structure
class Answered(Frame):
    """Yes or no."""

    token: UInt32
    yes: Boolean


@structure
class TermsAnswered(Frame):
    """The chains, as texts, and the user's own limits as JSON, or ""."""

    token: UInt32
    chains: String
    limits: Text


@structure
class AuthAnswered(Frame):
    """An `AuthReply`: `kind` 0 denies, 1 allows, 2 prompts, 3 goes on.

    `texts` are the detail of what denies; name, instruction and prompts; or the bytes of a `GssapiStep`.
    """

    token: UInt32
    kind: UInt32
    flags: UInt32
    grant: UInt32
    texts: String


@structure
class Signed(Frame):
    """The signature; empty: there is none."""

    token: UInt32
    signature: Rest


@structure
class OpenAnswered(Frame):
    """An `Opening`; `opening` 0 refuses for the reason that follows. The socket of a tunnel travels beside this."""

    token: UInt32
    opening: UInt32
    detail: Text
    tunnel: Boolean
    reason_code: UInt32
    description: Text


@structure
class Prepared(Frame):
    """The answer to a session's request, and variables for the session."""

    token: UInt32
    yes: Boolean
    variables: String


@structure
class OpenWanted(Frame):
    """Ask the client for a channel, an `Opening`: `Settled` follows. The socket of a tunnel travels beside this."""

    connection: UInt64
    channel_type: Text
    opening: UInt32
    detail: Text
    tunnel: Boolean
    data: Rest


@structure
class RequestAnswered(Frame):
    """The answer to a global request."""

    token: UInt32
    yes: Boolean
    data: Rest


@structure
class Begun(Frame):
    """Whether something serves a session."""

    connection: UInt64
    channel: UInt32
    yes: Boolean


@structure
class Attach(Frame):
    """A session's descriptors travel beside this: one of a socket or of a pty's master side, or three pipes."""

    connection: UInt64
    channel: UInt32
    terminal: Boolean
    typed: Boolean


@structure
class AddStderr(Frame):
    """A descriptor for a session's stderr travels beside this."""

    connection: UInt64
    channel: UInt32


@structure
class End(Frame):
    """A session has ended: by a signal if one is named, else with a status."""

    connection: UInt64
    channel: UInt32
    status: UInt32
    signal: Text
    text: Text


@structure
class Call(Frame):
    """Do something: a method's name, and its arguments as JSON. Returned follows."""

    token: UInt32
    name: Text
    arguments: Rest


@structure
class Peer(Frame):
    """A link to another worker travels beside this; to the acceptor if `acceptor`."""

    index: UInt32
    acceptor: Boolean


@structure
class Dealt(Frame):
    """A connection travels beside this: serve it."""

    host: Text
    port: UInt32


@structure
class Held(Frame):
    """A worker serves so many connections, which the acceptor that it meets has not dealt."""

    connections: UInt32


@structure
class Entered(Frame):
    """The user of a dealt connection has logged in."""

    host: Text


@structure
class Left(Frame):
    """A dealt connection has ended; `outcome` is empty if its user had logged in."""

    host: Text
    outcome: Text


FRAMES: tuple[type[Frame], ...] = (
    AcceptAsked, AuthAsked, UserIn, SessionAsked, OpenAsked, Abandoned, RequestAsked, Audited, Requested, HungUp,
    Opened, Gone, Said, Returned, Answered, AuthAnswered, OpenAnswered, RequestAnswered, Begun, Attach, AddStderr,
    End, Call, Peer, Held, Dealt, Entered, Left, PrepareAsked, Unprepared, Settled, Prepared, OpenWanted,
    TermsAsked, TermsAnswered, SignAsked, Signed,
)  # fmt: skip
"""In the order of their numbers, which begin with 1."""
for _number, _frame in enumerate(FRAMES, 1):
    _frame.number = _number
for _frame in (AddStderr, Peer, Dealt, OpenAnswered, OpenWanted):
    _frame.most_descriptors = 1
Attach.most_descriptors = MOST_DESCRIPTORS


def join_texts(texts: Iterable[str]) -> bytes:
    """Put texts into one field."""
    return encode_strings([text.encode() for text in texts])


def split_texts(data: bytes) -> list[str]:
    """Take them out again.

    Raises:
        DecodeError: one of them is not UTF-8, or its end is missing.
    """
    try:
        return [item.decode() for item in decode_strings(data)]
    except UnicodeDecodeError as error:
        raise DecodeError("a text is not UTF-8") from error


def parse_json(data: bytes) -> Any:  # noqa: ANN401 - what JSON knows
    """Read a field that holds JSON.

    Raises:
        DecodeError: it does not.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("no JSON") from error
