"""`PublicKeys` and `KeyCallback`: keys in the program's hands, with the options of their lines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey, PublicKey
from dunnart.server import Allow, Attempt, Authenticator, Deny, KeyCallback, PublicKeyCredential, PublicKeys, Rights

ONE, TWO = PrivateKey.generate("ed25519").public, PrivateKey.generate("ed25519").public


async def ask(authenticator: Authenticator, key: PublicKey = ONE, address: str = "192.0.2.1") -> Allow | Deny:
    credential = PublicKeyCredential(key, "ssh-ed25519", signed=True)
    reply = await authenticator.authenticate(Attempt("ann", credential, address))
    assert isinstance(reply, Allow | Deny)
    return reply


async def test_options_of_known_keys_are_obeyed() -> None:
    keys = PublicKeys(f'from="192.0.2.1",no-pty {ONE.line()}\n{TWO.line()}')
    assert await ask(keys) == Allow(None, Rights(pty=False))
    assert await ask(keys, TWO) == Allow()
    assert isinstance(await ask(keys, address="192.0.2.2"), Deny)


def test_only_keys_without_options_are_decided_on_elsewhere() -> None:
    assert PublicKeys(ONE.line()).travels
    assert not PublicKeys(f"no-pty {ONE.line()}").travels


async def test_variables_are_the_program_s_to_allow() -> None:
    line = f'environment="WHO=me" {ONE.line()}'
    with pytest.raises(ConfigError, match="line 1 lets nobody in: environment sets WHO"):
        PublicKeys(line)
    assert await ask(PublicKeys(line, variables=["WHO"])) == Allow(None, Rights(environment=(("WHO", "me"),)))


async def test_a_callback_s_lines_may_have_options(caplog: pytest.LogCaptureFixture) -> None:
    async def find(user: str, address: str) -> Sequence[PublicKey | str]:
        return [f'command="x" {ONE.line()}', f"unheard-of {TWO.line()}", ONE, TWO]

    keys = KeyCallback(find)
    assert await ask(keys) == Allow(None, Rights(command=b"x"))  # the first that fits
    denied = await ask(keys, TWO)
    assert isinstance(denied, Deny)
    assert denied.detail == "the callback for ann:2: the line is not understood"
    assert caplog.messages == [
        "the callback for ann:2: this line lets nobody in: unknown option 'unheard-of'",
        "the callback for ann:4: this line lets nobody in: line 2 has the same key and is not understood",
    ]
