"""The publickey method with more keys than files hold: key sources are asked one after the other."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from dunnart.crypto.profiles import PROFILES
from dunnart.server import Allow, AuthReply, Deny, PublicKeyCredential
from dunnart.server.authentication import RefusedLines, decider, keys_among, reply_of

if TYPE_CHECKING:
    from dunnart.server.authentication import Attempt, Authenticator
    from dunnart.server.interfaces import KeySource

_LOG = logging.getLogger("dunnart.auth")


class KeySources:
    """Allows a key that another authenticator allows, or that one of several sources knows.

    A source that fails does not keep the others from being asked.

    Args:
        sources: the sources by their names, in the order in which they are asked.
        first: the authenticator that is asked before them.
        algorithms: the signature algorithms that an authority may have used on a certificate.
    """

    method = "publickey"

    def __init__(
        self, sources: Mapping[str, KeySource], first: Authenticator | None = None,
        algorithms: Collection[str] = PROFILES["default"].ca_signature,
    ) -> None:  # fmt: skip
        self._algorithms = algorithms
        self._sources = dict(sources)
        self._first = first
        self._told = RefusedLines()
        # Only an authenticator that knows certificates may be asked about them; without one the sources are.
        self.certificates = first is None or getattr(first, "certificates", False) is True
        if first is not None and hasattr(first, "ended"):
            self.ended = first.ended

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask until somebody knows the key."""
        credential = attempt.credential
        if not isinstance(credential, PublicKeyCredential):
            return Deny("not a public key")
        reply: AuthReply = Deny() if self._first is None else await self._first.authenticate(attempt)
        if isinstance(reply, Allow) or (isinstance(reply, Deny) and reply.final):
            return reply
        decide = decider(attempt, algorithms=self._algorithms)
        for name, source in self._sources.items():
            try:
                found = await source.keys(attempt.user, attempt.address)
                keys = keys_among(found, f"key source {name} for {attempt.user}")
            except Exception as error:  # noqa: BLE001 - the next may know the key
                _LOG.error("key source %s failed: %r", name, error)
                _LOG.debug("key source %s failed", name, exc_info=error)
                continue
            self._told.tell(keys)
            decided = reply_of(decide(keys))
            if isinstance(decided, Allow) or (isinstance(decided, Deny) and decided.final):
                return decided
            if isinstance(decided, Deny) and decided.detail:
                reply = decided
        return reply
