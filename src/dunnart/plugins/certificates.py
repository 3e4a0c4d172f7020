"""Logins by certificates whose authorities the server trusts, as sshd's TrustedUserCAKeys has them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.keys.authorized_keys import AuthorizedKeys, AuthorizedKeysCache, CheckedFiles, Decision
from dunnart.keys.principals import AuthorizedPrincipals, parse_principals
from dunnart.plugins.keys_command import TOKENS, KeysCommand, filled_in
from dunnart.server import clean
from dunnart.server.authentication import RefusedLines

if TYPE_CHECKING:
    from dunnart.keys import PublicKey
    from dunnart.keys.certified import UserCertificate
    from dunnart.plugins.os_account import Account
    from dunnart.server import Attempt

_LOG = logging.getLogger("dunnart.auth")
_MORE_TOKENS = "TFKis"


class TrustedAuthorities:
    """Lets in by certificates that authorities of the server's have signed.

    Args:
        files: the authorities' public keys, one a line. They are read again when they change.
        principals: the file with the principals that may be a user, with %h, %u and %U as in authorized_keys; "" if a
            certificate must name the user.
        command: asked for such principals if the file does not name one of the certificate's.
        strict_modes: refuse lists of principals in files and folders that others can write.
        variables: patterns of the names that the option environment may set in those lists.

    Raises:
        ConfigError: a file cannot be read, or holds no key.
    """

    def __init__(
        self, files: Sequence[str], principals: str = "", command: KeysCommand | None = None, *,
        strict_modes: bool = True, variables: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._files = tuple(files)
        self._pattern = principals
        self._command = command
        self._strict_modes = strict_modes
        self._parse = partial(parse_principals, variables=tuple(variables))
        self._keys = AuthorizedKeysCache()
        self._principals = CheckedFiles(self._parse, lambda path, why: AuthorizedPrincipals(path, (), ((0, why),)))
        self._told = RefusedLines()
        for path in self._files:
            keys = self._load(path)
            if keys.refused:
                line, reason = keys.refused[0]
                raise ConfigError(reason, path=path, line=line or None, key="authorities")
            if not keys.entries:
                raise ConfigError("holds no key", path=path, key="authorities")

    def _load(self, path: str) -> AuthorizedKeys:
        try:
            os.stat(path)
        except OSError as error:
            return AuthorizedKeys(path, (), ((0, f"cannot be read: {error.strerror}"),))
        keys = self._keys.load(path, owner_uid=None)
        optioned = [(each.line, "an authority's key stands alone on its line") for each in keys.entries if each.options]
        plain = tuple(each for each in keys.entries if not each.options)
        return AuthorizedKeys(path, plain, (*keys.refused, *optioned)) if optioned else keys

    async def decide(self, login: UserCertificate, attempt: Attempt, account: Account) -> Decision:
        """Say whether a certificate lets a user in."""
        authorities = await attempt.run(self._authorities)
        if not self._pattern and self._command is None:
            return login.decide_trusted(authorities)
        lists: list[AuthorizedPrincipals] = []
        if self._pattern:
            lists.append(await attempt.run(self._listed, account))
        decision = login.decide_trusted(authorities, lists)
        usable = login.certificate.authority in authorities and not login.refusal
        if decision.entry is None and not decision.final and usable and self._command is not None:
            lists.append(await self._asked(self._command, login, attempt, account))
            decision = login.decide_trusted(authorities, lists)
        return decision

    async def pretend(self, login: UserCertificate, attempt: Attempt) -> None:
        """Take as long as `decide` would for a user who exists."""
        authorities = await attempt.run(self._authorities)
        known = login.certificate.authority in authorities
        if known and not login.refusal and self._command is not None:
            await self._command.pretend()

    def _authorities(self) -> set[PublicKey]:
        found = set()
        for path in self._files:
            keys = self._load(path)
            self._told.tell(keys)
            found |= {each.key for each in keys.entries}
        return found

    def _listed(self, account: Account) -> AuthorizedPrincipals:
        tokens = {"h": account.home, "u": account.name, "U": str(account.uid)}
        found = self._principals.load(
            os.path.join(account.home, filled_in(self._pattern, tokens)),
            owner_uid=account.uid if self._strict_modes else None,
            home=account.home,
        )
        self._told.tell(found)
        return found

    async def _asked(
        self, command: KeysCommand, login: UserCertificate, attempt: Attempt, account: Account
    ) -> AuthorizedPrincipals:
        certificate = login.certificate
        authority_type, authority = certificate.authority.line().split(" ")[:2]
        tokens = {
            "T": authority_type, "K": authority, "F": certificate.authority.fingerprint(), "i": certificate.key_id,
            "s": str(certificate.serial),
        }  # fmt: skip
        source = f"authorized_principals_command for {account.name}"
        try:
            said = await command.lines(attempt, account, certificate, tokens)
        except (OSError, TimeoutError, ConfigError, ValueError) as error:  # ValueError: a NUL in the key id
            _LOG.error("authorized_principals_command failed for %s: %s", clean(account.name), clean(str(error)))
            return AuthorizedPrincipals(source, (), ())
        found = self._parse(said, source)
        self._told.tell(found)
        return found


def principals_command(command: str, user: str, seconds: float) -> KeysCommand:
    """Make the command that is asked for principals.

    Raises:
        ConfigError: it cannot be used.
    """
    try:
        return KeysCommand(command, user, seconds, tokens=TOKENS + _MORE_TOKENS)
    except ConfigError as error:
        message = str(error).removeprefix(f"{error.key}: ")
        raise ConfigError(message, key=f"principals_{error.key}") from error
