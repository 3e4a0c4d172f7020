"""Logins in a browser: OpenID Connect by the device flow (RFC 8628), as prompts of keyboard-interactive.

    begin ──► the issuer gives a code ──► "Open URL, enter CODE, press Enter" ──Enter──► approved? ──► who is it?
                        │                              ▲                                    │ no
                        └── polls, as often as the issuer says, until expiry                └──► the prompt again

The issuer is asked in threads of this plug-in's own, each answer bounded in time: one that hangs holds up no other way
to log in. What was begun ends with the connection.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from dunnart.errors import ConfigError
from dunnart.plugins.id_token import BadToken, Verifier
from dunnart.plugins.web import Web, trusted
from dunnart.records import dataclass
from dunnart.runtime.pool import ThreadPool
from dunnart.server import Allow, AuthReply, Deny, InteractiveCredential, Prompt, clean
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_THREADS = 8
_MOST_LOGINS = 100
_LOOK_SECONDS = 4.0  # how long an Enter waits for the approval before the prompt comes again
_SHORTEST_INTERVAL, _USUAL_INTERVAL, _SLOW_DOWN = 1.0, 5.0, 5.0  # RFC 8628 §3.2, 3.5
_OK = 200


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.oidc].

    Attributes:
        issuer: the issuer's address, as it stands in its tokens. https, or http to this machine.
        client_id: what the issuer knows this server as.
        client_secret_file: the file with the secret that belongs to it; "": it has none.
        scopes: what is asked for.
        user_claim: which claim of the ID token says who it is.
        users: values of that claim, and the users that each may log in as, with commas between them; empty: the claim
            is the user's name.
        groups: a user must be in one of these; empty: in none.
        groups_claim: which claim lists a user's groups.
        seconds: how long an answer of the issuer may take.
        login_seconds: how long the user may take in the browser; the server's login_grace_seconds, one minute, counts
            as well.
        ca_file: certificates that the issuer's is checked with; "": those that the system trusts.
    """

    issuer: str
    client_id: str
    client_secret_file: str = ""
    scopes: tuple[str, ...] = ("openid", "profile")
    user_claim: str = "preferred_username"
    users: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    groups_claim: str = "groups"
    seconds: float = 5.0
    login_seconds: float = 300.0
    ca_file: str = ""

    def __post_init__(self) -> None:
        if not trusted(self.issuer):
            raise ValueError(f"issuer must be https: {self.issuer!r} could be anybody")
        if "openid" not in self.scopes:
            raise ValueError("scopes must hold openid: without it there is no ID token")
        if self.client_secret_file and not os.path.isabs(self.client_secret_file):
            raise ValueError(f"client_secret_file must be an absolute path, not {self.client_secret_file!r}")
        if self.seconds <= 0 or self.login_seconds <= 0:
            raise ValueError("seconds and login_seconds must be more than 0")


@dataclass(slots=True)
class _Login:
    """One that waits for its user: what to show, and the task that asks the issuer."""

    prompt: Prompt
    claims: asyncio.Task[Mapping[str, Any]]


class _Refused(Exception):
    """The issuer, or the user in the browser, says no; says why."""


