"""ID tokens (OpenID Connect Core §2, 3.1.3.7): what they say counts once the issuer's signature holds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from dunnart.errors import ConfigError
from dunnart.plugins.looking_up import have_tls

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures, and nothing else: with a MAC whoever knows the client's secret could make tokens."""
_SKEW_SECONDS = 60
_NEEDED = ["iss", "sub", "aud", "exp", "iat"]


class BadToken(Exception):
    """A token that proves nothing; says why."""


class Verifier:
    """Reads the tokens that one issuer makes for one client.

    Raises:
        ConfigError: PyJWT is not there.
    """

    def __init__(self, issuer: str, client_id: str) -> None:
        have_tls()
        try:
            self._jwt = importlib.import_module("jwt")
        except ImportError as error:
            raise ConfigError(f"OpenID Connect needs the extra: pip install 'dunnart[oidc]' ({error})") from error
        self._issuer = issuer
        self._client_id = client_id

    def claims(self, token: str, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give what a token says.

        Args:
            token: as it came.
            keys: the issuer's JWK set.

        Raises:
            BadToken: it is malformed, another issuer's, for another client, signed by none of the keys, or out of date.
        """
        try:
            header = self._jwt.get_unverified_header(token)
            key = self._key(header, keys)
            claims: Mapping[str, Any] = self._jwt.decode(
                token, key, algorithms=[header["alg"]], audience=self._client_id, issuer=self._issuer,
                leeway=_SKEW_SECONDS, options={"require": _NEEDED},
            )  # fmt: skip
        except self._jwt.PyJWTError as error:
            raise BadToken(f"the ID token proves nothing: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise BadToken(f"the ID token is malformed: {error!r}") from error
        # Core §3.1.3.7: whom it was issued to, where it is for several.
        if claims.get("azp", self._client_id) != self._client_id:
            raise BadToken("the ID token was issued to another client")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims:
            raise BadToken("the ID token is for several clients, and does not say whom it was issued to")
        return claims

    def _key(self, header: Mapping[str, Any], keys: Mapping[str, Any]) -> Any:  # noqa: ANN401 - PyJWT's
        if header.get("alg") not in _ALGORITHMS:
            raise BadToken(f"the ID token's algorithm {header.get('alg')!r} is not accepted")
        found = [each for each in keys.get("keys", ()) if isinstance(each, dict) and each.get("use", "sig") == "sig"
                 and each.get("kid") == header.get("kid")]  # fmt: skip
        if len(found) != 1:
            raise BadToken(f"the issuer has {len(found)} keys for the ID token")
        if found[0].get("kty") == "oct" or found[0].get("alg", header["alg"]) != header["alg"]:
            raise BadToken("the issuer's key is for another algorithm")
        return self._jwt.PyJWK(found[0], algorithm=header["alg"])
