"""Keys that let nobody in any more, whoever may allow them: sshd's RevokedKeys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys.files import read_regular
from dunnart.keys.revocation import FILE_BYTES_MAX, RevokedKeys
from dunnart.server import Allow, AuthReply, Deny, PublicKeyCredential

if TYPE_CHECKING:
    from dunnart.keys import Certificate, PublicKey
    from dunnart.server import Attempt, Authenticator


class RevokedKeysFile:
    """A file with revoked keys, a KRL or a list, read again when it changes. One that cannot be used revokes all keys.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: tuple[tuple[int, ...], RevokedKeys | str] | None = None

    def load(self) -> RevokedKeys:
        """Give what is in it.

        Raises:
            ConfigError: it cannot be read, or is damaged.
        """
        try:
            found = os.stat(self._path)
            identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if self._held is None or self._held[0] != identity:
                self._held = identity, self._read()
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", path=self._path) from error
        content = self._held[1]
        if isinstance(content, str):
            raise ConfigError(content, path=self._path)
        return content

    def _read(self) -> RevokedKeys | str:
        try:
            return RevokedKeys.parse(read_regular(self._path, FILE_BYTES_MAX)[1])
        except KeyFormatError as error:
            return str(error)

    def reason(self, key: PublicKey | Certificate) -> str:
        """Say why a key must not be let in, or ""."""
        try:
            return self.load().reason(key)
        except ConfigError as error:
            return f"no key is let in while it is not known which are revoked: {error}"


class NotRevoked:
    """An authenticator for keys that allows none that is revoked.

    Args:
        inner: what allows keys.
        files: the lists of revoked ones.
    """

    def __init__(self, inner: Authenticator, files: Sequence[RevokedKeysFile]) -> None:
        self.method = inner.method
        self.on_any_loop = bool(getattr(inner, "on_any_loop", False))
        self.certificates = getattr(inner, "certificates", False) is True
        self._inner = inner
        self._files = tuple(files)
        if hasattr(inner, "ended"):
            self.ended = inner.ended

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask it, and look the key up."""
        reply = await self._inner.authenticate(attempt)
        credential = attempt.credential
        if not isinstance(reply, Allow) or not isinstance(credential, PublicKeyCredential):
            return reply
        reason = await attempt.run(self._reason, credential.certificate or credential.key)
        return Deny(reason, final=True) if reason else reply

    def _reason(self, key: PublicKey | Certificate) -> str:
        return next(filter(None, (file.reason(key) for file in self._files)), "")
