"""Logins by user certificates: what a certificate demands and allows, and whether its authority may let a user in.

    certificate ──► is it sound, of a user, in its time, from its addresses? all critical options known?
                └─► its authority: a cert-authority line of the user's, or one that the server trusts
                └─► its principals: those of the line, of a list of the user's, or the user's own name
    rights of the line and rights of the certificate ──► what both allow

The rules are sshd's (auth2-pubkey.c); an authority's line that does not fit leaves the next one its chance, as there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dunnart.errors import DecodeError, KeyFormatError, RightsConflict
from dunnart.keys.authorized_keys import AuthorizedKey, AuthorizedKeys, Decision
from dunnart.keys.key_options import NO_OPTIONS, KeyOptions
from dunnart.keys.patterns import AddressPatterns
from dunnart.keys.rights import Rights
from dunnart.wire.encoding import Reader

if TYPE_CHECKING:
    from dunnart.keys.certificate import Certificate
    from dunnart.keys.principals import AuthorizedPrincipals
    from dunnart.keys.public import PublicKey

_EXTENSIONS = {
    "permit-pty": "pty", "permit-port-forwarding": "port_forwarding", "permit-agent-forwarding": "agent_forwarding",
    "permit-X11-forwarding": "x11_forwarding", "permit-user-rc": "user_rc",
}  # fmt: skip
_NO_TOUCH = "no-touch-required"
_SHA1 = "ssh-rsa"


def demands(certificate: Certificate) -> KeyOptions:
    """Give what a user's certificate allows, and on which conditions, beside its time and its principals.

    Raises:
        KeyFormatError: a critical option is not known, or an option is malformed.
    """
    rights: dict[str, Any] = dict.fromkeys(_EXTENSIONS.values(), False)
    touch, verify = True, False
    command: bytes | None = None
    addresses: AddressPatterns | None = None
    for name, data in certificate.critical_options:
        if name == "force-command":
            command = _value(name, data)
            if b"\0" in command:
                raise KeyFormatError("the option force-command holds a NUL")
        elif name == "source-address":
            addresses = _networks(_value(name, data))
        elif name == "verify-required":
            _check_empty(name, data)
            verify = True
        else:
            raise KeyFormatError(f"the critical option {name[:64]!r} is not known")
    for name, data in certificate.extensions:  # others are passed over, as they are meant to be
        if name in _EXTENSIONS or name == _NO_TOUCH:
            _check_empty(name, data)
            touch = touch and name != _NO_TOUCH
            if name in _EXTENSIONS:
                rights[_EXTENSIONS[name]] = True
    return KeyOptions(Rights(command=command, **rights), addresses, touch=touch, verify=verify)


def _value(name: str, data: bytes) -> bytes:
    reader = Reader(data)
    try:
        value = reader.string()
        reader.end()
    except DecodeError as error:
        raise KeyFormatError(f"the option {name} is malformed: {error}") from error
    return value


def _check_empty(name: str, data: bytes) -> None:
    if data:
        raise KeyFormatError(f"the option {name} has a value")


def _networks(value: bytes) -> AddressPatterns:
    """Read addresses and networks; patterns and negation are for authorized_keys, not for certificates."""
    from ipaddress import ip_network

    try:
        listed = value.decode("ascii")
        for each in listed.split(","):
            ip_network(each)
        return AddressPatterns(listed)
    except ValueError as error:
        raise KeyFormatError(f"the option source-address is malformed: {error}") from error


class UserCertificate:
    """A certificate by which somebody wants in as a user.

    Args:
        certificate: what was shown. That its key is the client's to use is proved elsewhere.
        user: the name to log in as.
        address: the IP address that the login comes from.
        now: the time, in seconds since 1970.
        algorithms: the signature algorithms that an authority may have used.

    What strangers have signed is not looked into: that takes its time, and only an authority that counts is worth it.
    """

    __slots__ = ("_address", "_algorithms", "_now", "_refusal", "_terms", "_user", "certificate")

    def __init__(
        self, certificate: Certificate, *, user: str, address: str, now: float, algorithms: Collection[str]
    ) -> None:
        self.certificate = certificate
        self._user = user
        self._address = address
        self._now = now
        self._algorithms = algorithms
        self._terms = NO_OPTIONS
        self._refusal: str | None = None

    @property
    def refusal(self) -> str:
        """Why it lets nobody in, though its authority may; "" if nothing is against it."""
        if self._refusal is None:
            try:
                self._refusal = self._read()
            except KeyFormatError as error:
                self._refusal = str(error)
        return self._refusal

    def _read(self) -> str:
        certificate, algorithms = self.certificate, self._algorithms
        if certificate.kind != "user":
            return "it is a host's certificate, not a user's"
        if certificate.signature_algorithm not in algorithms:
            return f"its authority signed with {certificate.signature_algorithm[:64]!r}, which is not accepted"
        certificate.verify_signature(sha1=_SHA1 in algorithms)
        if self._now < certificate.valid_after:
            return "it is not valid yet"
        if self._now >= certificate.valid_before:
            return "it has expired"
        if not certificate.principals:
            return "it is for nobody: it has no principals"
        self._terms = demands(certificate)
        if self._terms.addresses is not None and self._address not in self._terms.addresses:
            shown = self._address or "no IP address"
            return f"{shown} is not among its source-address={self._terms.addresses.text}"
        return ""

    def decide(self, keys: AuthorizedKeys) -> Decision:
        """Say whether a cert-authority line lets it in: the first that fits."""
        authority = self.certificate.authority
        if keys.find_authority(authority) and self.refusal:
            return Decision(None, (self.refusal,))
        return keys.decide_authority(authority, self._address, self._now, self._fitted)

    def _fitted(self, entry: AuthorizedKey) -> AuthorizedKey:
        """Give a line with what both it and the certificate allow.

        Raises:
            KeyFormatError: it does not let the certificate in.
        """
        names = (self._user,) if entry.terms.principals is None else entry.terms.principals
        if not set(names) & set(self.certificate.principals):
            raise KeyFormatError(self._not_among(names))
        return replace(entry, terms=self._with(entry.terms))

    def _not_among(self, names: Iterable[str]) -> str:
        return f"its principals ({', '.join(self.certificate.principals)}) hold none of {', '.join(names)}"

    def _with(self, terms: KeyOptions) -> KeyOptions:
        own = self._terms
        try:
            rights = terms.rights.both(own.rights)
        except RightsConflict as error:
            raise KeyFormatError(str(error)) from error
        return KeyOptions(rights, None, touch=terms.touch or own.touch, verify=terms.verify or own.verify)

    def decide_trusted(
        self, authorities: Collection[PublicKey], principals: Iterable[AuthorizedPrincipals] | None = None
    ) -> Decision:
        """Say whether an authority that the server trusts lets it in.

        Args:
            authorities: their keys.
            principals: the user's lists of who may be this user, the first that names one of the certificate's counts;
                None: the user's name must be among the certificate's principals.
        """
        authority = self.certificate.authority
        if authority not in authorities:
            return Decision(None, ("its authority is not trusted",))
        if self.refusal:
            return Decision(None, (self.refusal,))
        if principals is not None:
            return self._decide_listed(principals)
        if self._user not in self.certificate.principals:
            return Decision(None, (self._not_among((self._user,)),))
        return Decision(AuthorizedKey(authority, "", (), self._terms, 0))

    def _decide_listed(self, principals: Iterable[AuthorizedPrincipals]) -> Decision:
        for each in principals:
            entry = each.find(self.certificate.principals)
            if entry is not None:
                refusal = entry.reason or entry.terms.refusal(self._address, self._now)
                if not refusal:
                    try:
                        terms = self._with(entry.terms)
                    except KeyFormatError as error:
                        refusal = str(error)
                    else:
                        return Decision(AuthorizedKey(self.certificate.authority, "", (), terms, entry.line))
                return Decision(None, (f"{each.source}:{entry.line}: {refusal}",), final=True)
        listed = ", ".join(self.certificate.principals)
        return Decision(None, (f"none of its principals ({listed}) is listed for {self._user}",))
