"""Every error as `application/problem+json` (RFC 9457), from one table."""

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, MethodNotAllowedException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import ExceptionHandlersMap, Scope

from gateway.errors import (
    Conflict,
    CursorGone,
    Fault,
    Forbidden,
    GatewayError,
    InvalidInput,
    MalformedInput,
    NotFound,
    Overloaded,
    StorageUnavailable,
    TooLarge,
    Unauthenticated,
)

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 100
"""No answer names more than this many faults: a body of a million wrong items gets a short answer."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its HTTP status, the last segment of its `type`, and its title."""

    status: int
    name: str
    title: str

    @property
    def uri(self) -> str:
        return f"/problems/{self.name}"


KINDS: dict[type[GatewayError], Kind] = {
    MalformedInput: Kind(400, "malformed", "The request cannot be read"),
    Unauthenticated: Kind(401, "unauthenticated", "A valid key is needed"),
    Forbidden: Kind(403, "forbidden", "The key may not do this"),
    NotFound: Kind(404, "not-found", "There is no such thing"),
    Conflict: Kind(409, "conflict", "It is there already, or not in a state for this"),
    CursorGone: Kind(410, "cursor-gone", "The log does not hold this place"),
    TooLarge: Kind(413, "too-large", "It is larger than its limit"),
    InvalidInput: Kind(422, "invalid", "Some of it is not what it has to be"),
    Overloaded: Kind(503, "overloaded", "It cannot be taken now"),
}
METHOD_NOT_ALLOWED = Kind(405, "method-not-allowed", "The resource does not have this method")
INTERNAL = Kind(500, "internal", "Something went wrong in the gateway")

_BY_STATUS = {kind.status: kind for kind in (*KINDS.values(), METHOD_NOT_ALLOWED, INTERNAL)}


def problem(
    kind: Kind, detail: str, faults: Iterable[Fault] = (), headers: dict[str, str] | None = None
) -> Response[bytes]:
    """The answer for *kind*, naming each fault with its JSON pointer."""
    content: dict[str, Any] = {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": _printable(detail),
    }
    if errors := [
        {"pointer": _printable(fault.pointer), "detail": _printable(fault.detail)}
        for fault in list(faults)[:MAX_FAULTS]
    ]:
        content["errors"] = errors
    return Response(
        content=msgspec.json.encode(content), status_code=kind.status, media_type=MEDIA_TYPE, headers=headers
    )


def kind_of(error: GatewayError) -> Kind:
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def of_gateway(error: GatewayError) -> Response[bytes]:
    """What the gateway itself refused."""
    kind = kind_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_seconds)
    # What a database says of itself is for the log, where it stands already.
    detail = "the database cannot be used now" if isinstance(error, StorageUnavailable) else error.detail
    return problem(kind, detail, error.faults, headers)


def of_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refused before a handler ran: no such route, no such method, a body over the limit."""
    if isinstance(error, MethodNotAllowedException):
        # Litestar counts a WebSocket among the methods.
        names = (error.headers or {}).get("allow", "").split(", ")
        allowed = ", ".join(name for name in names if name != "websocket")
        detail = f"{request.method} is not among {allowed}" if allowed else "this path is for WebSockets alone"
        return problem(METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})
    if isinstance(error, RequestEntityTooLarge):
        return problem(KINDS[TooLarge], "the body is over its limit of 10 MiB")
    if isinstance(error, InternalServerException) and "disconnected" in error.detail:
        # The caller went away in the middle of its body: nobody reads this answer, and nothing is wrong here.
        return problem(KINDS[MalformedInput], "the body ended early")
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return of_surprise(request, error)
    kind = _BY_STATUS.get(error.status_code, KINDS[MalformedInput])
    detail = "there is nothing at this path" if kind.status == HTTPStatus.NOT_FOUND else error.detail
    return problem(kind, detail)


def of_surprise(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of the gateway: logged in full, answered without a word about its inside."""
    log.error("request.failed", method=request.scope.get("method"), path=request.scope["path"], exc_info=error)
    return problem(INTERNAL, "the gateway failed to answer this; its log says why")


def of_handshake(scope: Scope, error: Exception) -> Response[bytes]:
    """The answer to a WebSocket that is refused: the same as to any request."""
    if isinstance(error, GatewayError):
        return of_gateway(error)
    request: Request[Any, Any, Any] = Request(scope)
    return of_framework(request, error) if isinstance(error, HTTPException) else of_surprise(request, error)


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    GatewayError: lambda _, error: of_gateway(error),
    HTTPException: of_framework,
    Exception: of_surprise,
}


def _printable(text: str) -> str:
    """*text* as UTF-8 can carry it: half a surrogate pair becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
