"""Logging in with OpenID Connect: the authorization code flow with PKCE, and a name and roles out of what was signed.

An ID token is believed that the provider's own keys signed, for this console, just now, for the login that began in
this browser (OpenID Connect Core 1.0, section 3.1.3.7). Its groups become roles as the configuration says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import urllib.error
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import jwt

from pgwitness.core.config.gateway import safe_url
from pgwitness.core.config.serving import ConsoleOpenid
from pgwitness.core.errors import ConfigurationError, NotInOrder, Unreachable
from pgwitness.core.runtime import web
from pgwitness.core.secretfile import secret
from sinks.console.roles import RIGHTS
from sinks.console.users import fault_of_name

CALLBACK = "/login/openid"
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""With a key pair all: with a shared secret, or none, whoever knows the console could sign."""
TIMEOUT_S, LEEWAY_S = 10.0, 60.0
BEGUN_S, BEGUN_MAX = 600.0, 10_000
ANSWER_BYTES_MAX = 1024**2
METADATA_S = 3_600.0
GROUPS_MAX = 1_000


@dataclass(frozen=True)
class Begun:
    """A login that was begun: what its answer must know, and where to go on afterwards."""

    next: str
    at_s: float
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))


@dataclass(frozen=True)
class Identity:
    """Who somebody is by the provider's word: the name here, the provider's own for them, and roles."""

    name: str
    subject: str
    roles: tuple[str, ...]


class Provider:
    """One provider. Several threads may ask."""

    def __init__(self, config: ConsoleOpenid, clock: Callable[[], float]) -> None:
        """Raise `ConfigurationError` when the configuration cannot be used; the provider is not asked yet."""
        for group, roles in config.roles.items():
            unknown = [role for role in roles if role not in RIGHTS]
            if unknown:
                raise ConfigurationError(f"console.openid.roles: {group}: there is no role {unknown[0]!r}")
        _safe("console.openid.issuer", config.issuer)
        _safe("console.openid.url", config.url)
        self.config = config
        self._secret = secret(config.client_secret_file, "console.openid.client_secret_file").decode()
        self._clock = clock
        self._begun: OrderedDict[str, Begun] = OrderedDict()
        self._lock = threading.Lock()
        self._metadata: tuple[float, dict[str, Any], jwt.PyJWKClient] | None = None

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends people back to."""
        return self.config.url.rstrip("/") + CALLBACK

    def begin(self, wanted: str) -> tuple[str, str]:
        """Begin a login; returns the address to send the browser to, and the state that it must come back with."""
        metadata, _ = self._known()
        state, begun = secrets.token_urlsafe(24), Begun(wanted, self._clock())
        with self._lock:
            self._begun[state] = begun
            while len(self._begun) > BEGUN_MAX:
                self._begun.popitem(last=False)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.config.client_id,
                "redirect_uri": self.redirect_uri,
                "scope": " ".join(self.config.scopes),
                "state": state,
                "nonce": begun.nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        address = str(metadata["authorization_endpoint"])
        return f"{address}{'&' if '?' in address else '?'}{query}", state

    def take(self, state: str) -> Begun | None:
        """Return the login that was begun with a state, once."""
        with self._lock:
            begun = self._begun.pop(state, None)
        return begun if begun is not None and self._clock() - begun.at_s < BEGUN_S else None

    def finish(self, code: str, begun: Begun) -> Identity:
        """Exchange a code for who somebody is. Raise `NotInOrder` where the answer is not believed, `Unreachable`."""
        metadata, keys = self._known()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": begun.verifier,
            "client_id": self.config.client_id,
        }
        headers = {}
        methods = metadata.get("token_endpoint_auth_methods_supported")
        if isinstance(methods, list) and "client_secret_post" in methods:
            form["client_secret"] = self._secret
        else:  # what a provider that says nothing takes; RFC 6749, section 2.3.1
            pair = f"{quote_plus(self.config.client_id)}:{quote_plus(self._secret)}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        answer = _fetch(str(metadata["token_endpoint"]), urlencode(form).encode(), headers)
        claims = self._claims(str(answer.get("id_token", "")), keys)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), begun.nonce.encode()):
            raise NotInOrder("the provider's answer is to another login")
        return self._identity(claims)

    def _claims(self, token: str, keys: jwt.PyJWKClient) -> dict[str, Any]:
        try:
            key = keys.get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self.config.client_id,
                issuer=self.config.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub", "iss", "aud"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise Unreachable(f"the keys of {self.config.issuer} cannot be read: {error}") from error
        except jwt.PyJWTError as error:
            raise NotInOrder(f"the provider's answer is not believed: {error}") from error
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != self.config.client_id:
            raise NotInOrder("the provider's answer is for another program")
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        name = claims.get(self.config.name_claim)
        if not isinstance(name, str) or fault_of_name(name) is not None:
            raise NotInOrder(f"the provider's answer has no usable {self.config.name_claim}: console.openid.name_claim")
        if self.config.name_claim == "email" and claims.get("email_verified") is not True:
            raise NotInOrder("the provider does not vouch for this address (email_verified)")
        groups = claims.get(self.config.groups_claim)
        listed = groups[:GROUPS_MAX] if isinstance(groups, list) else []
        roles = [role for group in listed if isinstance(group, str) for role in self.config.roles.get(group, [])]
        return Identity(name, str(claims["sub"])[:200], tuple(dict.fromkeys(roles)))

    def _known(self) -> tuple[dict[str, Any], jwt.PyJWKClient]:
        """Return what the provider says of itself, and its keys; asked again after an hour."""
        with self._lock:
            if self._metadata is None or self._clock() - self._metadata[0] > METADATA_S:
                found = _fetch(self.config.issuer.rstrip("/") + "/.well-known/openid-configuration")
                if found.get("issuer") != self.config.issuer:
                    raise NotInOrder(f"{self.config.issuer} says that it is {found.get('issuer')!r}")
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    try:
                        _safe(f"{name} of {self.config.issuer}", str(found.get(name)))
                    except ConfigurationError as error:
                        raise NotInOrder(str(error)) from error
                keys = jwt.PyJWKClient(str(found["jwks_uri"]), timeout=int(TIMEOUT_S))
                self._metadata = (self._clock(), found, keys)
            return self._metadata[1], self._metadata[2]


def _fetch(url: str, form: bytes | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Ask for JSON. Raise `Unreachable`, and `NotInOrder` for an answer that is none."""
    wanted = {"accept": "application/json", **(headers or {})}
    try:
        found = json.loads(web.answer(url, wanted, form, timeout_s=TIMEOUT_S, at_most=ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        error.close()
        raise NotInOrder(f"{urlsplit(url).netloc} refuses the login (status {error.code})") from error
    except OSError as error:
        raise Unreachable(f"{urlsplit(url).netloc} cannot be reached: {error}") from error
    except ValueError as error:
        raise NotInOrder(f"{urlsplit(url).netloc} answers what is no JSON") from error
    return found if isinstance(found, dict) else {}


def _safe(where: str, url: str) -> None:
    """Refuse an address that is not encrypted, except on this machine."""
    if not (safe_url(url) and urlsplit(url).netloc):
        raise ConfigurationError(f"{where}: must begin with https://")
