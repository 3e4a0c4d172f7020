from __future__ import annotations

from typing import Any

import pytest

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import KeyFormatError
from dunnart.keys import Certificate, PrivateKey, Rights
from dunnart.keys.authorized_keys import AuthorizedKeys, Decision, parse
from dunnart.keys.certified import UserCertificate, demands
from dunnart.keys.principals import AuthorizedPrincipals, parse_principals
from dunnart.wire.encoding import string, text

CA, OTHER_CA, USER = (PrivateKey.generate("ed25519") for _ in range(3))
RSA_CA = PrivateKey.generate("rsa", 2048)
NOW = 1_000_000
ALGORITHMS = PROFILES["default"].ca_signature
EVERYTHING = dict.fromkeys(
    ("permit-pty", "permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding", "permit-user-rc"), b""
)


def issue(ca: PrivateKey = CA, **given: Any) -> Certificate:
    fields: dict[str, Any] = {"kind": "user", "key_id": "id", "principals": ["me"], "extensions": EVERYTHING} | given
    return Certificate.issue(ca, USER.public, **fields)


def login(certificate: Certificate, *, address: str = "192.0.2.1", **given: Any) -> UserCertificate:
    fields: dict[str, Any] = {"user": "me", "now": NOW, "algorithms": ALGORITHMS} | given
    return UserCertificate(certificate, address=address, **fields)


def lines(*options: str, ca: PrivateKey = CA) -> AuthorizedKeys:
    return parse("\n".join(f"{option} {ca.public.line()}".strip() for option in options), "keys")


def principals(content: str) -> list[AuthorizedPrincipals]:
    return [parse_principals(content, "principals")]


def test_what_strangers_have_signed_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Certificate] = []
    monkeypatch.setattr(Certificate, "verify_signature", lambda certificate, **_: looked.append(certificate))
    shown = login(issue())
    assert shown.decide(lines("cert-authority", ca=OTHER_CA)) == Decision()
    assert shown.decide_trusted({OTHER_CA.public}).reasons == ("its authority is not trusted",)
    assert looked == []
    assert shown.decide(lines("cert-authority")).entry is not None
    assert len(looked) == 1


def test_what_extensions_allow() -> None:
    assert demands(issue()).rights == Rights()
    nothing = Rights(pty=False, port_forwarding=False, agent_forwarding=False, x11_forwarding=False, user_rc=False)
    assert demands(issue(extensions={})).rights == nothing
    for name, field in (("permit-pty", "pty"), ("permit-X11-forwarding", "x11_forwarding")):
        rights = demands(issue(extensions={name: b"", "else@example.com": text("x")})).rights
        assert getattr(rights, field)
        assert [rights.pty, rights.x11_forwarding, rights.port_forwarding].count(True) == 1
    assert demands(issue()).touch
    assert not demands(issue(extensions={"no-touch-required": b""})).touch


def test_what_critical_options_demand() -> None:
    terms = demands(issue(critical_options={
        "force-command": text("a command"), "source-address": text("192.0.2.0/24,2001:db8::1"), "verify-required": b"",
    }))  # fmt: skip
    assert (terms.rights.command, terms.verify) == (b"a command", True)
    assert terms.addresses is not None
    assert "192.0.2.9" in terms.addresses
    assert "2001:db8::1" in terms.addresses
    assert "198.51.100.1" not in terms.addresses


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unknown@example.com": b""}, "'unknown@example.com' is not known"),
        ({"permit-pty": b""}, "'permit-pty' is not known"),
        ({"force-command": b"x"}, "force-command is malformed"),
        ({"force-command": text("x") + b"y"}, "force-command is malformed"),
        ({"force-command": text("x\0y")}, "NUL"),
        ({"verify-required": text("yes")}, "has a value"),
        ({"source-address": b""}, "source-address is malformed"),
        ({"source-address": text("")}, "source-address is malformed"),
        ({"source-address": text("192.0.2.*")}, "source-address is malformed"),
        ({"source-address": text("!192.0.2.1")}, "source-address is malformed"),
        ({"source-address": text("192.0.2.1/24")}, "source-address is malformed"),
        ({"source-address": text("192.0.2.0/24,")}, "source-address is malformed"),
        ({"source-address": text("localhost")}, "source-address is malformed"),
        ({"source-address": string(b"\xff")}, "source-address is malformed"),
    ],
)
def test_critical_options_that_are_not_understood(options: dict[str, bytes], reason: str) -> None:
    with pytest.raises(KeyFormatError, match=reason):
        demands(issue(critical_options=options))
    shown = login(issue(critical_options=options))
    assert reason.strip("'").split("'")[0] in shown.refusal
    assert shown.decide(lines("cert-authority")).entry is None
    assert shown.decide_trusted({CA.public}).entry is None


