"""What proves a login: the bytes that a client signs, and whether its signature holds (RFC 4252 §7, RFC 4462 §3.5).

The engine checks every proof. A privileged process that trusts no engine checks it again, with the session id that it
has seen itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.errors import KeyFormatError
from dunnart.wire.encoding import string, text

if TYPE_CHECKING:
    from dunnart.protocol.questions import Allow, PublicKeyCredential

SERVICE = "ssh-connection"
HOSTBOUND = "publickey-hostbound-v00@openssh.com"
_REQUEST = b"\x32"


def signed_request(session_id: bytes, user: str, credential: PublicKeyCredential) -> bytes:
    """Give what the signature of a public key is made over (RFC 4252 §7, OpenSSH PROTOCOL §3)."""
    hostbound = credential.host_key is not None
    return b"".join((
        string(session_id), _REQUEST, text(user), text(SERVICE), text(HOSTBOUND if hostbound else credential.method),
        b"\1", text(credential.algorithm), string((credential.certificate or credential.key).blob),
        string(credential.host_key or b"") if hostbound else b"",
    ))  # fmt: skip


def signed_with_mic(session_id: bytes, user: str, method: str) -> bytes:
    """Give what a GSS-API mechanism's MIC is made over (RFC 4462 §3.5, 4)."""
    return string(session_id) + _REQUEST + text(user) + text(SERVICE) + text(method)


def unproven(credential: PublicKeyCredential, signed: bytes, reply: Allow) -> str:
    """Say why the signature does not prove the key, or "" when it does."""
    shown = credential.certificate or credential.key
    try:
        token = shown.verify(credential.algorithm, credential.signature, signed)
    except KeyFormatError as error:
        return str(error)
    if token is not None and reply.touch and not token.user_present:
        return "the security key was not touched"
    if token is not None and reply.verify and not token.user_verified:
        return "the security key did not verify its user"
    return ""
