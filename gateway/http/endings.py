"""Answer whoever is still waiting when the process ends: by itself the server says 500, as of a fault."""

import asyncio

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Overloaded


class Ending:
    """A middleware, around all that may wait. What the request asked for may be done all the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def seen(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except asyncio.CancelledError:  # by the server alone, once its patience is at an end
            if is_answered:
                raise
            raise Overloaded("The gateway is stopping") from None
