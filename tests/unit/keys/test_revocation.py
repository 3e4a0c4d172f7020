from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunnart.errors import KeyFormatError
from dunnart.keys import Certificate, PrivateKey, PublicKey, RevokedKeys
from dunnart.keys.revocation import MAGIC, digest
from dunnart.wire.encoding import boolean, byte, mpint, string, text, uint32, uint64

Keygen = Callable[..., str]
CA, OTHER_CA, USER, OTHER = (PrivateKey.generate("ed25519") for _ in range(4))
HEADER = MAGIC + uint32(1) + uint64(7) + uint64(1234) + uint64(0) + string(b"") + string(b"a comment")


def certificate(serial: int = 0, key_id: str = "id", ca: PrivateKey = CA, key: PrivateKey = USER) -> Certificate:
    fields = (
        text("ssh-ed25519-cert-v01@openssh.com"), string(bytes(32)), key.public.blob[15:],
        uint64(serial) + uint32(1) + text(key_id) + string(text("me")), uint64(0) + uint64(2**64 - 1),
        string(b"") + string(b"") + string(b""), string(ca.public.blob),
    )  # fmt: skip
    signed = b"".join(fields)
    return Certificate.decode(signed + string(ca.sign("ssh-ed25519", signed)))


def certificates(*parts: tuple[int, bytes], ca: bytes = CA.public.blob) -> bytes:
    return byte(1) + string(string(ca) + string(b"") + b"".join(byte(kind) + string(data) for kind, data in parts))


def bitmap(offset: int, *bits: int) -> tuple[int, bytes]:
    return 0x22, uint64(offset) + mpint(sum(1 << bit for bit in bits))


