"""A small OpenID Connect provider with the device flow (RFC 8628), written for these tests: nothing on PyPI has it.

It signs with `cryptography` alone, so that it shares no code with what is tested.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT = "dunnart"
_KEY = rsa.generate_private_key(65537, 2048)
_STRANGE_KEY = rsa.generate_private_key(65537, 2048)


def encoded(data: bytes | dict[str, Any]) -> str:
    """Base64 for URLs, of JSON where it is none yet."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: dict[str, Any], claims: dict[str, Any], *, key: rsa.RSAPrivateKey = _KEY) -> str:
    """Make a token with an RS256 signature, whatever its header says."""
    head = f"{encoded(header)}.{encoded(claims)}"
    return f"{head}.{encoded(key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def strangely_signed(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Sign with a key that the provider does not publish."""
    return signed(header, claims, key=_STRANGE_KEY)


class Provider:
    """Serves on a free port of the loopback address until `close`.

    Attributes:
        issuer: its address.
        claims: what it says of the user, beside what it has to say.
        token: makes the ID token of header and claims.
        errors: what the token endpoint answers first, one after the other; then it waits for `approved`.
        approved: the user has entered the code.
        polls: how often it was asked for a token.
        asked: the forms that came.
        authorization: the header of the last request.
        paused: while it is cleared, nothing is answered.
        changes: of what it answers, by the path's last part.
    """

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"preferred_username": "ann"}
        self.token: Callable[[dict[str, Any], dict[str, Any]], str] = signed
        self.errors: list[str] = []
        self.approved = threading.Event()
        self.polls = 0
        self.asked: list[dict[str, str]] = []
        self.authorization: str | None = None
        self.paused = threading.Event()
        self.paused.set()
        self.changes: dict[str, Any] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                provider.authorization = self.headers["Authorization"]
                self._answer({name: values[0] for name, values in parse_qs(body).items()})

            def _answer(self, form: dict[str, str]) -> None:
                provider.paused.wait(30)
                name = self.path.rsplit("/", 1)[-1]
                status, answer = provider.answer(name, form)
                answer = provider.changes.get(name, answer)
                said = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)
                except OSError:
                    return  # who asked has gone

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}/realm"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self.paused.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, name: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer a request by the path's last part."""
        if name == "openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "device_authorization_endpoint": f"{self.issuer}/device",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        if name == "keys":
            numbers = _KEY.public_key().public_numbers()
            modulus, exponent = (encoded(each.to_bytes(256, "big").lstrip(b"\0")) for each in (numbers.n, numbers.e))
            return 200, {"keys": [{"kty": "RSA", "kid": "one", "use": "sig", "n": modulus, "e": exponent}]}
        if name == "approve":
            self.approved.set()
            return 200, {}
        self.asked.append(form)
        if form.get("client_id") != CLIENT:
            return 401, {"error": "invalid_client"}
        if name == "device":
            return 200, {
                "device_code": "the device's", "user_code": "WDJB-MJHT", "verification_uri": f"{self.issuer}/enter",
                "expires_in": 300, "interval": 0,
            }  # fmt: skip
        self.polls += 1
        if form.get("device_code") != "the device's":
            return 400, {"error": "invalid_grant"}
        if self.errors or not self.approved.is_set():
            return 400, {"error": self.errors.pop(0) if self.errors else "authorization_pending"}
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "1", "aud": CLIENT, "iat": now, "exp": now + 60, **self.claims}
        return 200, {"id_token": self.token({"alg": "RS256", "kid": "one"}, claims), "token_type": "Bearer"}
