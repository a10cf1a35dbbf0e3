"""Refuse a WebSocket before its handshake, with the same problems as any request.

Litestar's way is to close it with a code, which the server turns into an empty 403. Here that is turned into the
problem itself. The server has to know ASGI's `websocket.http.response`, as ours does; another one answers 403 still.
"""

from http import HTTPStatus

from litestar.config.app import AppConfig
from litestar.enums import ScopeType
from litestar.plugins import InitPlugin
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from litestar.types.asgi_types import WebSocketResponseBodyEvent, WebSocketResponseStartEvent

from gateway.errors import Unauthenticated
from gateway.http import problems
from gateway.http.wire.closing import FAILED, FORBIDDEN, UNAUTHENTICATED

EXTENSION = "websocket.http.response"
_REFUSAL = "gateway.refusal"


class Handshakes(InitPlugin):
    """For an app's `plugins`."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.after_exception.append(_note)
        app_config.middleware.insert(0, _Answering)
        return app_config


async def _note(error: Exception, scope: Scope) -> None:
    if scope["type"] == ScopeType.WEBSOCKET:
        scope["state"][_REFUSAL] = error


class _Answering:
    """Around all that may refuse: an error of the middleware comes by as it is, of a guard or handler as a close."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.WEBSOCKET:
            await self.app(scope, receive, send)
            return
        accepted = False

        async def answer(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            error = scope["state"].get(_REFUSAL)
            if message["type"] != "websocket.close" or error is None:
                await send(message)
            elif accepted:
                problems.log.error("websocket.failed", path=scope["path"], exc_info=error)
                await send({"type": "websocket.close", "code": FAILED, "reason": ""})
            else:
                await _refuse(error, scope, send)

        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            if accepted:
                raise
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