SAMPLES: dict[str, PublicKey | Certificate] = {
    "user": USER.public,
    "other": OTHER.public,
    "ca": CA.public,
    **{f"serial-{serial}": certificate(serial) for serial in (0, 1, 2, 5, 9, 10, 11, 64, 100, 1 << 40, 2**64 - 1)},
    "named": certificate(3, "someone"),
    "other-ca-2": certificate(2, ca=OTHER_CA),
    "other-ca-named": certificate(3, "someone", OTHER_CA),
    "other-key-2": certificate(2, key=OTHER),
}
LISTS: dict[str, bytes] = {
    "nothing": b"",
    "key": byte(2) + string(string(USER.public.blob)),
    "authority": byte(2) + string(string(CA.public.blob)),
    "sha1": byte(3) + string(string(digest(USER.public.blob, "sha1"))),
    "sha256": byte(5) + string(string(digest(CA.public.blob, "sha256"))),
    "serials": certificates((0x20, uint64(2) + uint64(10) + uint64(2**64 - 1))),
    "range": certificates((0x21, uint64(5) + uint64(10))),
    "ranges": certificates(*((0x21, uint64(first) + uint64(last)) for first, last in ((5, 10), (1, 1), (9, 64)))),
    "bitmap": certificates(bitmap(1, 0, 8, 63, 99)),
    "high bitmap": certificates(bitmap(1 << 40, 0)),
    "empty bitmap": certificates(bitmap(5)),
    "key id": certificates((0x23, text("nobody") + text("someone"))),
    "any authority": certificates((0x23, text("someone")), (0x20, uint64(2)), ca=b""),
    "other authority": certificates((0x20, uint64(2)), ca=OTHER_CA.public.blob),
    "two sections": certificates((0x20, uint64(2))) + certificates((0x21, uint64(9) + uint64(11))),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("samples")
    for name, key in SAMPLES.items():
        (folder / f"{name}.pub").write_text(key.line() + "\n")
    return {name: folder / f"{name}.pub" for name in SAMPLES}


def by_ssh_keygen(revoked: Path, samples: dict[str, Path]) -> dict[str, bool]:
    asked = ["ssh-keygen", "-Q", "-f", str(revoked), *map(str, samples.values())]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    said = dict(line.rsplit(" (", 1) for line in done.stdout.splitlines())
    found = {name: said[str(file)].endswith(": REVOKED") for name, file in samples.items()}
    assert (done.returncode != 0) == any(found.values()), done.stdout + done.stderr
    return found


@pytest.mark.parametrize("name", LISTS)
def test_what_ssh_keygen_finds_revoked(
    name: str,
    samples: dict[str, Path],
    tmp_path: Path,
    keygen: Keygen,
) -> None:
    file = tmp_path / "krl"
    file.write_bytes(HEADER + LISTS[name])
    revoked = RevokedKeys.parse(file.read_bytes())
    theirs = by_ssh_keygen(file, samples)
    ours = {name: revoked.reason(key) != "" for name, key in SAMPLES.items()}
    assert ours == theirs
    # What we write of it means the same to both.
    file.write_bytes(revoked.encode())
    assert by_ssh_keygen(file, samples) == theirs
    again = RevokedKeys.parse(file.read_bytes())
    assert {name: again.reason(key) != "" for name, key in SAMPLES.items()} == theirs
    assert (again.number, again.made, again.comment) == (7, 1234, "a comment")


def test_lists_that_ssh_keygen_makes(samples: dict[str, Path], tmp_path: Path, keygen: Keygen) -> None:
    (tmp_path / "spec").write_text(
        "serial: 2\nserial: 5-64\nserial: 1099511627776\nid: someone\n"
        f"sha1: {OTHER.public.line()}\nhash: {USER.public.fingerprint()}\nkey: {OTHER_CA.public.line()}\n"
    )
    (tmp_path / "ca.pub").write_text(CA.public.line())
    revoked = RevokedKeys()
    for serials in ("", "\n".join(f"serial: {number}" for number in range(1000, 3000, 3))):  # the second as a bitmap
        with (tmp_path / "spec").open("a") as file:
            file.write(serials)
        keygen("-q", "-k", "-f", tmp_path / "krl", "-s", tmp_path / "ca.pub", "-z", "9", tmp_path / "spec")
        revoked = RevokedKeys.parse((tmp_path / "krl").read_bytes())
        assert {name: revoked.reason(key) != "" for name, key in SAMPLES.items()} == by_ssh_keygen(
            tmp_path / "krl", samples
        )
        assert revoked.number == 9
    fresh = PrivateKey.generate("ed25519")
    wanted = {1000: True, 1001: False, 2998: True, 2999: False}
    assert {serial: revoked.reason(certificate(serial, key=fresh)) != "" for serial in wanted} == wanted
    assert list(revoked.of_authority(CA.public.blob).serials())[:4] == [(2, 2), (5, 64), (1000, 1000), (1003, 1003)]


@pytest.mark.parametrize(
    ("lines", "revoked"),
    [
        (["# nothing", ""], set()),
        ([USER.public.line("a comment"), "", "# more", OTHER.public.line()], set(SAMPLES) - {"ca"}),
        ([CA.public.line()], set(SAMPLES) - {"user", "other", "other-ca-2", "other-ca-named"}),
        ([certificate(77, key=OTHER).line()], {"other", "other-key-2"}),
    ],
)
def test_plain_lists(lines: list[str], revoked: set[str]) -> None:
    found = RevokedKeys.parse("\n".join(lines).encode())
    assert {name for name, key in SAMPLES.items() if found.reason(key)} == revoked


def test_extensions_that_are_not_critical_are_passed_over() -> None:
    extension = text("x@example.com") + boolean(False) + string(b"anything")
    found = RevokedKeys.parse(
        HEADER + byte(255) + string(extension) + certificates((0x39, extension), (0x20, uint64(9)))
    )
    assert found.reason(certificate(9)) != ""


def test_reasons_say_what_is_revoked() -> None:
    revoked = RevokedKeys.parse(HEADER + LISTS["any authority"] + LISTS["authority"])
    assert revoked.reason(certificate(2)) == "the certificate 'id' (serial 2) is revoked"
    assert revoked.reason(certificate(4)) == f"the authority's key {CA.public.fingerprint()} is revoked"
    assert revoked.reason(CA.public) == f"the key {CA.public.fingerprint()} is revoked"
    assert revoked.reason(USER.public) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (MAGIC, "malformed"),
        (MAGIC + uint32(2) + HEADER[12:], "format 2"),
        (HEADER + b"\1", "malformed"),
        (HEADER + byte(6) + string(b""), "unknown kind 6"),
        (HEADER + byte(3) + string(string(bytes(32))), "32 bytes, 20 wanted"),
        (HEADER + byte(5) + string(string(bytes(20))), "20 bytes, 32 wanted"),
        (HEADER + byte(2) + string(b"\0\0\0\5x"), "malformed"),
        (HEADER + certificates((0x20, bytes(8))), "0 cannot be revoked"),
        (HEADER + certificates((0x20, bytes(7))), "within one"),
        (HEADER + certificates((0x21, uint64(0) + uint64(5))), "no range"),
        (HEADER + certificates((0x21, uint64(6) + uint64(5))), "no range"),
        (HEADER + certificates((0x21, uint64(5) + uint64(6) + b"\0")), "1 bytes after"),
        (HEADER + certificates(bitmap(0, 0)), "0 cannot be revoked"),
        (HEADER + certificates(bitmap(2**64 - 2, 2)), "beyond the largest"),
        (HEADER + certificates((0x22, uint64(1) + string(b"\xff"))), "negative"),
        (HEADER + certificates((0x24, b"")), "unknown kind 0x24"),
        (HEADER + certificates((0x39, text("x") + boolean(True) + string(b""))), "critical extension 'x'"),
        (HEADER + byte(255) + string(text("x") + boolean(True) + string(b"")), "critical extension 'x'"),
        (b"\0\1\2 what", "line 1"),
        (f"{USER.public.line()}\nssh-ed25519 AAAA".encode(), "line 2"),
        (f'from="*" {USER.public.line()}'.encode(), "line 1"),
        (b"x" * ((16 << 20) + 1), "16 MiB"),
    ],
)
def test_what_is_not_understood_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(KeyFormatError, match=reason):
        RevokedKeys.parse(data)


