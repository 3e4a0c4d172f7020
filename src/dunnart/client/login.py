"""How a client proves who its user is: an agent's keys, keys, questions, passwords, in this order (RFC 4252, 4256)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from dunnart.client.agent import Agent
from dunnart.errors import AgentError, AuthenticationFailed, ConfigError, KeyFormatError, KeyLocked
from dunnart.keys.certificate import Certificate, plain_name
from dunnart.keys.files import read_private_key
from dunnart.keys.private import PrivateKey
from dunnart.keys.public import PublicKey, split_line
from dunnart.protocol.questions import (
    Credential,
    InteractiveCredential,
    PasswordCredential,
    Prompt,
    PublicKeyCredential,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
METHODS = ("publickey", "keyboard-interactive", "password")
"""What is tried, in this order."""

KeySource = PrivateKey | Certificate | str | os.PathLike[str]
PasswordCallback = Callable[[], Awaitable[str | None]]
PassphraseCallback = Callable[[str], Awaitable[str | None]]
PromptCallback = Callable[[Prompt], Awaitable[Sequence[str] | None]]


class Identity(Protocol):
    """A key to log in with."""

    @property
    def key(self) -> PublicKey:
        """Its public half."""

    @property
    def certificate(self) -> Certificate | None:
        """What to show in the place of the public half."""

    @property
    def ask_first(self) -> bool:
        """Whether to have it sign costs more than to ask the server about it first."""

    async def sign(self, algorithm: str, data: bytes) -> bytes:
        """Sign.

        Raises:
            DunnartError: it cannot.
        """


class Login:
    """One connection's credentials, tried one after the other.

    Args:
        user: who is to be logged in.
        host: where, for errors.
        keys: keys, or the names of their files; None for those that ssh makes.
        agent: an agent's socket, True for $SSH_AUTH_SOCK if it is set, False for none.
        algorithms: the signature algorithms that may be used.
        password: the password, or who knows it: asked until it has no answer.
        passphrase: the passphrase of locked keys, or who knows it: asked with the file's name.
        prompt: who answers the server's questions.
        order: the methods that may be tried, in this order.
        asks: how often a password, a passphrase or the server's questions are asked.
        identities_only: of the agent's keys only those that `keys` names.
        tell: who is told what the server says before the login.
    """

    def __init__(
        self,
        user: str,
        host: str,
        *,
        keys: Sequence[KeySource] | None,
        agent: bool | str | os.PathLike[str],
        algorithms: tuple[str, ...],
        password: str | PasswordCallback | None,
        passphrase: str | PassphraseCallback | None,
        prompt: PromptCallback | None,
        order: tuple[str, ...] = METHODS,
        asks: int = 3,
        identities_only: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._who = f"{user}@{host}"
        if wrong := set(order) - set(METHODS):
            raise ConfigError(f"{min(wrong)!r} is none of {', '.join(METHODS)}", key="methods")
        self._order = order
        self._identities_only = identities_only
        self._tell = tell
        sources: Sequence[KeySource] = DEFAULT_KEYS if keys is None else keys
        self._certificates = [source for source in sources if isinstance(source, Certificate)]
        self._keys = [source for source in sources if not isinstance(source, Certificate)]
        self._keys_named = keys is not None
        self._wanted_agent = agent
        self._agent: Agent | None = None
        self._algorithms = algorithms
        self._password = password
        self._passphrase = passphrase
        self._prompt = prompt
        self._methods: tuple[str, ...] = ()
        self._identities = self._find_identities()
        self._identity: Identity | None = None
        self._asks = asks
        passwords = 0 if password is None else 1 if isinstance(password, str) else asks
        self._interactive_left = passwords if prompt is None else asks
        self._passwords_left = passwords
        self._tried: list[str] = []
        self._notes: list[str] = []

    def hear(self, text: str) -> None:
        """The server says something before the login."""
        if self._tell is not None:
            self._tell(text)

    async def close(self) -> None:
        """Let go of the agent."""
        await self._identities.aclose()
        if self._agent is not None:
            self._agent.close()

    # What the engine asks.

    async def next(
        self, methods: tuple[str, ...], extensions: Mapping[str, bytes], *, partial: bool
    ) -> Credential | None:
        """The next credential, of a method that the server would go on with; None if there is none left."""
        if partial and self._tried:
            self._tried[-1] += " (accepted, but more is wanted)"
        self._methods = methods = methods or self._methods
        for method in self._order:
            if method in methods and (credential := await self._credential(method, extensions)) is not None:
                return credential
        return None

    async def _credential(self, method: str, extensions: Mapping[str, bytes]) -> Credential | None:
        if method == "publickey":
            listed = extensions.get("server-sig-algs")
            return await self._key(None if listed is None else frozenset(listed.decode("ascii", "replace").split(",")))
        if method == "keyboard-interactive" and self._interactive_left:
            self._interactive_left -= 1
            self._tried.append(method)
            return InteractiveCredential("", None)
        if method == "password" and (password := await self._ask_password()) is not None:
            self._tried.append(method)
            return PasswordCredential(password)
        return None

    async def _key(self, accepted: frozenset[str] | None) -> PublicKeyCredential | None:
        async for identity in self._identities:
            shown_key = identity.certificate or identity.key
            algorithm = self._algorithm(shown_key, accepted)
            shown = f"{shown_key.key_type} {identity.key.fingerprint()}"
            if algorithm is None:
                self._notes.append(f"no signature algorithm of {shown} is allowed on both sides")
                continue
            self._identity = identity
            self._tried.append(f"publickey {shown}")
            return PublicKeyCredential(
                identity.key, algorithm, signed=not identity.ask_first, certificate=identity.certificate
            )
        return None

    def _algorithm(self, key: PublicKey | Certificate, accepted: frozenset[str] | None) -> str | None:
        """Choose by server-sig-algs (RFC 8308 §3.1), which names no certificates: RSA keys can sign in several ways."""
        ours = (name for name in key.signature_algorithms if name in self._algorithms)
        return next((name for name in ours if accepted is None or (plain_name(name) or name) in accepted), None)

    async def sign(self, algorithm: str, data: bytes) -> bytes | None:
        """Sign with the key that was chosen last; None if that fails, and the next one is tried."""
        assert self._identity is not None
        try:
            return await self._identity.sign(algorithm, data)
        except (AgentError, ConfigError) as error:
            self._notes.append(str(error))
            return None

    async def answer(self, prompt: Prompt) -> tuple[str, ...] | None:
        """Answer the server's questions; a single one that hides what is typed is one for the password."""
        if self._prompt is not None:
            answers = await self._prompt(prompt)
            if answers is None:
                self._leave_unanswered()
                return None
            if len(answers) != len(prompt.prompts):
                raise ValueError(f"{len(answers)} answers to {len(prompt.prompts)} questions")
            return tuple(answers)
        if len(prompt.prompts) == 1 and not prompt.prompts[0][1]:
            password = self._password if isinstance(self._password, str) else await self._ask_password()
            if password is not None:
                return (password,)
        self._leave_unanswered()
        return None

    def _leave_unanswered(self) -> None:
        self._interactive_left = 0
        self._notes.append("nobody has answered the server's questions")

    async def _ask_password(self) -> str | None:
        if not self._passwords_left or self._password is None:
            return None
        self._passwords_left -= 1
        if isinstance(self._password, str):
            return self._password
        password = await self._password()
        if password is None:
            self._passwords_left = 0
        return password

    def failure(self, methods: tuple[str, ...], reason: str = "") -> AuthenticationFailed:
        """What to say when nobody is let in: what was tried, and what the server offers."""
        methods = methods or self._methods
        tried = "; ".join(self._tried) or "nothing, for there is nothing to try"
        text = f"{self._who} is not let in. Tried: {tried}. The server offers: {', '.join(methods) or 'nothing'}."
        for note in (reason, *self._notes):
            text += f" {note[:1].upper()}{note[1:]}." if note else ""
        return AuthenticationFailed(text, methods)

    # Keys.

    async def _find_identities(self) -> AsyncGenerator[Identity, None]:
        """All keys, each once: the agent's, then those in memory and in files; certificates before their keys."""
        seen: set[bytes] = set()
        for held in await self._from_agent():
            for each in _with_certificates(held, self._certificates):
                seen.add((each.certificate or each.key).blob)
                yield each
        for source in self._keys:
            found = await self._load(source)
            for each in () if found is None else _with_certificates(found, [*self._certificates, *_beside(source)]):
                if (blob := (each.certificate or each.key).blob) not in seen:
                    seen.add(blob)
                    yield each

    async def _from_agent(self) -> Sequence[Identity]:
        where = self._wanted_agent
        if where is False or (where is True and not os.environ.get("SSH_AUTH_SOCK")):
            return []
        try:
            self._agent = agent = await Agent.connect(None if where is True else where)
            held = await agent.identities()
        except AgentError as error:
            if where is not True:  # it was named
                raise
            self._notes.append(str(error))
            return []
        found = [_OfAgent(agent, each.key, several=len(held) > 1) for each in held]
        if self._identities_only:
            named = [await asyncio.to_thread(_public_of, source) for source in self._keys]
            return [each for each in found if each.key in named]
        return found

    async def _load(self, source: PrivateKey | str | os.PathLike[str]) -> Identity | None:
        if isinstance(source, PrivateKey):
            return _InMemory(source)
        path, exists = _place(source)
        if not (exists or self._keys_named):
            return None
        if _is_public(path, exists=exists):
            return None  # the agent has its private half, or nobody
        try:
            return await self._open(path)
        except ConfigError as error:
            if self._keys_named:
                raise
            self._notes.append(str(error))
            return None

    async def _open(self, path: str) -> Identity:
        passphrase = self._passphrase if isinstance(self._passphrase, str) else None
        try:
            return _InMemory(await asyncio.to_thread(read_private_key, path, passphrase=passphrase))
        except ConfigError as error:
            if not isinstance(error.__cause__, KeyLocked) or self._passphrase is None:
                raise
        # Nobody is bothered for the passphrase of a key that the server does not want.
        public = await asyncio.to_thread(_public_half, path)
        return _InMemory(await self._unlock(path)) if public is None else _Locked(public, path, self._unlock)

    async def _unlock(self, path: str) -> PrivateKey:
        assert callable(self._passphrase)
        for left in range(self._asks - 1, -1, -1):
            passphrase = await self._passphrase(path)
            if passphrase is None:
                break
            try:
                return await asyncio.to_thread(read_private_key, path, passphrase=passphrase)
            except ConfigError:
                if not left:
                    raise
        raise ConfigError("the private key is locked, and no passphrase was given", path=path)


