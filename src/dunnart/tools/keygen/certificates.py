"""Certificates: signing and showing them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

from dunnart.errors import DecodeError, DunnartError, KeyFormatError
from dunnart.keys.certificate import FOREVER, Certificate
from dunnart.tools.keygen.files import key_in, private_in, public_in, read, wanted_file, write
from dunnart.tools.keygen.fingerprints import fingerprint, kind
from dunnart.tools.keygen.flags import Flags, KeygenError, whole
from dunnart.tools.keygen.times import interval, shown_validity
from dunnart.tools.terminal import shown
from dunnart.wire.encoding import Reader, text

if TYPE_CHECKING:
    from collections.abc import Iterable

_PERMITS = {
    name.lower(): f"permit-{name}"
    for name in ("X11-forwarding", "agent-forwarding", "port-forwarding", "pty", "user-rc")
}
_FLAGS = frozenset((*_PERMITS.values(), "no-touch-required"))
_TEXTS = frozenset(("force-command", "source-address"))
_RSA_DEFAULT = "rsa-sha2-512"


def sign(flags: Flags) -> int:
    """-s: sign the keys of files."""
    key_id = flags.value("I")
    if key_id is None:
        raise KeygenError("a certificate wants a name for the log: -I")
    names = flags.value("n")
    if names is None:
        print("dunnart keygen: without -n the certificate is for nobody, and lets nobody in", file=sys.stderr)
    kind_: Literal["user", "host"] = "host" if "h" in flags else "user"
    critical, extensions = options(flags.values("O"), host=kind_ == "host")
    valid_after, valid_before = (0, FOREVER) if (given := flags.value("V")) is None else interval(given)
    serial_text = flags.value("z") or "0"
    serial = whole(serial_text.removeprefix("+"), FOREVER, f"-z {serial_text}")
    authority, _, _ = private_in(os.path.expanduser(flags.value("s") or ""), flags.value("P"))
    algorithm = flags.value("t") or (_RSA_DEFAULT if authority.public.key_type == "ssh-rsa" else None)
    for each in flags.rest:
        path = os.path.expanduser(each)
        key, comment = public_in(path)
        if isinstance(key, Certificate):
            raise KeygenError(f"{shown(path)} is a certificate already; sign the key that it is for")
        try:
            made = Certificate.issue(
                authority, key, kind=kind_, key_id=key_id, principals=[] if names is None else names.split(","),
                serial=serial, valid_after=valid_after, valid_before=valid_before, critical_options=critical,
                extensions=extensions, algorithm=algorithm,
            )  # fmt: skip
        except DunnartError as error:
            raise KeygenError(shown(str(error))) from error
        target = f"{path.removesuffix('.pub')}-cert.pub"
        write(target, f"{made.line(comment)}\n", 0o644)
        if "q" not in flags:
            for_whom = "" if names is None else f" for {shown(names)}"
            print(
                f'Signed {kind_} key {shown(target)}: id "{shown(key_id)}" serial {serial}{for_whom} '
                f"valid {shown_validity(valid_after, valid_before)}",
                file=sys.stderr,
            )
        serial += serial_text.startswith("+")
    return 0


def options(given: Iterable[str], *, host: bool) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Read the values of -O: critical options, and extensions."""
    critical: dict[str, bytes] = {}
    extensions: dict[str, bytes] = {} if host else dict.fromkeys(_PERMITS.values(), b"")
    for each in given:
        name, equals, value = each.partition("=")
        low = name.lower()
        prefix, colon, own_name = name.partition(":")
        verb, _, what = low.partition("-")
        if low == "clear" and not equals:
            # What was said before, too, as ssh-keygen has it; contents of one's own stay.
            extensions = {key: held for key, held in extensions.items() if key not in _FLAGS}
            critical.pop("verify-required", None)
        elif colon and prefix.lower() in {"extension", "critical"} and own_name:
            (critical if prefix.lower() == "critical" else extensions)[own_name] = text(value) if equals else b""
        elif low in _TEXTS and value:
            if low in critical:
                raise KeygenError(f"-O {low} is there twice")
            if low == "source-address":
                _check_networks(value)
            critical[low] = text(value)
        elif equals:
            raise KeygenError(f"no certificate option {each!r}" if value else f"-O {each} has no value")
        elif verb in {"no", "permit"} and what in _PERMITS:
            extensions.pop(_PERMITS[what], None)
            if verb == "permit":
                extensions[_PERMITS[what]] = b""
        elif low in {"touch-required", "no-touch-required"}:
            extensions.pop("no-touch-required", None)
            if low.startswith("no-"):
                extensions["no-touch-required"] = b""
        elif low in {"verify-required", "no-verify-required"}:
            critical.pop("verify-required", None)
            if not low.startswith("no-"):
                critical["verify-required"] = b""
        else:
            raise KeygenError(f"no certificate option {each!r}")
    return critical, extensions


def _check_networks(value: str) -> None:
    from ipaddress import ip_network

    for each in value.split(","):
        try:
            ip_network(each)
        except ValueError as error:
            raise KeygenError(f"-O source-address: {error}") from error


def show(flags: Flags) -> int:
    """-L: show the certificates in a file."""
    path = wanted_file(flags, "Enter file in which the certificate is", "~/.ssh/id_ed25519-cert.pub")
    name = "(stdin)" if path == "-" else shown(path)
    found = False
    for number, line in enumerate(read(path).decode(errors="replace").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            key, _ = key_in(stripped)
        except KeyFormatError as error:
            print(f"{name}:{number}: invalid key: {shown(str(error))}", file=sys.stderr)
            continue
        if not isinstance(key, Certificate):
            print(f"{name}:{number} is not a certificate", file=sys.stderr)
            continue
        print(f"{name}:" if number == 1 and path != "-" else f"{name}:{number}:")
        print(*_lines(flags, key), sep="\n")
        found = True
    return 0 if found else 1


def _lines(flags: Flags, key: Certificate) -> Iterable[str]:
    authority = key.authority
    yield f"        Type: {key.key_type} {key.kind} certificate"
    yield f"        Public key: {kind(key)} {fingerprint(flags, key)}"
    using = f"(using {shown(key.signature_algorithm)})"
    yield f"        Signing CA: {kind(authority)} {fingerprint(flags, authority)} {using}"
    yield f'        Key ID: "{shown(key.key_id)}"'
    yield f"        Serial: {key.serial}"
    yield f"        Valid: {shown_validity(key.valid_after, key.valid_before)}"
    yield from _listed("Principals", [shown(each) for each in key.principals])
    yield from _listed("Critical Options", [_option(name, data, critical=True) for name, data in key.critical_options])
    yield from _listed("Extensions", [_option(name, data, critical=False) for name, data in key.extensions])


def _listed(title: str, lines: list[str]) -> Iterable[str]:
    yield f"        {title}: " + ("" if lines else "(none)")
    yield from (f"                {line}" for line in lines)


def _option(name: str, data: bytes, *, critical: bool) -> str:
    if (name in _FLAGS and not critical) or (critical and name == "verify-required"):
        return name if not data else f"{name} (damaged)"
    if critical and name in _TEXTS:
        reader = Reader(data)
        try:
            value = reader.text()
            reader.end()
        except DecodeError:
            return f"{name} (damaged)"
        return f"{name} {shown(value)}"
    if data:
        return f"{shown(name)} UNKNOWN OPTION: {data.hex()} (len {len(data)})"
    return f"{shown(name)} UNKNOWN FLAG OPTION"
