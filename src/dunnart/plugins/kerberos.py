"""Logins by Kerberos tickets: gssapi-with-mic and gssapi-keyex (RFC 4462), by the system's GSS-API library.

A login takes several steps, and the library's security context lives here between them:

    mechanisms ──► Kerberos chosen, a new context ──► token ──► … ──► context complete ──► MIC ──► may this principal?

With gssapi-keyex the context is made in the key exchange, before there is a user, and proves the server in the place of
a host key; the login is then the MIC alone.

What the library does may read files (the keytab, the replay cache, ~/.k5login, in homes that stand on a network), so
every step runs in a thread, and the server's `callback_seconds` bounds it. The threads are the plug-in's own: steps
that hang hold up no other way to log in.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from dunnart.keys.rights import Rights
from dunnart.plugins import kuserok, os_account
from dunnart.records import dataclass
from dunnart.runtime.pool import ThreadPool
from dunnart.server import Allow, AuthReply, Deny, GssapiCredential, GssapiKeyExchange, GssapiStep, clean
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_THREADS, _QUEUE = 8, 100
KERBEROS = bytes.fromhex("06092a864886f712010202")
"""1.2.840.113554.1.2.2 in DER, which is what clients send (RFC 4462 §3.2)."""


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.gssapi].

    Attributes:
        keytab: the file with the server's keys; "" is the system's.
        acceptor: which of its keys serve: "host" are those of the service host under any name of this machine,
            "host@ssh.example.org" is that one alone, "" are all.
        users: principals, and the users that each may log in as, with commas between them. Then only those may.
        realm: principals NAME@REALM of this realm may log in as NAME. Without `users` and `realm` the system decides:
            ~/.k5login, and auth_to_local in krb5.conf.
        delegation: keep the tickets that clients forward; the session's KRB5CCNAME leads to them, and they are removed
            when the connection ends.
    """

    keytab: str = ""
    acceptor: str = "host"
    users: Mapping[str, str] = field(default_factory=dict)
    realm: str = ""
    delegation: bool = False

    def __post_init__(self) -> None:
        if self.keytab and not os.path.isabs(self.keytab):
            raise ValueError(f"keytab must be an absolute path, not {self.keytab!r}")
        if "/" in self.acceptor:
            raise ValueError(f"acceptor is written SERVICE@HOST, not {self.acceptor!r}")
        for principal in self.users:
            if "@" not in principal:
                raise ValueError(f"users: {principal!r} names no realm: write {principal}@REALM")


@dataclass(slots=True)
class _Login:
    """One connection's. `tickets` is the folder that holds those that were forwarded, `over` says that it is gone."""

    context: Any = None
    tickets: str = ""
    over: bool = False


