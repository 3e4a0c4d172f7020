"""The callbacks that decide who may log in, as authenticators."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from dunnart.errors import DunnartError
from dunnart.keys import PublicKey
from dunnart.server import (
    Address,
    Allow,
    Attempt,
    Authenticator,
    AuthReply,
    Deny,
    PasswordCredential,
    PublicKeyCredential,
)

if TYPE_CHECKING:
    from dunnart.ecos.data import DropbearData

_LOG = logging.getLogger("dunnart.session")


def authenticators(data: DropbearData) -> list[Authenticator]:
    """Make those that there are callbacks for."""
    made: list[Authenticator] = []
    if data.get_public_keys is not None:
        made.append(_Keys(data))
    if data.authenticate_password is not None:
        made.append(_Password(data.authenticate_password))
    return made


class _Password:
    method = "password"

    def __init__(self, check: Callable[[str, Address, str], bool]) -> None:
        self._check = check

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callback."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        address = Address(attempt.address, attempt.port)
        allowed = await attempt.run(self._check, attempt.user, address, attempt.credential.password)
        return Allow() if allowed is True else Deny()


class _Keys:
    method = "publickey"

    def __init__(self, data: DropbearData) -> None:
        self._data = data
        self._mutex = threading.Lock()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask the callbacks."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        address = Address(attempt.address, attempt.port)
        allowed = await attempt.run(self._holds, attempt.credential.key, attempt.user, address)
        return Allow() if allowed is True else Deny()

    def _holds(self, wanted: PublicKey, user: str, address: Address) -> bool:
        data = self._data
        assert data.get_public_keys is not None
        if not self._mutex.acquire(timeout=data.callback_seconds):
            return False  # the one before has not come back, and this one's answer is too late anyway
        try:
            keys = data.get_public_keys(wanted.key_type, user, address)
            try:
                return any(_same(key, wanted) for key in self._first(keys))
            finally:
                if data.free_public_keys is not None:
                    data.free_public_keys(keys)
        finally:
            self._mutex.release()

    def _first(self, keys: Sequence[PublicKey | str]) -> list[PublicKey | str]:
        most = self._data.max_public_keys
        if len(keys) > most:
            _LOG.warning("get_public_keys gave %d keys, of which %d count (max_public_keys)", len(keys), most)
        return list(islice(keys, most))


def _same(key: PublicKey | str, wanted: PublicKey) -> bool:
    try:
        return (PublicKey.parse_line(key)[0] if isinstance(key, str) else key) == wanted
    except DunnartError as error:
        _LOG.warning("get_public_keys gave what is no public key: %s", error)
        return False