def test_an_extension_with_a_value_where_none_belongs() -> None:
    with pytest.raises(KeyFormatError, match="permit-pty has a value"):
        demands(issue(extensions={"permit-pty": text("x")}))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"kind": "host"}, "a host's certificate"),
        ({"principals": []}, "for nobody"),
        ({"valid_after": NOW + 1}, "not valid yet"),
        ({"valid_before": NOW}, "has expired"),
        (
            {"critical_options": {"source-address": text("198.51.100.0/24")}},
            "192.0.2.1 is not among its source-address",
        ),
        ({"ca": RSA_CA, "algorithm": "ssh-rsa"}, "'ssh-rsa', which is not accepted"),
    ],
)
def test_certificates_that_let_nobody_in(given: dict[str, Any], reason: str) -> None:
    shown = login(issue(**given))
    assert reason in shown.refusal
    assert shown.decide_trusted({CA.public, RSA_CA.public}) == Decision(None, (shown.refusal,))
    found = shown.decide(lines("cert-authority", ca=given.get("ca", CA)))
    assert (found.entry, found.reasons) == (None, (shown.refusal,))


@pytest.mark.parametrize("given", [{"valid_after": NOW}, {"valid_before": NOW + 1}, {"ca": RSA_CA}])
def test_certificates_that_do(given: dict[str, Any]) -> None:
    found = login(issue(**given)).decide_trusted({CA.public, RSA_CA.public})
    assert found.entry is not None
    assert found.entry.terms.rights == Rights()


def test_a_login_without_an_address_is_not_from_any_network() -> None:
    certificate = issue(critical_options={"source-address": text("0.0.0.0/0,::/0")})
    assert login(certificate).refusal == ""
    assert "no IP address is not among" in login(certificate, address="").refusal


def test_forged_certificates() -> None:
    certificate = issue()
    for changed in (
        certificate.blob.replace(text("me"), text("us")),
        certificate.blob[:-1] + bytes([certificate.blob[-1] ^ 1]),
        issue(ca=OTHER_CA).blob.replace(OTHER_CA.public.blob, CA.public.blob),
    ):
        shown = login(Certificate.decode(changed), user="us")
        assert "wrong ssh-ed25519 signature" in shown.refusal
        assert shown.decide_trusted({CA.public}).entry is None
        assert shown.decide(lines("cert-authority")).entry is None


def test_sha1_where_it_is_asked_for() -> None:
    certificate = issue(ca=RSA_CA, algorithm="ssh-rsa")
    assert login(certificate, algorithms=(*ALGORITHMS, "ssh-rsa")).refusal == ""


def test_lines_of_authorities() -> None:
    shown = login(issue(principals=["me", "admin"]))
    found = shown.decide(lines("cert-authority"))
    assert found.entry is not None
    assert found.entry.line == 1
    assert shown.decide(lines("")) == Decision()  # the authority's key as a user's
    assert shown.decide(lines("cert-authority", ca=OTHER_CA)) == Decision()
    second = shown.decide(lines('cert-authority,principals="x"', 'cert-authority,principals="x,admin",no-pty'))
    assert second.entry is not None
    assert (second.entry.line, second.entry.terms.rights.pty) == (2, False)
    assert second.reasons == ("keys:1: its principals (me, admin) hold none of x",)
    elsewhere = shown.decide(lines('cert-authority,from="198.51.100.1"'))
    assert (elsewhere.entry, elsewhere.reasons[0][:24]) == (None, "keys:1: 192.0.2.1 is not")
    dead = shown.decide(lines("cert-authority,frobnicate", "cert-authority"))
    assert (dead.entry, dead.final) == (None, True)
    assert login(issue(principals=["admin"])).decide(lines("cert-authority")).entry is None


