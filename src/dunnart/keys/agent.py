"""The SSH agent protocol's client side (draft-ietf-sshm-ssh-agent; OpenSSH PROTOCOL.agent): messages in and out.

No socket here. A message is "uint32 length, byte type, contents"; the functions make whole ones, `AgentAnswers` takes
received bytes in chunks of any size and gives each message without its length.
"""

from __future__ import annotations

from dunnart.errors import AgentError, DecodeError, KeyFormatError
from dunnart.keys.certificate import Certificate, decode_public, plain_name
from dunnart.keys.public import PublicKey
from dunnart.records import dataclass
from dunnart.wire.encoding import Reader, byte, string, uint32

LARGEST_MESSAGE = 256 * 1024
_FAILURE = 5
_REQUEST_IDENTITIES, _IDENTITIES = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_EXTENSION_FAILURE = 28
_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """A key that an agent holds: its public half, or a certificate, and its comment."""

    key: PublicKey | Certificate
    comment: str


class AgentAnswers:
    """Cuts what an agent sends into messages."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes, b"" at the end, and give the messages that are complete by now.

        Raises:
            AgentError: the end has come, or a message is empty or larger than 256 KiB.
        """
        if not data:
            raise AgentError("the agent closed the connection")
        self._data += data
        found = []
        while len(self._data) >= 4:
            size = int.from_bytes(self._data[:4], "big")
            if not 1 <= size <= LARGEST_MESSAGE:
                raise AgentError(f"the agent announces a message of {size} bytes")
            if len(self._data) < 4 + size:
                break
            found.append(bytes(self._data[4 : 4 + size]))
            del self._data[: 4 + size]
        return found


def identities_request() -> bytes:
    """Ask for the keys that the agent holds."""
    return _message(_REQUEST_IDENTITIES)


def read_identities(answer: bytes) -> tuple[AgentIdentity, ...]:
    """Read the answer to `identities_request`; keys of types that are not supported are left out.

    Raises:
        AgentError: the agent failed, or what it says is malformed.
    """
    reader = _reader(answer, _IDENTITIES, "list its keys")
    found = []
    try:
        for _ in range(reader.uint32()):  # a short read ends a lying count (THREATS R8)
            blob, comment = reader.string(), reader.string()
            try:
                found.append(AgentIdentity(decode_public(blob), comment.decode(errors="replace")))
            except KeyFormatError:
                continue
        reader.end()
    except DecodeError as error:
        raise AgentError(f"the agent's list of keys is malformed: {error}") from error
    return tuple(found)


def sign_request(key: PublicKey | Certificate, algorithm: str, data: bytes) -> bytes:
    """Ask for a signature.

    Args:
        key: one of the agent's.
        algorithm: what to sign with; for RSA keys it says which hash.
        data: what to sign.
    """
    flags = _FLAGS.get(plain_name(algorithm) or algorithm, 0)
    return _message(_SIGN_REQUEST, string(key.blob) + string(data) + uint32(flags))


def read_signature(answer: bytes, algorithm: str) -> bytes:
    """Read the answer to `sign_request`: a signature blob, "string algorithm, string signature, …".

    Raises:
        AgentError: the agent refused, signed with another algorithm, or what it says is malformed.
    """
    reader = _reader(answer, _SIGN_RESPONSE, "sign")
    try:
        signature = reader.string()
        reader.end()
        label = Reader(signature).string()
    except DecodeError as error:
        raise AgentError(f"the agent's signature is malformed: {error}") from error
    wanted = plain_name(algorithm) or algorithm
    if label != wanted.encode():
        raise AgentError(f"the agent signed with {label[:64]!r}, {wanted} was asked for")
    return signature


def _message(number: int, contents: bytes = b"") -> bytes:
    return string(byte(number) + contents)


def _reader(answer: bytes, expected: int, wish: str) -> Reader:
    reader = Reader(answer)
    try:
        number = reader.byte()
    except DecodeError as error:
        raise AgentError("the agent's answer is empty") from error
    if number in {_FAILURE, _EXTENSION_FAILURE}:
        raise AgentError(f"the agent refused to {wish}")
    if number != expected:
        raise AgentError(f"the agent answered with message {number}, {expected} was expected")
    return reader
