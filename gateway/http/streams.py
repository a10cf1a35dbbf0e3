"""`/v1/events/stream` and `/v1/libraries/{library_id}/events/stream`: Server-Sent Events; `/v1/streams`: who listens,
by them or by WebSocket.

`stream_routes(streams)` is what the composition root adds to the app.
"""

from typing import Annotated, Any, Literal

from litestar import Controller, Request, Response, Router, delete, get, route
from litestar.di import Provide
from litestar.enums import HttpMethod
from litestar.params import FromPath
from pydantic import Field

from gateway.errors import NotFound, Overloaded
from gateway.filters import Filter
from gateway.http.answers import Answer, Time, answer
from gateway.http.auth import TAKES_TOKEN, Caller, requires
from gateway.http.bodies import parse_query
from gateway.http.event_schemas import filter_of_query
from gateway.http.frames import MEDIA_TYPE, SseEncoding
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import Paged, PageOf, fingerprint, read_token, write_token
from gateway.http.readers import AnyOfLibraries, ReaderQuery, UseStreams, refuse_invisible, wish_of
from gateway.http.sockets import SocketController
from gateway.http.wire.response import HEADERS, StreamResponse
from gateway.keys import Scope
from gateway.streams.sinks import Transport
from gateway.streams.stream import Stream
from gateway.streams.streaming import Streams

FRAMES = (
    "id: k3v9-42\nevent: document.added\n"
    'data: {"id":"evt_01jb3h5qk8e9vbr1q4z8e9vbr1","type":"document.added","library_id":"acme",'
    '"timestamp":"2025-10-27T06:01:00.000000Z","data":{"title":"My Document"}}\n\n'
)


class StreamQuery(ReaderQuery):
    """What a stream is to carry, how, and from where."""

    named: Annotated[
        Literal["true", "false"], Field(description="`false` leaves `event:` out, so that `onmessage` gets everything.")
    ] = "true"
    last_event_id: Annotated[
        str | None, Field(description="A cursor to go on after; the header Last-Event-ID wins.")
    ] = None


class AnyLibraryQuery(StreamQuery):
    """The same, of any library."""

    library_id: AnyOfLibraries = None


class StreamOut(Answer):
    """A connected reader."""

    id: str
    transport: Annotated[Transport, Field(description="Server-Sent Events, or a WebSocket.")]
    key_id: Annotated[str, Field(description="The key that it came with, or that its token was made from.")]
    library_ids: list[str] | None
    types: list[str] | None
    filter: str | None
    opened_at: Time
    cursor: Annotated[str, Field(description="Up to where everything for it has been written.")]
    lag: Annotated[int, Field(description="Events of the log that it is behind, for it or not.")]
    lag_bytes: Annotated[int, Field(description="About how much waits for it.")]
    bytes: Annotated[int, Field(description="Written to it so far.")]
    address: str | None


def _sse(summary: str, query: type[StreamQuery], *problems: type[NotFound]) -> dict[str, Any]:
    return describes(
        Operation(
            summary=summary,
            description="Server-Sent Events. Starts live, unless a cursor or a time is given: then the past first, "
            "and on into live without a gap. Every event's `id` is its cursor. `gateway.gap` tells of events that the "
            "log no longer holds, `gateway.expired` that the token or the key is no longer good.",
            query=query,
            headers={"Last-Event-ID": "A cursor to go on after; browsers send it when they come back."},
            answers={
                200: Says(description="The stream, without end.", content=str, media_type=MEDIA_TYPE, example=FRAMES)
            },
            problems=(*problems, Overloaded),
        ),
        **{TAKES_TOKEN: True},
    )


