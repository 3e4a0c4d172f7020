"""The publickey method with more keys than files hold: key sources are asked one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dunnart.server import Allow, AuthReply, Deny, PublicKeyCredential

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
    """

    method = "publickey"

    def __init__(self, sources: Mapping[str, KeySource], first: Authenticator | None = None) -> None:
        self._sources = dict(sources)
        self._first = first

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask until somebody knows the key."""
        credential = attempt.credential
        if not isinstance(credential, PublicKeyCredential):
            return Deny("not a public key")
        reply: AuthReply = Deny() if self._first is None else await self._first.authenticate(attempt)
        if isinstance(reply, Allow):
            return reply
        for name, source in self._sources.items():
            try:
                if credential.key in await source.keys(attempt.user, attempt.address):
                    return Allow()
            except Exception as error:  # noqa: BLE001 - the next may know the key
                _LOG.error("key source %s failed: %r", name, error)
                _LOG.debug("key source %s failed", name, exc_info=error)
        return reply
