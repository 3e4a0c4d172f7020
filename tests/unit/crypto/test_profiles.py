"""Profiles, list edits and the choice between two lists."""

from __future__ import annotations

import warnings
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.crypto.ciphers import CIPHERS, MACS
from dunnart.crypto.compression import COMPRESSION
from dunnart.crypto.kex import KEX_METHODS
from dunnart.crypto.profiles import KNOWN, PROFILES, Algorithms, edit, negotiate
from dunnart.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ssh_audit.ssh2_kexdb import SSH2_KexDB  # type: ignore[import-untyped]

KINDS = [field.name for field in fields(Algorithms)]
every_profile = pytest.mark.parametrize("profile", list(PROFILES.values()), ids=list(PROFILES))
NAMES = ("alpha", "beta", "beta2", "gamma@example.org", "delta")
some_names = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)


def complaints(name: str, kind: str) -> tuple[list[str | None], list[str | None]]:
    """Look up ssh-audit's failures and warnings for an algorithm; an unknown one has no entry and fails."""
    entry = SSH2_KexDB.MASTER_DB[kind][name]
    return entry[1] if len(entry) > 1 else [], entry[2] if len(entry) > 2 else []


AUDITED = (("kex", "kex"), ("host_key", "key"), ("ciphers", "enc"), ("macs", "mac"))


@every_profile
def test_profiles_name_what_exists_once(profile: Algorithms) -> None:
    for kind in KINDS:
        names = getattr(profile, kind)
        assert names
        assert len(set(names)) == len(names)
        assert set(names) <= set(getattr(KNOWN, kind))
    assert set(profile.kex) <= set(KEX_METHODS)
    assert set(profile.ciphers) <= set(CIPHERS)
    assert set(profile.macs) <= set(MACS)
    assert set(profile.compression) <= set(COMPRESSION)
    assert profile.compression[0] == "none"
    assert not any(name.endswith("-cert-v01@openssh.com") for name in profile.ca_signature)


def test_strict_has_neither_a_failure_nor_a_warning_in_ssh_audit() -> None:
    for field, kind in AUDITED:
        for name in getattr(PROFILES["strict"], field):
            assert complaints(name, kind) == ([], []), name


def test_default_has_no_failure_in_ssh_audit_but_nist_host_keys() -> None:
    """ECDSA is offered only where such a host key is configured."""
    for field, kind in AUDITED:
        for name in getattr(PROFILES["default"], field):
            if not name.startswith("ecdsa-"):
                assert complaints(name, kind)[0] == [], name


@pytest.mark.parametrize("profile", ["default", "strict", "fips"])
def test_weak_algorithms_are_in_legacy_only(profile: str) -> None:
    for kind in KINDS:
        for name in getattr(PROFILES[profile], kind):
            assert not name.startswith(("ssh-dss", "ssh-rsa")), name
            assert not name.endswith(("-sha1", "-cbc")), name
            assert "hmac-sha1" not in name
            assert name != "zlib"


def test_fips_has_no_curve25519_and_no_chacha() -> None:
    for kind in KINDS:
        for name in getattr(PROFILES["fips"], kind):
            assert not any(word in name for word in ("25519", "chacha", "mlkem")), name


def test_legacy_has_all_there_is() -> None:
    for kind in KINDS:
        assert set(getattr(PROFILES["legacy"], kind)) == set(getattr(KNOWN, kind))


def test_default_order_of_preference() -> None:
    default = PROFILES["default"]
    assert default.kex[0] == "mlkem768x25519-sha256"
    assert default.ciphers[:3] == (
        "chacha20-poly1305@openssh.com",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
    )
    assert default.macs[:2] == ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")


@pytest.mark.parametrize(
    ("specification", "result"),
    [
        ("gamma@example.org", ("gamma@example.org",)),
        ("beta,alpha", ("beta", "alpha")),
        ("beta, alpha,beta", ("beta", "alpha")),
        ("+delta", ("alpha", "beta", "beta2", "delta")),
        ("+delta,alpha", ("alpha", "beta", "beta2", "delta")),
        ("^beta2", ("beta2", "alpha", "beta")),
        ("^delta,beta", ("delta", "beta", "alpha", "beta2")),
        ("-beta", ("alpha", "beta2")),
        ("-beta*", ("alpha",)),
        ("-b?ta", ("alpha", "beta2")),
        ("-beta,alpha", ("beta2",)),
        ("-delta", ("alpha", "beta", "beta2")),
    ],
)
def test_edits(specification: str, result: tuple[str, ...]) -> None:
    assert edit(("alpha", "beta", "beta2"), specification, NAMES, "ciphers") == result


@pytest.mark.parametrize(
    ("specification", "culprit"),
    [
        ("omega", "'omega'"),
        ("alpha,omega", "'omega'"),
        ("+omega", "'omega'"),
        ("^omega", "'omega'"),
        ("-omega", "'omega'"),
        ("-omega*", "'omega*'"),
        ("beta*", "'beta*'"),
        ("+beta*", "'beta*'"),
        ("^beta*", "'beta*'"),
        ("", "''"),
        ("+", "''"),
        ("-", "''"),
        ("alpha,", "''"),
        ("alpha,,beta", "''"),
        ("ALPHA", "'ALPHA'"),
        ("+alpha,+beta", "'+beta'"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(specification: str, culprit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        edit(("alpha",), specification, NAMES, "ciphers")
    message = str(caught.value)
    assert message.startswith("ciphers: ")
    assert culprit in message
    assert all(name in message for name in NAMES)
    assert caught.value.key == "ciphers"


@pytest.mark.parametrize("specification", ["-alpha", "-*", "-a*,beta"])
def test_an_empty_result_is_refused(specification: str) -> None:
    with pytest.raises(ConfigError, match="leaves no algorithm"):
        edit(("alpha",), specification, NAMES, "macs")


@given(some_names, some_names)
def test_edits_are_what_they_say(default: tuple[str, ...], names: tuple[str, ...]) -> None:
    listed = ",".join(names)
    assert edit(default, listed, NAMES, "x") == names
    appended = edit(default, f"+{listed}", NAMES, "x")
    assert appended[: len(default)] == default
    assert set(appended) == {*default, *names}
    fronted = edit(default, f"^{listed}", NAMES, "x")
    assert fronted[: len(names)] == names
    assert set(fronted) == {*default, *names}
    assert len(set(appended)) == len(appended) == len(fronted) == len(set(fronted))
    left = tuple(name for name in default if name not in names)
    if left:
        assert edit(default, f"-{listed}", NAMES, "x") == left
    else:
        with pytest.raises(ConfigError):
            edit(default, f"-{listed}", NAMES, "x")


@given(some_names, some_names)
def test_negotiation_is_the_clients_first_that_the_server_has(client: tuple[str, ...], server: tuple[str, ...]) -> None:
    chosen = negotiate(client, server)
    if chosen is None:
        assert not set(client) & set(server)
    else:
        assert chosen in server
        assert not set(client[: client.index(chosen)]) & set(server)
    assert negotiate(client, ()) is None
