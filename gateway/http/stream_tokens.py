"""`/v1/stream-tokens`: a short-lived credential for a browser, made by whoever holds a key."""

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.params import RawBody
from pydantic import Field

from gateway.errors import Forbidden
from gateway.filters import Filter
from gateway.http.answers import Answer, Time, answer
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Body, parse
from gateway.http.confinement import refuse_outside
from gateway.http.operations import Operation, Says, describes
from gateway.http.services import Use
from gateway.keys import Scope

DAY = 86_400


class TokenIn(Body):
    library_ids: Annotated[
        list[str] | None, Field(description="What it is good for; null: all libraries of the key.")
    ] = None
    types: Annotated[list[str] | None, Field(description="Types and branches that it is good for; null: all.")] = None
    ttl_seconds: Annotated[int, Field(ge=1, le=DAY, description="How long it is good, in seconds.")] = 3600


class TokenMade(Answer):
    token: Annotated[str, Field(description="For `?token=…` of streams and WebSockets, and nothing else.")]
    expires_at: Time


class StreamTokenController(Controller):
    path = "/v1/stream-tokens"
    tags = ("Streams",)
    guards = (requires(Scope.STREAM),)

    @post(
        "/",
        opt=describes(
            Operation(
                summary="Make a stream token",
                description="For EventSource and WebSocket, which cannot set headers. It is never good for more than "
                "its key, and ends with it.",
                body=TokenIn,
                body_examples={"an hour of one library": {"library_ids": ["acme"], "ttl_seconds": 3600}},
                answers={201: Says(description="The token, and when it runs out.", content=TokenMade)},
                problems=(Forbidden,),
            )
        ),
    )
    async def create(self, request: Request[Any, Caller, Any], body: RawBody, services: Use) -> Response[bytes]:
        wanted = parse(TokenIn, body)
        limits = Filter.parse(library_ids=wanted.library_ids, types=wanted.types)
        refuse_outside(wanted.library_ids, request.auth)
        token, expires_at = await services.tokens.issue(
            key_id=request.auth.key_id,
            libraries=request.auth.libraries if limits.library_ids is None else limits.library_ids,
            types=limits.types,
            lifetime=timedelta(seconds=wanted.ttl_seconds),
        )
        return answer(TokenMade(token=token, expires_at=expires_at), HTTPStatus.CREATED)
