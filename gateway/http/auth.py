"""Who is calling, and whether they may: keys in `Authorization: Bearer`, stream tokens in `?token=`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp

from gateway.errors import Forbidden, Unauthenticated
from gateway.http.keyring import KeyRing
from gateway.http.tokens import TokenDesk
from gateway.keys import Key, Scope, holds

PUBLIC = "public"
"""In a handler's `opt`: it answers without a key."""
TAKES_TOKEN = "takes_token"  # noqa: S105 - the name of an option, no secret
"""In a handler's `opt`: a stream, for which `?token=` is as good as a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, by a key or by a stream token made from one.

    `libraries` (None: all) is what the caller is confined to. `types` (None: all) is what a token was made for: a
    stream must match both its own filter and these. From `expires_at` on the caller is nobody.
    """

    key_id: str
    scopes: frozenset[Scope]
    libraries: frozenset[str] | None
    types: frozenset[str] | None = None
    expires_at: datetime | None = None
    via: Literal["key", "token"] = "key"

    def may(self, *scopes: Scope) -> bool:
        """Whether one of *scopes* is held; admin is good for all."""
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(scopes)

    def sees(self, libraries: frozenset[str] | None) -> bool:
        """Whether it holds all of *libraries* (None: all there are)."""
        return holds(self.libraries, libraries)

    def sees_library(self, library_id: str) -> bool:
        return self.libraries is None or library_id in self.libraries


def caller_of(key: Key) -> Caller:
    return Caller(key_id=key.id, scopes=key.scopes, libraries=key.libraries)


@dataclass(frozen=True, slots=True)
class Requires:
    """A guard: one of `scopes` is needed, and with `unconfined` a key for all libraries.

    A coroutine, because Litestar calls a plain function in a thread: twice a switch of threads for each request.
    """

    scopes: tuple[Scope, ...]
    unconfined: bool = False

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if connection.scope.get("method") == HttpMethod.OPTIONS:
            return  # Litestar's own answer: which methods there are, for anybody
        caller: Caller = connection.auth
        if not caller.may(*self.scopes):
            raise Forbidden(f"this needs the scope {' or '.join(self.scopes)}")
        if self.unconfined and caller.libraries is not None:
            raise Forbidden("this is for keys that are not confined to libraries")


def requires(*scopes: Scope, unconfined: bool = False) -> Requires:
    return Requires(scopes, unconfined)


class Authentication(AbstractAuthenticationMiddleware):
    """Put the `Caller` on the request, or answer 401. Handlers with `PUBLIC` in their `opt` are left out."""

    def __init__(self, app: ASGIApp, *, keyring: KeyRing, tokens: TokenDesk) -> None:
        super().__init__(app, exclude_from_auth_key=PUBLIC)
        self._keyring = keyring
        self._tokens = tokens

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        return AuthenticationResult(user=None, auth=await self._caller(connection))

    async def _caller(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
        if (header := connection.headers.get("authorization")) is not None:
            scheme, _, secret = header.strip().partition(" ")
            if scheme.lower() != "bearer" or not secret:
                raise Unauthenticated("expected the header Authorization: Bearer <key>")
            if (key := await self._keyring.find(secret.strip())) is None:
                raise Unauthenticated("this key is not known, or was revoked")
            return caller_of(key)
        if connection.route_handler.opt.get(TAKES_TOKEN) and (text := connection.query_params.get("token")) is not None:
            token = await self._tokens.read(text)
            return Caller(
                key_id=token.key_id,
                scopes=frozenset({Scope.STREAM}),
                libraries=token.libraries,
                types=token.types,
                expires_at=token.expires_at,
                via="token",
            )
        raise Unauthenticated("a key is needed, in the header Authorization: Bearer <key>")
