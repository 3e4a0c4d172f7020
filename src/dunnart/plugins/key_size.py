"""RSA keys that are too small let nobody in, whoever may allow them: sshd's RequiredRSASize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.server import Deny, PublicKeyCredential

if TYPE_CHECKING:
    from dunnart.server import Attempt, Authenticator, AuthReply


class LargeEnough:
    """An authenticator for keys that allows no RSA key with fewer bits, nor one that such an authority has signed.

    Args:
        inner: what allows keys.
        bits: how many are wanted.
    """

    def __init__(self, inner: Authenticator, bits: int) -> None:
        self.method = inner.method
        self.on_any_loop = bool(getattr(inner, "on_any_loop", False))
        self.certificates = getattr(inner, "certificates", False) is True
        self._inner = inner
        self._bits = bits
        if hasattr(inner, "ended"):
            self.ended = inner.ended

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Measure the key, and ask."""
        credential = attempt.credential
        if isinstance(credential, PublicKeyCredential):
            keys = [credential.key, *([] if credential.certificate is None else [credential.certificate.authority])]
            for key in keys:
                if 0 < key.rsa_bits < self._bits:
                    return Deny(f"an RSA key of {key.rsa_bits} bits; {self._bits} are wanted", final=True)
        return await self._inner.authenticate(attempt)