def test_largest_serials_in_bitmaps() -> None:
    revoked = RevokedKeys.parse(HEADER + certificates(bitmap(2**64 - 2, 1)))
    assert revoked.reason(certificate(2**64 - 1)) != ""
    assert revoked.reason(certificate(2**64 - 2)) == ""


def test_signatures_must_hold() -> None:
    body = HEADER + LISTS["key"] + byte(4) + string(OTHER.public.blob)
    good = body + string(OTHER.sign("ssh-ed25519", body))
    assert RevokedKeys.parse(good).reason(USER.public) != ""
    more = good + byte(4) + string(CA.public.blob)
    assert RevokedKeys.parse(more + string(CA.sign("ssh-ed25519", more))).reason(USER.public) != ""
    for bad in (
        good.replace(b"a comment", b"b comment"),
        body + string(CA.sign("ssh-ed25519", body)),
        good + LISTS["sha1"],
    ):
        with pytest.raises(KeyFormatError):
            RevokedKeys.parse(bad)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 40)), max_size=20), st.sets(st.integers(0, 200)))
def test_ranges_are_those_that_went_in(ranges: list[tuple[int, int]], bits: set[int]) -> None:
    revoked = RevokedKeys.parse(HEADER + certificates(bitmap(50, *bits)))
    found = revoked.of_authority(CA.public.blob)
    for first, length in ranges:
        found.revoke_serials(first, first + length)
    wanted = {number for first, length in ranges for number in range(first, first + length + 1)}
    wanted |= {50 + bit for bit in bits}
    shown = list(found.serials())
    assert {number for first, last in shown for number in range(first, last + 1)} == wanted
    assert all(one[1] + 1 < other[0] for one, other in pairwise(shown))
    again = RevokedKeys.parse(revoked.encode()).of_authority(CA.public.blob)
    assert list(again.serials()) == shown
    sample = certificate(77)
    assert again.covers(sample) == (77 in wanted)