class EventStreamController(Controller):
    path = "/v1"
    tags = ("Streams",)
    guards = (requires(Scope.STREAM),)

    @route(
        "/events/stream",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        opt=_sse("Stream events", AnyLibraryQuery),
    )
    async def all_libraries(self, request: Request[Any, Caller, Any], streams: UseStreams) -> Response[bytes]:
        query = parse_query(AnyLibraryQuery, request.query_params.multi_items())
        wanted = filter_of_query(library_id=query.library_id, type_=query.type, expression=query.filter)
        return await _stream(request, streams, query, wanted)

    @route(
        "/libraries/{library_id:str}/events/stream",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        opt=_sse("Stream the events of one library", StreamQuery, NotFound),
    )
    async def one_library(
        self, request: Request[Any, Caller, Any], library_id: FromPath[str], streams: UseStreams
    ) -> Response[bytes]:
        refuse_invisible(library_id, request.auth)
        query = parse_query(StreamQuery, request.query_params.multi_items())
        wanted = filter_of_query(library_id=[library_id], type_=query.type, expression=query.filter)
        return await _stream(request, streams, query, wanted)


class StreamsController(Controller):
    path = "/v1/streams"
    tags = ("Streams",)
    guards = (requires(Scope.ADMIN),)

    @get(
        "/",
        opt=describes(
            Operation(
                summary="List who is connected",
                description="To the process that answers.",
                query=Paged,
                answers={200: Says(description="A page of them, newest first.", content=PageOf[StreamOut])},
            )
        ),
    )
    async def listing(self, request: Request[Any, Caller, Any], streams: UseStreams) -> Response[bytes]:
        query = parse_query(Paged, request.query_params.multi_items())
        mark = fingerprint("streams", query)
        before = read_token(mark, query.page_token, str)
        older = (stream for stream in streams.all() if before is None or stream.id < before)
        rows = sorted(older, key=lambda stream: stream.id, reverse=True)
        page = rows[: query.page_size]
        more = page[-1].id if len(rows) > len(page) else None
        return answer(
            PageOf[StreamOut](data=[_out(stream, streams) for stream in page], next_page_token=write_token(mark, more))
        )

    @delete(
        "/{stream_id:str}",
        opt=describes(
            Operation(
                summary="End a stream",
                description="Cleanly: its reader may come back. To keep it away, revoke its key.",
                answers={204: Says(description="It has ended.")},
                problems=(NotFound,),
            )
        ),
    )
    async def end(self, stream_id: FromPath[str], streams: UseStreams) -> None:
        if not streams.end(stream_id):
            raise NotFound("there is no such stream")


def stream_routes(streams: Streams) -> Router:
    """The routes of *streams*."""
    return Router(
        path="/",
        route_handlers=[EventStreamController, SocketController, StreamsController],
        dependencies={"streams": Provide(lambda: streams, sync_to_thread=False)},
    )


async def _stream(
    request: Request[Any, Caller, Any], streams: Streams, query: StreamQuery, wanted: Filter
) -> Response[bytes]:
    if request.method == HttpMethod.HEAD:
        return StreamResponse(None)
    encoding = SseEncoding(named=query.named == "true")
    wish = wish_of(request, query, wanted, encoding=encoding, cursor=_last_event_id(request) or query.last_event_id)
    try:
        return StreamResponse(await streams.open(wish))
    except Overloaded:
        if MEDIA_TYPE not in request.headers.get("accept", ""):
            raise
        # For EventSource any status but 200 is final: it would never come back.
        farewell = wish.encoding.farewell(streams.retry_ms_when_turned_away())
        return Response(farewell, headers=HEADERS, media_type=MEDIA_TYPE)


def _last_event_id(request: Request[Any, Caller, Any]) -> str:
    # EventSource sends UTF-8; ASGI hands header bytes on, and Litestar reads them as Latin-1.
    header = request.headers.get("last-event-id", "")
    return header.encode("latin-1", "replace").decode("utf-8", "replace")


def _out(stream: Stream, streams: Streams) -> StreamOut:
    selection = stream.channel.selection
    libraries = stream.channel.matcher.libraries
    return StreamOut(
        id=stream.id,
        transport=stream.encoding.transport,
        key_id=stream.key_id,
        library_ids=None if libraries is None else sorted(libraries),
        types=None if selection.filter.types is None else sorted(selection.filter.types),
        filter=selection.filter.expression,
        opened_at=stream.opened_at,
        cursor=streams.write_cursor(stream.place),
        lag=max(0, streams.hub.cursor - stream.place),
        lag_bytes=stream.lag_bytes,
        bytes=stream.bytes,
        address=stream.address,
    )
