"""`/v1/events/ws` and `/v1/libraries/{library_id}/ws`: the same streams over WebSocket, one JSON message an event.

A page of any origin may connect: no cookie and nothing else of a browser's own accord says who it is, the token does.
"""

from typing import Annotated, Any

from litestar import Controller, WebSocket, websocket
from litestar.params import FromPath
from pydantic import Field

from gateway.errors import Overloaded
from gateway.filters import Filter
from gateway.http.auth import TAKES_TOKEN, Caller, requires
from gateway.http.bodies import parse_query
from gateway.http.event_schemas import filter_of_query
from gateway.http.messages import SocketEncoding
from gateway.http.readers import AnyOfLibraries, ReaderQuery, UseStreams, refuse_invisible, wish_of
from gateway.http.wire.closing import TRY_AGAIN_LATER
from gateway.http.wire.sockets import serve
from gateway.keys import Scope
from gateway.streams.streaming import Streams


class SocketQuery(ReaderQuery):
    """What a WebSocket is to carry, and from where."""

    after: Annotated[str | None, Field(description="A cursor to go on after; it wins over `since`.")] = None


class AnyLibrarySocketQuery(SocketQuery):
    """The same, of any library."""

    library_id: AnyOfLibraries = None


Socket = WebSocket[Any, Caller, Any]


class SocketController(Controller):
    path = "/v1"
    guards = (requires(Scope.STREAM),)

    @websocket("/events/ws", opt={TAKES_TOKEN: True})
    async def all_libraries(self, socket: Socket, streams: UseStreams) -> None:
        query = parse_query(AnyLibrarySocketQuery, socket.query_params.multi_items())
        wanted = filter_of_query(library_id=query.library_id, type_=query.type, expression=query.filter)
        await _stream(socket, streams, query, wanted)

    @websocket("/libraries/{library_id:str}/ws", opt={TAKES_TOKEN: True})
    async def one_library(self, socket: Socket, library_id: FromPath[str], streams: UseStreams) -> None:
        refuse_invisible(library_id, socket.auth)
        query = parse_query(SocketQuery, socket.query_params.multi_items())
        wanted = filter_of_query(library_id=[library_id], type_=query.type, expression=query.filter)
        await _stream(socket, streams, query, wanted)


async def _stream(socket: Socket, streams: Streams, query: SocketQuery, wanted: Filter) -> None:
    wish = wish_of(socket, query, wanted, encoding=SocketEncoding(), cursor=query.after)
    try:
        opening = await streams.open(wish)
    except Overloaded as error:
        # A browser is told nothing of a handshake that is refused; a code it can see.
        await socket.accept()
        await socket.close(TRY_AGAIN_LATER, error.detail)
    else:
        await serve(socket, opening)