class _InMemory:
    """A private key that is there."""

    ask_first = False
    certificate = None

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.key = private.public

    async def sign(self, algorithm: str, data: bytes) -> bytes:
        private = self._private
        return await asyncio.to_thread(private.sign, algorithm, data) if private.slow else private.sign(algorithm, data)


class _Locked:
    """A private key in a file that is opened when the server wants the key."""

    ask_first = True
    certificate = None

    def __init__(self, key: PublicKey, path: str, unlock: Callable[[str], Awaitable[PrivateKey]]) -> None:
        self.key = key
        self._path = path
        self._unlock = unlock

    async def sign(self, algorithm: str, data: bytes) -> bytes:
        private = await self._unlock(self._path)
        if private.public != self.key:
            raise ConfigError(f"is not the public half of {self._path}", path=f"{self._path}.pub")
        return await _InMemory(private).sign(algorithm, data)


class _Certified:
    """A key that has a certificate."""

    def __init__(self, identity: Identity, certificate: Certificate) -> None:
        self._identity = identity
        self.key = identity.key
        self.ask_first = identity.ask_first
        self.certificate = certificate

    async def sign(self, algorithm: str, data: bytes) -> bytes:
        return await self._identity.sign(algorithm, data)


class _OfAgent:
    """A key or a certificate that an agent holds; each signature may bother its user."""

    def __init__(self, agent: Agent, held: PublicKey | Certificate, *, several: bool) -> None:
        self._agent = agent
        self._held = held
        self.certificate = held if isinstance(held, Certificate) else None
        self.key = held.key if isinstance(held, Certificate) else held
        self.ask_first = several or held.key_type.startswith("sk-")

    async def sign(self, algorithm: str, data: bytes) -> bytes:
        return await self._agent.sign(self._held, algorithm, data)


