"""Codes of an app that change every half minute (RFC 6238), asked for by keyboard-interactive.

Secrets stand in a file for each user, as google-authenticator writes it: the secret in base32, then lines that begin
with a quotation mark. Of these TOTP_AUTH must be there; codes of eight digits for an emergency are not taken.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError
from dunnart.keys.regular import open_regular
from dunnart.plugins import os_account
from dunnart.plugins.keys_command import filled_in
from dunnart.records import dataclass
from dunnart.server import Allow, AuthReply, Deny, InteractiveCredential, Prompt, clean
from dunnart.server.plugins import plugin

if TYPE_CHECKING:
    from dunnart.server.authentication import Attempt
    from dunnart.server.plugins import Context

STEP_SECONDS = 30
_WINDOW = 1
_DIGITS = 6
_LARGEST_FILE = 64 * 1024
_SECRET = re.compile(r"[A-Z2-7]{16,128}=*")
_NOBODY = "A" * 32
_PROMPT = Prompt((("Verification code: ", False),))
_MOST_USERS = 100_000
_UNKNOWN = "no such user here"


@dataclass(frozen=True, slots=True)
class Options:
    """The table [plugin.totp].

    Attributes:
        file: where a user's secret stands; %h is the home, %u the name, %U the number, %% a percent sign. Users whom
            the system does not know can have one if there is neither %h nor %U in it.
        tries: how many codes a user may try in `seconds`; further ones are not looked at.
        seconds: see `tries`.
    """

    file: str = "%h/.google_authenticator"
    tries: int = 3
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if not self.file.startswith(("/", "%h/")):
            raise ValueError(f"file must be absolute or begin with %h/, not {self.file!r}")
        if self.tries < 1:
            raise ValueError("tries must be at least 1")
        if self.seconds < 0:
            raise ValueError("seconds must not be negative")


class _Unusable(Exception):
    """A secret's file cannot be used; says why."""


class _Seen:
    """What was tried of one secret.

    Attributes:
        used: the last step whose code was taken; it and those before are not taken again.
        tries: when codes were tried.
    """

    __slots__ = ("tries", "used")

    def __init__(self, used: int) -> None:
        self.used = used
        self.tries: list[float] = []


_LOCK = threading.Lock()
_SEEN: dict[str, _Seen] = {}
"""By the secrets' files: a code that one plug-in took no other takes."""


@plugin(Options)
class Totp:
    """Lets in by the six digits that an app shows (RFC 6238); only as one method of a chain.

    A code of the half minute before or after is taken too, for clocks that differ; no code is taken twice, nor one from
    before the server's start. A user without a secret is asked like others.
    """

    method = "keyboard-interactive"
    on_any_loop = True
    second_factor = True

    def __init__(self, context: Context[Options], clock: Callable[[], float] = time.time) -> None:
        try:
            from pyotp import TOTP
        except ImportError as error:
            raise ConfigError(f'pyotp cannot be loaded: pip install "dunnart[totp]" ({error})') from error
        self._totp = TOTP
        self._options = context.options
        self._log = context.logger
        self._clock = clock
        self._first = self._step()

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Ask for the code; compare it in a thread."""
        credential = attempt.credential
        if not isinstance(credential, InteractiveCredential):
            return Deny("not keyboard-interactive")
        if credential.responses is None:
            return _PROMPT
        code = credential.responses[0].replace(" ", "") if len(credential.responses) == 1 else ""
        reply: AuthReply = await attempt.run(self._decide, attempt.user, code)
        return reply

    def _step(self) -> int:
        return int(self._clock()) // STEP_SECONDS

    def _decide(self, user: str, code: str) -> AuthReply:
        try:
            path, owner = self._file_of(user)
            secret, reason = read_secret(path, owner), ""
        except _Unusable as error:
            path, secret, reason = "", _NOBODY, str(error)
        now = self._step()
        fitting = self._fitting(secret, code, now)  # the same work for everybody
        if reason:
            return Deny(reason, unknown_user=reason == _UNKNOWN)
        with _LOCK:
            seen = _SEEN.get(path)
            if seen is None:
                if len(_SEEN) >= _MOST_USERS:
                    return Deny("too many users have tried codes")
                seen = _SEEN[path] = _Seen(self._first)
            clock = self._clock()
            seen.tries = [each for each in seen.tries if clock - self._options.seconds < each <= clock]
            if len(seen.tries) >= self._options.tries:
                self._log.warning("%s tries too many codes", clean(user))
                return Deny("too many codes were tried")
            seen.tries.append(clock)
            if not fitting:
                return Deny("the code is wrong")
            fresh = [step for step in fitting if step > seen.used]
            if not fresh:
                return Deny("the code was used before, or is older than the server's start")
            seen.used = fresh[-1]
        return Allow()

    def _fitting(self, secret: str, code: str, now: int) -> list[int]:
        from cryptography.hazmat.primitives.constant_time import bytes_eq

        made = self._totp(secret, digits=_DIGITS, interval=STEP_SECONDS)
        tried = code.encode(errors="replace")
        return [step for step in range(now - _WINDOW, now + _WINDOW + 1)
                if bytes_eq(made.generate_otp(step).encode(), tried)]  # fmt: skip

    def _file_of(self, user: str) -> tuple[str, int]:
        """Give the file of a user's secret, and who else than root may own it."""
        account = os_account.find(user)
        if account is not None:
            tokens = {"h": account.home, "u": account.name, "U": str(account.uid)}
            return filled_in(self._options.file, tokens), account.uid
        if re.search(r"%[hU]", self._options.file.replace("%%", "")) or not re.fullmatch(r"[\w@+-][\w.@+-]*", user):
            raise _Unusable(_UNKNOWN)
        return filled_in(self._options.file, {"u": user}), os.geteuid()


def read_secret(path: str, owner: int) -> str:
    """Read a secret from a file as google-authenticator writes it."""
    try:
        descriptor, found = open_regular(path)
        try:
            if found.st_uid not in (0, owner):
                raise _Unusable(f"{path} belongs neither to root nor to the user")
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise _Unusable(f"{path} can be read or written by others; chmod 600 mends that")
            # What the kernel makes up while it is read has no size; a user can have put a link to it.
            data = os.read(descriptor, _LARGEST_FILE) if found.st_size else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise _Unusable("has no secret") from error
    except OSError as error:
        raise _Unusable(f"{path} cannot be read: {error.strerror}") from error
    lines = data.decode(errors="replace").splitlines()
    secret = lines[0].strip().upper() if lines else ""
    if not _SECRET.fullmatch(secret):
        raise _Unusable(f"{path} does not begin with a secret in base32 of at least 16 characters")
    if not any(line.startswith('" TOTP_AUTH') for line in lines):
        raise _Unusable(f'{path} has no line " TOTP_AUTH: its codes do not change with the time')
    return secret