def test_a_user_s_certificate_is_not_the_key_in_a_line() -> None:
    assert login(issue()).decide(parse(USER.public.line(), "keys")) == Decision()
    assert lines("cert-authority").decide(CA.public, "192.0.2.1", NOW).entry is None


def test_line_and_certificate_together() -> None:
    certificate = issue(
        extensions={**EVERYTHING, "no-touch-required": b""}, critical_options={"verify-required": b""}
    )  # fmt: skip
    strict = login(certificate).decide(lines("cert-authority,restrict,pty"))
    assert strict.entry is not None
    terms = strict.entry.terms
    assert (terms.rights.pty, terms.rights.port_forwarding, terms.touch, terms.verify) == (True, False, True, True)
    both = login(certificate).decide(lines("cert-authority,no-touch-required"))
    assert both.entry is not None
    assert not both.entry.terms.touch
    forced = issue(critical_options={"force-command": text("one")})
    same = login(forced).decide(lines('cert-authority,command="one"'))
    assert same.entry is not None
    assert same.entry.terms.rights.command == b"one"
    other = login(forced).decide(lines('cert-authority,command="two"'))
    assert other.entry is None
    assert "two different commands" in other.reasons[0]


def test_trusted_authorities() -> None:
    assert login(issue()).decide_trusted({OTHER_CA.public}).reasons == ("its authority is not trusted",)
    named = login(issue(principals=["you"])).decide_trusted({CA.public})
    assert named.reasons == ("its principals (you) hold none of me",)


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("staff\n", 1, ""),
        ("# staff\n\nother\n staff # here\n", 4, ""),
        ('no-pty,command="x y" staff\nstaff\n', 1, ""),
        ("", 0, "none of its principals (x, staff) is listed for me"),
        ("staf\nstafff\nsta ff\n", 0, "none of its principals"),
        ('from="198.51.100.1" staff\nstaff\n', 0, "principals:1: 192.0.2.1 is not among"),
        ('expiry-time="19700102Z" staff\n', 0, "principals:1: it expired at"),
        ("frobnicate staff\nstaff\n", 0, "principals:1: unknown option 'frobnicate'"),
        ("no-pty other staff\nstaff\n", 0, "principals:1: options and one principal are wanted"),
        ("cert-authority staff\n", 0, "principals:1: cert-authority is for authorized_keys"),
        ('principals="x" staff\n', 0, "principals:1: principals without cert-authority"),
        ("st\0aff\nstaff\0\n", 0, "none of its principals"),
        ("x" * 70_000 + " staff\n", 0, "principals:1: the line is longer"),
    ],
)
def test_lists_of_principals(content: str, line: int, reason: str) -> None:
    found = login(issue(principals=["x", "staff"])).decide_trusted({CA.public}, principals(content))
    if line:
        assert found.entry is not None
        assert found.entry.line == line
    else:
        assert found.entry is None
        assert reason in found.reasons[0]
        assert found.final == reason.startswith("principals:")


def test_lines_that_let_nobody_in_are_listed() -> None:
    found = parse_principals(b"good\nfrobnicate bad\n\xff\n", "p")
    assert [(entry.name, entry.line) for entry in found.entries] == [("good", 1), ("bad", 2), ("\udcff", 3)]
    assert found.refused == ((2, "unknown option 'frobnicate'"),)


def test_what_makes_no_certificate() -> None:
    for given in (
        {"principals": [""]}, {"principals": ["a\0b"]}, {"principals": ["x"] * 257}, {"key_id": "\0"},
        {"serial": -1}, {"serial": 1 << 64}, {"valid_after": 5, "valid_before": 5}, {"valid_before": 1 << 64},
    ):  # fmt: skip
        with pytest.raises(KeyFormatError):
            issue(**given)
