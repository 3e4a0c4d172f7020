"""One password, made for this run of the server and printed at its start, as a notebook server prints its token."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.records import dataclass
from dunnart.server import Allow, AuthReply, Deny, PasswordCredential
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context


@dataclass(frozen=True, slots=True)
class Options:
    """What `dunnart serve` fills in.

    Attributes:
        user: who may log in.
        password: made for this run.
    """

    user: str
    password: str = field(repr=False)


@plugin(Options)
def for_this_run(context: Context[Options]) -> OneTimePassword:
    """Lets one user in by the password that is printed at the start."""
    return OneTimePassword(context.options.user, context.options.password)


class OneTimePassword:
    """The password method for one user and one password.

    Args:
        user: who may log in by it.
        password: random, so that no hash has to slow guessing down.
    """

    method = "password"
    on_any_loop = True

    def __init__(self, user: str, password: str) -> None:
        self._user = user.encode()
        self._password = password.encode()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Compare, in a time that tells nothing."""
        if not isinstance(attempt.credential, PasswordCredential):
            return Deny("not a password")
        # Imported here, for it brings hashlib and with it the system's OpenSSL: 3 MB.
        from cryptography.hazmat.primitives.constant_time import bytes_eq

        right_user = bytes_eq(attempt.user.encode(), self._user)
        right_password = bytes_eq(attempt.credential.password.encode(), self._password)
        return Allow() if right_user and right_password else Deny()