@plugin(Options)
class Kerberos:
    """Lets in by Kerberos tickets. Needs the extra dunnart[gssapi]."""

    method = "gssapi-with-mic"
    on_any_loop = True

    def __init__(self, context: Context[Options]) -> None:
        self._options = context.options
        self._log = context.logger
        self._logins: dict[int, _Login] = {}
        self._threads = ThreadPool("dunnart-kerberos", _THREADS, _QUEUE)
        self._gssapi, self._credentials = _acceptor(context.options)

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Take one step."""
        credential = attempt.credential
        if not isinstance(credential, GssapiCredential):
            return Deny("not a step of GSS-API")
        login = self._logins.setdefault(attempt.connection, _Login())
        if credential.mic is None and credential.token is None:
            login.context = None
            if KERBEROS not in credential.mechanisms:
                return Deny("the client does not offer Kerberos")
            login.context = self._new_context()
            return GssapiStep(KERBEROS)
        context, login.context = login.context, None  # whatever happens to this step, it cannot be taken again
        if context is None:
            return Deny("no exchange is under way")
        reply: AuthReply
        if credential.token is not None:
            reply = await self._in_thread(self._step, context, credential.token)
            if isinstance(reply, GssapiStep):
                login.context = context
        else:
            reply = await self._in_thread(self._decide, login, context, attempt.user, credential)
        return reply

    async def _in_thread(self, function: Callable[..., AuthReply], *arguments: object) -> AuthReply:
        return await self._threads.run(lambda: function(*arguments))

    def _new_context(self) -> Any:  # noqa: ANN401 - gssapi.SecurityContext
        context = self._gssapi.SecurityContext(creds=self._credentials, usage="accept")
        # Else a step that fails would look like one that did not, if the library has something to say to the client.
        context.__DEFER_STEP_ERRORS__ = False
        return context

    def ended(self, connection: int) -> None:
        """A connection is gone: let go of what was kept for it."""
        login = self._logins.pop(connection, None)
        if login is not None:
            login.over = True
            _remove(login)

    # In a thread.

    def _step(self, context: Any, token: bytes) -> AuthReply:  # noqa: ANN401 - gssapi.SecurityContext
        if context.complete:
            return Deny("a token after the last one")
        try:
            answer = context.step(token)
        except self._gssapi.exceptions.GSSError as error:
            return Deny(_reason(error))
        return GssapiStep(answer or b"")

    def _decide(self, login: _Login, context: Any, user: str, credential: GssapiCredential) -> AuthReply:  # noqa: ANN401
        if not context.complete:
            return Deny("a MIC before the last token")
        try:
            context.verify_signature(credential.signed, credential.mic)
            principal = str(context.initiator_name)
        except self._gssapi.exceptions.GSSError as error:
            return Deny(_reason(error))
        if not self._may(principal, user):
            return Deny(f"{clean(principal)} may not log in as this user", unknown_user=False)
        rights = None
        if self._options.delegation and context.delegated_creds is not None:
            name = _keep(login, context.delegated_creds, user)
            rights = Rights(environment=(("KRB5CCNAME", name),))
        self._log.info("%s logs in as %s", clean(principal), clean(user))
        return Allow(None, rights)

    def _may(self, principal: str, user: str) -> bool:
        options = self._options
        if not options.users and not options.realm:
            return kuserok.may_log_in(principal, user)
        listed = options.users.get(principal, "")
        return user in [each.strip() for each in listed.split(",") if each.strip()] or (
            bool(options.realm) and principal == f"{user}@{options.realm}" and not set(user) & set("@/\\")
        )


@plugin(Options)
class KerberosKeyExchange(Kerberos):
    """Has Kerberos prove the server, in the place of host keys, and lets in by the same tickets (dunnart[gssapi])."""

    method = "gssapi-keyex"

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Take one step of a key exchange, or decide on a login."""
        step = attempt.credential
        login = self._logins.setdefault(attempt.connection, _Login())
        reply: AuthReply
        if isinstance(step, GssapiCredential):
            if login.context is None:
                return Deny("keys were not exchanged by GSS-API")
            reply = await self._in_thread(self._decide, login, login.context, attempt.user, step)
            return reply
        if not isinstance(step, GssapiKeyExchange):
            return Deny("not a step of GSS-API")
        if step.first:
            login.context = self._new_context()
        if login.context is None:
            return Deny("no exchange is under way")
        reply = await self._in_thread(self._exchange, login.context, step)
        return reply

    # In a thread.

    def _exchange(self, context: Any, step: GssapiKeyExchange) -> AuthReply:  # noqa: ANN401 - gssapi.SecurityContext
        if step.digest is not None:
            return GssapiStep(context.get_signature(step.digest)) if context.complete else Deny("not yet established")
        reply = self._step(context, step.token or b"")
        if not isinstance(reply, GssapiStep) or not context.complete:
            return reply
        needed = self._gssapi.RequirementFlag.mutual_authentication, self._gssapi.RequirementFlag.integrity
        if not all(flag in context.actual_flags for flag in needed):  # RFC 4462 §2.1
            return Deny("the client wants no mutual authentication, or no integrity")
        return GssapiStep(reply.data, complete=True)


def _acceptor(options: Options) -> tuple[Any, Any]:
    """The module gssapi, and the server's credentials."""
    try:
        gssapi = importlib.import_module("gssapi")
    except ImportError as error:
        raise ValueError(f"Kerberos needs the extra: pip install 'dunnart[gssapi]' ({error})") from error
    except OSError as error:
        raise ValueError(f"the system has no GSS-API library: {error}") from error
    name = gssapi.Name(options.acceptor, gssapi.NameType.hostbased_service) if options.acceptor else None
    store = {"keytab": options.keytab} if options.keytab else None
    kerberos = [gssapi.MechType.kerberos]
    try:
        return gssapi, gssapi.Credentials(name=name, usage="accept", mechs=kerberos, store=store)
    except gssapi.exceptions.GSSError as error:
        whose = f" of {options.acceptor}" if options.acceptor else ""
        raise ValueError(f"there are no usable keys{whose} in {options.keytab or 'the keytab'}: "
                         f"{_reason(error)}") from error  # fmt: skip


def _reason(error: Any) -> str:  # noqa: ANN401 - gssapi.exceptions.GSSError
    said = [*error.get_all_statuses(error.maj_code, True), *error.get_all_statuses(error.min_code, False)]  # noqa: FBT003
    return clean("; ".join(dict.fromkeys(said)))


def _keep(login: _Login, credentials: Any, user: str) -> str:  # noqa: ANN401 - gssapi.Credentials
    """Keep forwarded tickets in a folder that only the user can enter; gives the cache's name."""
    _remove(login)
    login.tickets = folder = tempfile.mkdtemp(prefix="krb5cc_")
    path = os.path.join(folder, "tickets")
    credentials.store(store={"ccache": f"FILE:{path}"}, usage="initiate", overwrite=True)
    account = os_account.to_act_as(user, ())
    if account is not None:
        os.chown(path, account.uid, account.gid)
        os.chown(folder, account.uid, account.gid)
    if login.over:
        _remove(login)
    return f"FILE:{path}"


def _remove(login: _Login) -> None:
    folder, login.tickets = login.tickets, ""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
