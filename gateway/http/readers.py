"""What Server-Sent Events and WebSockets have in common: what a reader may ask for, and how it becomes a `Wish`."""

from typing import Annotated, Any

from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from pydantic import Field

from gateway.errors import NotFound
from gateway.events import GATEWAY_LIBRARY
from gateway.filters import Filter, library_id_fault
from gateway.filters.narrowing import narrowed
from gateway.http.auth import Caller
from gateway.http.bodies import Moment, Query
from gateway.streams.sinks import StreamEncoding
from gateway.streams.starting import LastEventId, Since
from gateway.streams.streaming import Streams, Wish

UseStreams = NamedDependency[SkipValidation[Streams]]
"""`streams: UseStreams` in a handler's signature."""

AnyOfLibraries = Annotated[list[str] | None, Field(description="Any of these; none: all that the caller may see.")]


class ReaderQuery(Query):
    """What a stream is to carry, and from when."""

    type: Annotated[list[str] | None, Field(description="Any of these: exact, a branch `document.*`, or `*`.")] = None
    filter: Annotated[
        str | None,
        Field(description="A CEL expression over `event`.", examples=['event.data.priority == "high"']),
    ] = None
    since: Annotated[Moment, Field(description="From what was accepted at this time on; a cursor wins.")] = None
    token: Annotated[str | None, Field(description="A stream token, for those who cannot set headers.")] = None


def wish_of(
    connection: ASGIConnection[Any, Any, Caller, Any],
    query: ReaderQuery,
    wanted: Filter,
    *,
    encoding: StreamEncoding,
    cursor: str | None,
) -> Wish:
    """What the caller of *connection* is to get: from *cursor* on, else as the query says."""
    caller, client = connection.auth, connection.client
    start: LastEventId | Since | None = LastEventId(cursor) if cursor else None
    if start is None and query.since is not None:
        start = Since(moment=query.since, text=connection.query_params["since"])
    return Wish(
        filter=narrowed(wanted, caller.types),
        libraries=caller.libraries,
        encoding=encoding,
        key_id=caller.key_id,
        expires_at=caller.expires_at,
        start=start,
        address=None if client is None else f"{client.host}:{client.port}",
    )


def refuse_invisible(library_id: str, caller: Caller) -> None:
    """Raises `NotFound` if there is no such library for *caller*."""
    visible = library_id == GATEWAY_LIBRARY or caller.sees_library(library_id)
    if library_id_fault(library_id) is not None or not visible:
        raise NotFound("there is no such library")
