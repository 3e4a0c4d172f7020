"""Somebody has the last word on every login, wherever the protocol runs: after the proof, and at the end of a chain."""

from __future__ import annotations

from dunnart.keys.rights import Rights
from dunnart.protocol.questions import CredentialQuestion, PasswordCredential
from dunnart.server import Allow, Attempt, Deny
from dunnart.wire.encoding import uint32
from tests.runtime.driver import PASSWORD, USER, eventually
from tests.runtime.test_methods_of_users import ANSWERS, tried
from tests.runtime.test_placements import every_placement, placed
from tests.runtime.test_rights import Granting
from tests.security.test_hostile_worker import STRANGER, Asking, sign, signed


class LastWord:
    """Says the same to everybody, and keeps what it was asked and told."""

    def __init__(self, reply: Allow | Deny | None = None) -> None:
        self._reply = reply
        self.asked: list[tuple[str, str]] = []
        self.gone: list[int] = []

    async def admit(self, attempt: Attempt, allowed: Allow) -> Allow | Deny:
        self.asked.append((attempt.user, attempt.credential.method))
        return self._reply or allowed

    def ended(self, connection: int) -> None:
        self.gone.append(connection)


@every_placement
async def test_it_is_asked_once_at_the_end_of_a_chain(where: tuple[str, int]) -> None:
    check = LastWord(Allow("instead", Rights(pty=False)))
    authenticators = [Granting(None), Granting(None, "keyboard-interactive")]
    chain = ["password,keyboard-interactive"]
    async with placed(where, authenticators=authenticators, methods=chain, account=check) as server:
        client = server.begin(answers=ANSWERS)
        assert await tried(client)
        assert check.asked == [(USER, "keyboard-interactive")]
        client.close()
        await eventually(lambda: len(check.gone) == 1)


@every_placement
async def test_it_keeps_out_who_has_proved_who_he_is(where: tuple[str, int]) -> None:
    check = LastWord(Deny("the account is closed"))
    wrong_then_right = iter([PasswordCredential("wrong"), PasswordCredential(PASSWORD)])
    async with placed(where, account=check) as server:
        client = server.begin(answers={CredentialQuestion: lambda _: next(wrong_then_right, None)})
        assert not await tried(client)
        assert check.asked == [(USER, "password")]


async def test_a_key_is_asked_about_only_with_its_signature_and_no_process_goes_round_it() -> None:
    check = LastWord(Deny())
    worker = Asking(account=check)
    await worker.ask(sign())
    assert await worker.offers(signed(STRANGER)) == 0
    assert check.asked == []
    assert await worker.offers(signed()) == 0
    assert check.asked == [(USER, "publickey")]
    assert not await worker.is_in(grants=uint32(0))
    await worker.fake.close()


async def test_a_processs_word_does_not_end_a_chain() -> None:
    check = LastWord()
    worker = Asking(account=check, methods=["publickey,password"])
    await worker.ask(sign())
    assert await worker.offers(signed()) == 1
    assert check.asked == []
    assert await worker.offers(PasswordCredential(PASSWORD)) == 1
    assert check.asked == [(USER, "password")]
    assert await worker.is_in("password", b"", grants=uint32(0) * 2)
    await worker.fake.close()
