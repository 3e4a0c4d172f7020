"""The key source `http`: lines of authorized_keys from a web server, as https://github.com/NAME.keys gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from urllib.parse import quote, urlsplit

from dunnart.plugins.looking_up import LookingUp
from dunnart.plugins.web import Web, trusted
from dunnart.records import dataclass
from dunnart.server.plugins import Context, plugin

_OK = 200
_NONE = (404, 410)


@dataclass(frozen=True)
class Options:
    """Where keys are asked for.

    Attributes:
        url: the page with a user's lines; %u is the user's name. https, or http to this machine. Redirects are not
            followed; a page that does not exist (404, 410) means no keys.
        headers: sent with the request, as {"Authorization": "Bearer …"}.
        ca_file: certificates that the server's is checked with; empty: those that the system trusts.
        seconds: how long an answer may take.
        cache_seconds: how long an answer counts; so long a key that was withdrawn still lets in.
        largest_bytes: a longer answer fails.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str = ""
    seconds: float = 5.0
    cache_seconds: float = 60.0
    largest_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"url is {self.url!r}, which is no https://HOST/…")
        if not trusted(self.url):
            raise ValueError("url must be https: who can change the answer can log in")
        if "%u" not in self.url.partition("://")[2].partition("/")[2]:
            raise ValueError("url holds no %u behind the host: it would give everybody's keys to everybody")
        if self.seconds <= 0 or self.cache_seconds < 0 or self.largest_bytes <= 0:
            raise ValueError("seconds and largest_bytes must be more than 0, cache_seconds not less")


@plugin(Options)
class HttpKeys:
    """Knows the keys that a web server has for a user."""

    def __init__(self, context: Context[Options]) -> None:
        options = context.options
        self._options = options
        plain = options.url.startswith("http:")
        self._web = Web(options.seconds, options.ca_file, largest_bytes=options.largest_bytes, plain=plain)
        self._looking_up = LookingUp(self._fetch, options.seconds, options.cache_seconds)

    async def keys(self, user: str, address: str) -> Sequence[str]:
        """Ask the server, or remember."""
        return await self._looking_up.keys(user, address)

    def _fetch(self, user: str) -> Sequence[str]:
        url = self._options.url.replace("%u", quote(user, safe=""))
        status, said = self._web.fetch(url, headers=self._options.headers)
        if status in _NONE:
            return ()
        if status != _OK:
            raise OSError(f"the server answers {status}")
        return said.decode(errors="surrogateescape").split("\n")
