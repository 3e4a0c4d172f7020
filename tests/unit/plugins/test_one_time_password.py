"""One password for one user."""

from __future__ import annotations

import pytest

from dunnart.plugins.one_time_password import OneTimePassword
from dunnart.protocol.questions import Allow, Credential, Deny, NoneCredential, PasswordCredential
from dunnart.server import Attempt


@pytest.mark.parametrize(
    ("user", "credential", "allowed"),
    [
        ("alice", PasswordCredential("secret"), True),
        ("alice", PasswordCredential("Secret"), False),
        ("alice", PasswordCredential("secret "), False),
        ("alice", PasswordCredential(""), False),
        ("bob", PasswordCredential("secret"), False),
        ("", PasswordCredential("secret"), False),
        ("alice", PasswordCredential("sécret"), False),
        ("alice", NoneCredential(), False),
    ],
)
async def test_only_that_user_with_that_password(user: str, credential: Credential, allowed: bool) -> None:
    reply = await OneTimePassword("alice", "secret").authenticate(Attempt(user, credential, "192.0.2.1"))
    assert isinstance(reply, Allow if allowed else Deny)


def test_the_password_is_in_no_repr() -> None:
    assert "secret" not in repr(OneTimePassword("alice", "secret"))