@plugin(Options)
class Oidc:
    """Lets in whom an OpenID Connect issuer vouches for, in the user's browser. Needs the extra dunnart[oidc]."""

    method = "keyboard-interactive"

    def __init__(self, context: Context[Options]) -> None:
        self._options = options = context.options
        self._log = context.logger
        self._web = Web(options.seconds, options.ca_file)
        self._verifier = Verifier(options.issuer, options.client_id)
        self._secret = _read_secret(options.client_secret_file)
        self._threads = ThreadPool("dunnart-oidc", _THREADS, _MOST_LOGINS)
        self._logins: dict[int, _Login] = {}

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Show the code, or look whether it was entered."""
        if not isinstance(attempt.credential, InteractiveCredential):
            return Deny("not an interactive login")
        try:
            if attempt.credential.responses is None:
                self.ended(attempt.connection)
                login = await self._begin(attempt.connection)
                return login.prompt
            return await self._look(attempt)
        except (OSError, BufferError, _Refused, BadToken) as error:
            self.ended(attempt.connection)
            return Deny(clean(str(error) or type(error).__name__))

    def ended(self, connection: int) -> None:
        """A connection is gone, or begins anew: ask no more."""
        login = self._logins.pop(connection, None)
        if login is not None:
            login.claims.cancel()

    async def _begin(self, connection: int) -> _Login:
        if len(self._logins) >= _MOST_LOGINS:
            raise _Refused(f"{_MOST_LOGINS} logins wait for their users already")
        issuer = await self._discover()
        status, device = await self._post(issuer["device_authorization_endpoint"], scope=" ".join(self._options.scopes))
        if status != _OK:
            raise _Refused(f"the issuer gives no code: {device.get('error', status)}")
        code, shown = _text(device, "user_code"), _text(device, "verification_uri")
        link = device.get("verification_uri_complete")
        lines = [f"To log in, open {shown} in a browser and enter the code {code}"]
        if isinstance(link, str) and link.isprintable():
            lines.append(f"or open {link}")
        lines.append("Go on only if you began this login yourself.")
        prompt = Prompt((("Press Enter when that is done: ", True),), instruction="\n".join(lines) + "\n")
        login = _Login(prompt, asyncio.get_running_loop().create_task(self._poll(issuer, device)))
        login.claims.add_done_callback(lambda task: task.cancelled() or task.exception())  # it may be nobody's any more
        self._logins[connection] = login
        return login

    async def _look(self, attempt: Attempt) -> AuthReply:
        login = self._logins.get(attempt.connection)
        if login is None:
            return Deny("no login was begun")
        done, _ = await asyncio.wait([login.claims], timeout=_LOOK_SECONDS)
        if not done:
            return login.prompt
        self._logins.pop(attempt.connection, None)
        if login.claims.cancelled():
            return Deny("the connection is gone")
        return self._decide(attempt.user, login.claims.result())

    def _decide(self, user: str, claims: Mapping[str, Any]) -> AuthReply:
        options = self._options
        who = claims.get(options.user_claim)
        if not isinstance(who, str) or not who:
            return Deny(f"the ID token has no claim {options.user_claim}")
        if options.user_claim == "email" and claims.get("email_verified") is not True:
            return Deny(f"nobody has verified that {clean(who)} is the user's address")
        allowed = options.users.get(who, "").split(",") if options.users else [who]
        if not user or user not in map(str.strip, allowed):
            return Deny(f"{clean(who)} may not log in as this user")
        groups = claims.get(options.groups_claim)
        if options.groups and not (isinstance(groups, list) and set(options.groups) & set(map(str, groups))):
            return Deny(f"{clean(who)} is in none of the groups that may log in")
        self._log.info("%s logs in as %s", clean(who), clean(user))
        return Allow()

    # The issuer.

    async def _discover(self) -> dict[str, str]:
        """The issuer's endpoints (OpenID Connect Discovery §4)."""
        address = self._options.issuer.rstrip("/") + "/.well-known/openid-configuration"
        status, found = await self._in_thread(address)
        if status != _OK or found.get("issuer") != self._options.issuer:
            raise OSError(f"{address} does not describe the issuer {self._options.issuer}")
        names = ("device_authorization_endpoint", "token_endpoint", "jwks_uri")
        endpoints = {name: _text(found, name) for name in names}
        for name, url in endpoints.items():
            if not trusted(url):
                raise OSError(f"the issuer's {name} is {url}, which is not https")
        return endpoints

    async def _poll(self, issuer: Mapping[str, str], device: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask until the user has approved it; gives the ID token's claims (RFC 8628 §3.4, 3.5)."""
        interval = max(_SHORTEST_INTERVAL, _number(device, "interval", _USUAL_INTERVAL))
        code = _text(device, "device_code")
        seconds = min(self._options.login_seconds, _number(device, "expires_in", 0.0))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await asyncio.sleep(interval)
                    try:
                        status, answer = await self._post(issuer["token_endpoint"], grant_type=_GRANT, device_code=code)
                    except (OSError, BufferError):  # RFC 8628 §3.5: an issuer that does not answer is asked less often
                        interval += _SLOW_DOWN
                        continue
                    if status == _OK:
                        break
                    if answer.get("error") == "slow_down":
                        interval += _SLOW_DOWN
                    elif answer.get("error") != "authorization_pending":
                        raise _Refused(f"the issuer refuses: {answer.get('error', status)}")
        except TimeoutError:
            raise _Refused("nobody has entered the code in time") from None
        _, keys = await self._in_thread(issuer["jwks_uri"])
        return self._verifier.claims(_text(answer, "id_token"), keys)

    async def _post(self, url: str, **form: str) -> tuple[int, dict[str, Any]]:
        form["client_id"] = self._options.client_id
        headers = {}
        if self._secret:  # RFC 6749 §2.3.1
            pair = f"{quote_plus(self._options.client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return await self._in_thread(url, form, headers)

    async def _in_thread(
        self, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        async with asyncio.timeout(self._options.seconds + 1):  # names that are looked up have no bound of their own
            return await self._threads.run(lambda: self._web.ask(url, form, headers))


def _read_secret(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", key="client_secret_file") from error
    if not secret:
        raise ConfigError(f"{path} is empty", key="client_secret_file")
    return secret


def _text(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str) or not found.isprintable() or not found:
        raise OSError(f"the issuer's answer has no usable {name}")
    return found


def _number(answer: Mapping[str, Any], name: str, otherwise: float) -> float:
    found = answer.get(name, otherwise)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
        raise OSError(f"the issuer's answer has no usable {name}")
    return found
