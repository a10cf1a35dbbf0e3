"""A Litestar response that begins a stream, by whichever way its reader can be reached."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from litestar import Litestar, Request, Response
from litestar.background_tasks import BackgroundTask, BackgroundTasks
from litestar.datastructures import Cookie
from litestar.enums import MediaType
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send, TypeEncodersMap

from gateway.http.frames import MEDIA_TYPE
from gateway.http.wire.detached import StreamProtocol
from gateway.http.wire.plain import PlainStream
from gateway.streams.streaming import Opening

HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Vary": "Origin",
}


class StreamResponse(Response[bytes]):
    """What a handler returns for a stream that was opened. It begins, or its place is given back, whatever happens.

    Without an opening it is the answer to HEAD: the headers of a stream.
    """

    __slots__ = ("opening",)

    def __init__(self, opening: Opening | None) -> None:
        super().__init__(b"", headers=HEADERS, media_type=MEDIA_TYPE)
        self.opening = opening

    def to_asgi_response(
        self,
        app: Litestar | None,
        request: Request[Any, Any, Any],
        *,
        background: BackgroundTask | BackgroundTasks | None = None,
        cookies: Iterable[Cookie] | None = None,
        encoded_headers: Iterable[tuple[bytes, bytes]] | None = None,
        headers: dict[str, str] | None = None,
        is_head_response: bool = False,
        media_type: MediaType | str | None = None,
        status_code: int | None = None,
        type_encoders: "TypeEncodersMap | None" = None,
    ) -> ASGIResponse:
        return _Serving(
            self.opening,
            background=background,
            cookies=[*self.cookies, *(cookies or ())],
            headers={**(headers or {}), **self.headers},
            status_code=status_code,
        )


class _Serving(ASGIResponse):
    __slots__ = ("_opening",)

    _should_set_content_length = False

    def __init__(
        self,
        opening: Opening | None,
        *,
        background: BackgroundTask | BackgroundTasks | None,
        cookies: Iterable[Cookie],
        headers: dict[str, str],
        status_code: int | None,
    ) -> None:
        super().__init__(background=background, cookies=cookies, headers=headers, status_code=status_code)
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._opening is None:
            await self.start_response(send)
            await self.send_body(send, receive)
        else:
            await self._serve(self._opening, scope, receive, send)
        await self.after_response()

    async def _serve(self, opening: Opening, scope: Scope, receive: Receive, send: Send) -> None:
        protocol = StreamProtocol.of(scope)
        try:
            if protocol is not None:
                protocol.prepare(scope)
            await self.start_response(send)
            # Returns when the connection takes more. One that is full already would never say that it is.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            sink = None if protocol is None else protocol.detach(scope, opening.stream)
            if sink is not None:
                opening.begin(sink)
            else:
                plain = PlainStream(opening.stream)
                opening.begin(plain)
                await plain.serve(receive, send)
        finally:
            opening.abandon()
