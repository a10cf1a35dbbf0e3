"""The baseline of publishing: the same route without storage. It checks the same body and answers the same 202."""

from typing import Any

import msgspec
from litestar import Litestar, Request, Response, post

from gateway.bench.roles.answering import answer_calls
from gateway.bench.roles.serving import BaselineServer
from gateway.intake import read_events


@post("/v1/events", status_code=202)
async def publish(request: Request[Any, Any, Any]) -> Response[bytes]:
    drafts, is_batch = read_events(await request.body())
    receipts = [
        {"id": draft.id, "cursor": f"bench-{place}", "duplicate": False} for place, draft in enumerate(drafts, start=1)
    ]
    answer = msgspec.json.encode({"data": receipts} if is_batch else receipts[0])
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    answer_calls({"listen": BaselineServer(Litestar([publish], openapi_config=None)).listen})
