"""The agent protocol: a real ssh-agent's answers are pinned in tests/interop; here is what no honest agent sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import AgentError
from dunnart.keys import PrivateKey
from dunnart.keys.agent import (
    LARGEST_MESSAGE,
    AgentAnswers,
    identities_request,
    read_identities,
    read_signature,
    sign_request,
)
from dunnart.wire.encoding import Reader, byte, string, text, uint32

ED = PrivateKey.generate("ed25519")
RSA = PrivateKey.generate("rsa", 2048)


def identities(*blobs: bytes, count: int | None = None) -> bytes:
    """An answer that lists keys."""
    entries = b"".join(string(blob) + text("a comment") for blob in blobs)
    return byte(12) + uint32(len(blobs) if count is None else count) + entries


def test_keys_are_listed() -> None:
    found = read_identities(identities(ED.public.blob, RSA.public.blob))
    assert [each.key for each in found] == [ED.public, RSA.public]
    assert found[0].comment == "a comment"
    assert read_identities(identities()) == ()


def test_a_key_of_an_unknown_type_is_left_out() -> None:
    found = read_identities(identities(text("ssh-new") + string(b"x"), ED.public.blob, b""))
    assert [each.key for each in found] == [ED.public]


def test_requests_have_the_specified_form() -> None:
    assert identities_request() == bytes((0, 0, 0, 1, 11))
    for algorithm, flags in (("ssh-rsa", 0), ("rsa-sha2-256", 2), ("rsa-sha2-512", 4),
                             ("rsa-sha2-512-cert-v01@openssh.com", 4)):  # fmt: skip
        reader = Reader(sign_request(RSA.public, algorithm, b"data"))
        body = Reader(reader.string())
        assert (body.byte(), body.string(), body.string(), body.uint32()) == (13, RSA.public.blob, b"data", flags)
        body.end()
        reader.end()


def test_a_signature_must_be_of_the_algorithm_that_was_asked_for() -> None:
    answer = byte(14) + string(RSA.sign("rsa-sha2-256", b"data"))
    signature = read_signature(answer, "rsa-sha2-256")
    assert RSA.public.verify("rsa-sha2-256", signature, b"data") is None
    assert read_signature(answer, "rsa-sha2-256-cert-v01@openssh.com") == signature
    with pytest.raises(AgentError, match="rsa-sha2-512 was asked for"):
        read_signature(answer, "rsa-sha2-512")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "empty"),
        (byte(5), "refused to list"),
        (byte(28), "refused to list"),
        (byte(14) + string(b""), "message 14, 12 was expected"),
        (byte(12), "malformed"),
        (identities(ED.public.blob, count=2), "malformed"),
        (identities(ED.public.blob, count=0xFFFFFFFF), "malformed"),
        (identities(ED.public.blob) + b"x", "malformed"),
    ],
)
def test_lists_that_are_none(answer: bytes, reason: str) -> None:
    with pytest.raises(AgentError, match=reason):
        read_identities(answer)


@pytest.mark.parametrize("answer", [byte(14), byte(14) + string(b""), byte(14) + string(b"x") + b"y", byte(5)])
def test_signatures_that_are_none(answer: bytes) -> None:
    with pytest.raises(AgentError):
        read_signature(answer, "ssh-ed25519")


@pytest.mark.parametrize("size", [0, LARGEST_MESSAGE + 1, 0xFFFFFFFF])
def test_a_message_of_no_possible_size_is_refused_at_once(size: int) -> None:
    with pytest.raises(AgentError, match=f"of {size} bytes"):
        AgentAnswers().receive(uint32(size))


def test_the_end_is_an_error() -> None:
    with pytest.raises(AgentError, match="closed"):
        AgentAnswers().receive(b"")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 9))
def test_any_chunking_gives_the_same_messages(payloads: list[bytes], size: int) -> None:
    data = b"".join(string(payload) for payload in payloads)
    answers = AgentAnswers()
    found = [each for start in range(0, len(data), size) for each in answers.receive(data[start : start + size])]
    assert found == payloads


@given(st.binary(max_size=200))
def test_garbage_is_an_agent_error_or_a_list(data: bytes) -> None:
    for read in (read_identities, lambda answer: read_signature(answer, "ssh-ed25519")):
        try:
            result = read(byte(12) + data)
        except AgentError:
            continue
        assert isinstance(result, tuple)
