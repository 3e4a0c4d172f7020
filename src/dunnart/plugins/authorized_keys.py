"""Public keys from the users' authorized_keys files."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dunnart.keys.authorized_keys import AuthorizedKeysCache
from dunnart.plugins import os_account
from dunnart.server import Allow, AuthReply, Deny, PublicKeyCredential, clean
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.keys.public import PublicKey
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_LOG = logging.getLogger("dunnart.auth")


@dataclass(frozen=True, slots=True)
class Options:
    """What `dunnart serve` fills in from its own options.

    Attributes:
        files: the option authorized_keys.
        strict_modes: the option of that name.
        root: whether permit_root_login lets root in by a key.
    """

    files: tuple[str, ...] = ("%h/.ssh/authorized_keys",)
    strict_modes: bool = True
    root: bool = True


@plugin(Options)
def from_files(context: Context[Options]) -> AuthorizedKeysFiles:
    """Lets in by the public keys that the user's files list."""
    options = context.options
    return AuthorizedKeysFiles(options.files, strict_modes=options.strict_modes, root=options.root)


class AuthorizedKeysFiles:
    """The publickey method, by files as sshd's AuthorizedKeysFile names them.

    Args:
        patterns: file names; %h is the user's home, %u the name, %U the number, %% a percent sign; relative ones stand
            in the home.
        strict_modes: refuse files and folders that others can write.
        root: whether root may log in.
    """

    method = "publickey"
    on_any_loop = True

    def __init__(self, patterns: tuple[str, ...], *, strict_modes: bool = True, root: bool = True) -> None:
        self._patterns = patterns
        self._strict_modes = strict_modes
        self._root = root
        self._cache = AuthorizedKeysCache()
        self._told: dict[str, tuple[tuple[int, str], ...]] = {}

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Allow a key that one of the user's files lists."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        # Homes may stand on a network, and so may the list of users: in a thread a hung one holds up nobody else.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._decide, attempt.user, attempt.credential.key)

    def _decide(self, user: str, key: PublicKey) -> AuthReply:
        account = os_account.find(user)
        if account is None:
            return Deny("no such user here", unknown_user=True)
        if account.uid == 0 and not self._root:
            return Deny("root may not log in")
        for pattern in self._patterns:
            keys = self._cache.load(
                fill_in(pattern, account.name, account.uid, account.home),
                owner_uid=account.uid if self._strict_modes else None,
                home=account.home,
            )
            self._tell(keys.source, keys.refused)
            if keys.find(key):
                return Allow(account)
        return Deny()

    def _tell(self, source: str, refused: tuple[tuple[int, str], ...]) -> None:
        # Each file's refused lines are logged once, and again when they change.
        if self._told.get(source, ()) == refused:
            return
        self._told[source] = refused
        for line, reason in refused:
            _LOG.warning("%s:%d: this line lets nobody in: %s", clean(source), line, clean(reason))


def fill_in(pattern: str, name: str, uid: int, home: str) -> str:
    """The file that a pattern means for a user: %h, %u, %U and %% are filled in; a relative one stands in the home."""
    tokens = {"%%": "%", "%h": home, "%u": name, "%U": str(uid)}
    parts = []
    position = 0
    while position < len(pattern):
        size = 2 if pattern[position] == "%" else 1
        piece = pattern[position : position + size]
        parts.append(tokens.get(piece, piece))
        position += size
    return os.path.join(home, "".join(parts))
