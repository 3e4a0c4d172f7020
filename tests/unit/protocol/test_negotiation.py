from __future__ import annotations

from dataclasses import replace

import pytest

from dunnart.crypto.profiles import PROFILES, Algorithms
from dunnart.errors import DecodeError, LimitExceeded, NegotiationError
from dunnart.protocol.limits import Limits
from dunnart.protocol.negotiation import Settlement, offer, settle
from dunnart.protocol.phases import Role
from dunnart.testing.pair import kexinit as offered
from dunnart.wire.messages import KexInit

CTR, GCM = "aes128-ctr", "aes128-gcm@openssh.com"
OURS = Algorithms(("a", "b"), ("h",), (CTR, GCM), ("m", "n"), ("none",), (), ())


def kexinit(**fields: object) -> KexInit:
    return offered(OURS, **fields)


def settled(peer: KexInit, role: Role = Role.SERVER, *, first: bool = True, **ours: tuple[str, ...]) -> Settlement:
    return settle(role, replace(OURS, **ours), Limits(), peer.encode(), first=first)


def test_the_client_s_first_choice_wins() -> None:
    """RFC 4253 §7.1."""
    as_server = settled(kexinit(kex=("b", "a"), macs_to_server=("n", "m"))).algorithms
    assert (as_server.kex, as_server.mac_to_server, as_server.cipher_to_client) == ("b", "n", CTR)
    as_client = settled(kexinit(kex=("b", "a"), macs_to_server=("n", "m")), Role.CLIENT).algorithms
    assert (as_client.kex, as_client.mac_to_server, as_client.cipher_to_client) == ("a", "m", CTR)


def test_no_mac_is_wanted_beside_an_aead() -> None:
    chosen = settled(kexinit(ciphers_to_server=(GCM,), macs_to_server=("x",))).algorithms
    assert (chosen.cipher_to_server, chosen.mac_to_server, chosen.mac_to_client) == (GCM, "", "m")


@pytest.mark.parametrize(
    ("field", "kind"),
    [("kex", "key exchange method"), ("host_key", "host key type"), ("ciphers_to_server", "cipher"),
     ("ciphers_to_client", "cipher"), ("macs_to_server", "MAC"), ("macs_to_client", "MAC"),
     ("compression_to_server", "compression method"), ("compression_to_client", "compression method")],
)  # fmt: skip
@pytest.mark.parametrize("value", [("strange", "more"), ()])
def test_what_is_not_in_common_is_named(field: str, kind: str, value: tuple[str, ...]) -> None:
    for _ in range(2):  # a failure is not remembered as something else
        with pytest.raises(NegotiationError, match=f"^no matching {kind} found. Their offer: {','.join(value)}$"):
            settled(kexinit(**{field: value}))


def test_languages_need_not_agree() -> None:
    assert settled(kexinit(languages_to_client=("de",), languages_to_server=("fr",))).algorithms.kex == "a"


@pytest.mark.parametrize(
    ("peer", "wrong"),
    [({}, False), ({"kex": ("b", "a")}, True), ({"host_key": ("x", "h")}, True), ({"kex": ("a",)}, False),
     ({"macs_to_client": ("n",)}, False)],
)  # fmt: skip
def test_guesses(peer: dict[str, tuple[str, ...]], wrong: bool) -> None:
    assert settled(kexinit(**peer, first_kex_packet_follows=True)).guessed_wrong is wrong
    assert settled(kexinit(**peer)).guessed_wrong is False


@pytest.mark.parametrize(("role", "other"), [(Role.SERVER, "c"), (Role.CLIENT, "s")])
def test_markers_of_the_other_role_are_heeded(role: Role, other: str) -> None:
    own = {"c": "s", "s": "c"}[other]
    strict, ext_info = "kex-strict-{}-v00@openssh.com", "ext-info-{}"
    plain = settled(kexinit(), role)
    assert (plain.strict, plain.ext_info) == (False, False)
    marked = settled(kexinit(kex=("a", strict.format(other), ext_info.format(other))), role)
    assert (marked.strict, marked.ext_info) == (True, True)
    mirrored = settled(kexinit(kex=("a", strict.format(own), ext_info.format(own))), role)
    assert (mirrored.strict, mirrored.ext_info) == (False, False)


def test_markers_are_never_chosen() -> None:
    for marker in ("ext-info-c", "ext-info-s", "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"):
        with pytest.raises(NegotiationError):
            settled(kexinit(kex=(marker,)))


def test_what_is_remembered_is_of_this_offer_and_these_limits() -> None:
    payload = kexinit().encode()
    for _ in range(2):
        for role, ours, kex in (
            (Role.SERVER, OURS, "a"),
            (Role.SERVER, replace(OURS, kex=("b",)), "b"),
            (Role.CLIENT, replace(OURS, kex=("b", "a")), "b"),
        ):
            assert settle(role, ours, Limits(), payload, first=True).algorithms.kex == kex
        with pytest.raises(LimitExceeded):
            settle(Role.SERVER, OURS, Limits(names_per_list=1), payload, first=True)
        with pytest.raises(LimitExceeded):
            settle(Role.SERVER, OURS, Limits(kexinit_bytes=len(payload) - 1), payload, first=True)
    exact = Limits(kexinit_bytes=len(payload))
    assert settle(Role.SERVER, OURS, exact, payload, first=True).algorithms.kex == "a"


def test_cookies_do_not_matter_and_bad_forms_do() -> None:
    assert settled(kexinit(cookie=b"x" * 16)) == settled(kexinit(cookie=b"y" * 16))
    for payload in (
        kexinit(reserved=1).encode(),
        kexinit().encode()[:-1],
        kexinit().encode() + b"\0",
        b"\x14",
        b"\x14" * 17,
    ):
        with pytest.raises(DecodeError):
            settle(Role.SERVER, OURS, Limits(), payload, first=True)


@pytest.mark.parametrize("role", Role)
def test_offers(role: Role) -> None:
    algorithms = PROFILES["default"]
    first = KexInit.decode(b"\x14" + bytes(16) + offer(role, algorithms, first=True))
    later = KexInit.decode(b"\x14" + bytes(16) + offer(role, algorithms, first=False))
    letter = role.value[0]
    assert first.kex == (*algorithms.kex, f"ext-info-{letter}", f"kex-strict-{letter}-v00@openssh.com")
    assert later.kex == algorithms.kex
    assert (later.ciphers_to_client, later.first_kex_packet_follows) == (algorithms.ciphers, False)
    assert first.host_key == algorithms.host_key
    assert any("-cert-" in name for name in first.host_key)  # known_hosts may name their authorities
