"""Public keys from the users' authorized_keys files, and from a program that knows more of them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from dunnart.crypto.profiles import PROFILES
from dunnart.errors import ConfigError
from dunnart.keys.authorized_keys import AuthorizedKeysCache, Decision, parse
from dunnart.keys.certified import UserCertificate
from dunnart.plugins import os_account
from dunnart.plugins.keys_command import KeysCommand, filled_in
from dunnart.records import dataclass
from dunnart.server import AuthReply, Deny, PublicKeyCredential, clean
from dunnart.server.authentication import RefusedLines, decider, reply_of
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.keys import AuthorizedKeys, Certificate
    from dunnart.plugins.certificates import TrustedAuthorities
    from dunnart.plugins.os_account import Account
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_LOG = logging.getLogger("dunnart.auth")


@dataclass(frozen=True, slots=True)
class Options:
    """What `dunnart serve` fills in from its own options.

    Attributes:
        files: the option authorized_keys.
        strict_modes: the option of that name.
        root: whether permit_root_login lets root in by a key.
        variables: the option permit_user_environment.
        command: the option authorized_keys_command; `command_user` is that of authorized_keys_command_user.
        command_seconds: how long a command may take.
        authorities: the option trusted_user_ca_keys.
        principals: the option authorized_principals_file.
        principals_command: the option authorized_principals_command; `principals_command_user` is that of its user.
        ca_algorithms: the signature algorithms of authorities, as ca_signature_algorithms has them.
    """

    files: tuple[str, ...] = ("%h/.ssh/authorized_keys",)
    strict_modes: bool = True
    root: bool = True
    variables: tuple[str, ...] = ()
    command: str = ""
    command_user: str = ""
    command_seconds: float = 8.0
    authorities: tuple[str, ...] = ()
    principals: str = ""
    principals_command: str = ""
    principals_command_user: str = ""
    ca_algorithms: tuple[str, ...] = PROFILES["default"].ca_signature

    def __post_init__(self) -> None:
        if self.command_seconds <= 0:
            raise ValueError("command_seconds must be more than 0")


@plugin(Options)
def from_files(context: Context[Options]) -> AuthorizedKeysFiles:
    """Lets in by the public keys that the user's files list."""
    options = context.options
    command = KeysCommand(options.command, options.command_user, options.command_seconds) if options.command else None
    return AuthorizedKeysFiles(
        options.files, strict_modes=options.strict_modes, root=options.root, variables=options.variables,
        command=command, trusted=_trusted(options), ca_algorithms=options.ca_algorithms,
    )  # fmt: skip


def _trusted(options: Options) -> TrustedAuthorities | None:
    if not options.authorities:
        return None
    from dunnart.plugins.certificates import TrustedAuthorities, principals_command

    command = None
    if options.principals_command:
        user = options.principals_command_user
        command = principals_command(options.principals_command, user, options.command_seconds)
    return TrustedAuthorities(
        options.authorities, options.principals, command, strict_modes=options.strict_modes,
        variables=options.variables,
    )  # fmt: skip


