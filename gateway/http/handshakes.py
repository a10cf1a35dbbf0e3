"""Refuse a WebSocket before its handshake, with the same problems as any request.

The server has to know ASGI's `websocket.http.response`, as ours does; another one answers 403, whatever the problem.
"""

from http import HTTPStatus

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from litestar.types.asgi_types import WebSocketResponseBodyEvent, WebSocketResponseStartEvent

from gateway.errors import Unauthenticated
from gateway.http import problems
from gateway.http.wire.closing import FAILED, FORBIDDEN, UNAUTHENTICATED

EXTENSION = "websocket.http.response"


class Handshakes:
    """Middleware around all that may refuse one. Litestar's own would close each with a code, which becomes a 403."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.WEBSOCKET:
            await self.app(scope, receive, send)
            return
        accepted = False

        async def noting(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 - whatever it is, it gets its one answer here
            if accepted:
                problems.log.error("websocket.failed", path=scope["path"], exc_info=error)
                await send({"type": "websocket.close", "code": FAILED, "reason": ""})
            else:
                await _refuse(error, scope, send)


async def _refuse(error: Exception, scope: Scope, send: Send) -> None:
    if EXTENSION not in (scope.get("extensions") or {}):
        code = UNAUTHENTICATED if isinstance(error, Unauthenticated) else FORBIDDEN
        await send({"type": "websocket.close", "code": code, "reason": ""})
        return
    response = problems.of_handshake(scope, error)
    headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
    headers += [(name.lower().encode(), str(value).encode()) for name, value in response.headers.items()]
    start: WebSocketResponseStartEvent = {
        "type": "websocket.http.response.start",
        "status": response.status_code or HTTPStatus.INTERNAL_SERVER_ERROR,
        "headers": headers,
    }
    body: WebSocketResponseBodyEvent = {
        "type": "websocket.http.response.body",
        "body": response.content,
        "more_body": False,
    }
    await send(start)
    await send(body)