def _with_certificates(identity: Identity, certificates: Sequence[Certificate]) -> list[Identity]:
    """Put the certificates that are a key's before it."""
    if identity.certificate is not None:
        return [identity]
    return [*(_Certified(identity, each) for each in certificates if each.key == identity.key), identity]


def _beside(source: PrivateKey | str | os.PathLike[str]) -> list[Certificate]:
    """The certificate that is in a file beside a key's."""
    if isinstance(source, PrivateKey):
        return []
    try:
        with open(os.path.expanduser(f"{os.fspath(source)}-cert.pub"), encoding="utf-8", errors="replace") as file:
            return [Certificate.decode(split_line(file.readline(1 << 16))[1])]
    except (OSError, KeyFormatError):
        return []


def _public_of(source: PrivateKey | str | os.PathLike[str]) -> PublicKey | None:
    """The public half, where it can be known without a passphrase."""
    if isinstance(source, PrivateKey):
        return source.public
    path = os.path.expanduser(os.fspath(source))
    found = _public_half(path) or _public_half(path.removesuffix(".pub"))
    if found is None:
        with contextlib.suppress(ConfigError):
            found = read_private_key(path).public
    return found


def _is_public(path: str, *, exists: bool) -> bool:
    """Whether only the public half of a key is there."""
    return _public_half(path.removesuffix(".pub")) is not None and (path.endswith(".pub") or not exists)


def _place(source: str | os.PathLike[str]) -> tuple[str, bool]:
    path = os.path.expanduser(os.fspath(source))
    return path, os.path.exists(path)


def _public_half(path: str) -> PublicKey | None:
    try:
        with open(f"{path}.pub", encoding="utf-8", errors="replace") as file:
            return PublicKey.parse_line(file.readline(1 << 16))[0]
    except (OSError, KeyFormatError):
        return None