class AuthorizedKeysFiles:
    """The publickey method, by files as sshd's AuthorizedKeysFile names them.

    Args:
        patterns: file names; %h is the user's home, %u the name, %U the number, %% a percent sign; relative ones stand
            in the home.
        strict_modes: refuse files and folders that others can write.
        root: whether root may log in.
        variables: patterns of the names that the option environment may set.
        command: asked for more lines when the files do not let a key in.
        trusted: decides on certificates whose authorities none of the user's lines names.
        ca_algorithms: the signature algorithms that an authority may have used on a certificate.
    """

    method = "publickey"
    on_any_loop = True
    certificates = True

    def __init__(
        self, patterns: tuple[str, ...], *, strict_modes: bool = True, root: bool = True,
        variables: tuple[str, ...] = (), command: KeysCommand | None = None,
        trusted: TrustedAuthorities | None = None, ca_algorithms: Collection[str] = PROFILES["default"].ca_signature,
    ) -> None:  # fmt: skip
        self._patterns = patterns
        self._strict_modes = strict_modes
        self._root = root
        self._variables = variables
        self._command = command
        self._trusted = trusted
        self._ca_algorithms = ca_algorithms
        self._cache = AuthorizedKeysCache(variables)
        self._told = RefusedLines()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Allow a key, or a certificate, by the user's files, the trusted authorities, or what the command says."""
        if not isinstance(attempt.credential, PublicKeyCredential):
            return Deny("not a public key")
        # Homes may stand on a network, and so may the list of users: in a thread a hung one holds up nobody else.
        account, decision = await attempt.run(self._decide, attempt)
        if account is None:
            if self._command is not None:
                await self._command.pretend()
            if self._trusted is not None and attempt.credential.certificate is not None:
                await self._trusted.pretend(self._shown(attempt, attempt.credential.certificate), attempt)
            return Deny("no such user here", unknown_user=True)
        if account.uid == 0 and not self._root:
            return Deny("root may not log in")
        certificate = attempt.credential.certificate
        if self._trusted is not None and certificate is not None and not _settled(decision):
            decision = _then(decision, await self._trusted.decide(self._shown(attempt, certificate), attempt, account))
        if self._command is not None and not _settled(decision):
            decision = _then(decision, await self._ask(self._command, attempt, account))
        if certificate is not None and not _settled(decision) and not decision.reasons:
            decision = Decision(None, ("its authority is not trusted",))
        return reply_of(decision, account)

    def _shown(self, attempt: Attempt, certificate: Certificate) -> UserCertificate:
        return UserCertificate(
            certificate, user=attempt.user, address=attempt.address, now=time.time(), algorithms=self._ca_algorithms
        )

    def _decide(self, attempt: Attempt) -> tuple[Account | None, Decision]:
        account = os_account.find(attempt.user)
        if account is None:
            return None, Decision()
        decide = decider(attempt, account.name, self._ca_algorithms)
        reasons: tuple[str, ...] = ()
        for pattern in self._patterns:
            keys = self._cache.load(
                fill_in(pattern, account.name, account.uid, account.home),
                owner_uid=account.uid if self._strict_modes else None,
                home=account.home,
            )
            self._told.tell(keys)
            decision = decide(keys)
            _note(attempt, keys, decision)
            if _settled(decision):
                return account, Decision(decision.entry, reasons + decision.reasons, decision.final)
            reasons += decision.reasons + tuple(f"{keys.source}: {why}" for line, why in keys.refused if not line)
        return account, Decision(None, reasons)

    async def _ask(self, command: KeysCommand, attempt: Attempt, account: Account) -> Decision:
        credential = attempt.credential
        assert isinstance(credential, PublicKeyCredential)
        try:
            said = await command.lines(attempt, account, credential.certificate or credential.key)
        except (OSError, TimeoutError, ConfigError) as error:
            _LOG.warning("authorized_keys_command failed for %s: %s", clean(account.name), clean(str(error)))
            return Decision()
        keys = parse(said, f"authorized_keys_command for {account.name}", variables=self._variables)
        self._told.tell(keys)
        decision = decider(attempt, account.name, self._ca_algorithms)(keys)
        _note(attempt, keys, decision)
        return decision


def _note(attempt: Attempt, keys: AuthorizedKeys, decision: Decision) -> None:
    if decision.entry is not None:
        _LOG.debug("connection %d: %s:%d lets the key in", attempt.connection, clean(keys.source), decision.entry.line)


def _settled(decision: Decision) -> bool:
    return decision.entry is not None or decision.final


def _then(before: Decision, after: Decision) -> Decision:
    return Decision(after.entry, before.reasons + after.reasons, after.final)


def fill_in(pattern: str, name: str, uid: int, home: str) -> str:
    """The file that a pattern means for a user: %h, %u, %U and %% are filled in; a relative one stands in the home."""
    return os.path.join(home, filled_in(pattern, {"h": home, "u": name, "U": str(uid)}))
