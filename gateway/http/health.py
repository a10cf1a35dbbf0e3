"""Is it up, and can it work? For load balancers and people; no key needed."""

from typing import Literal

from litestar import Controller, Response, get

from gateway.errors import Overloaded
from gateway.http.answers import Answer, answer
from gateway.http.auth import PUBLIC
from gateway.http.operations import Operation, Says, describes
from gateway.http.services import Use


class Health(Answer):
    status: Literal["ok"] = "ok"


class HealthController(Controller):
    path = "/health"
    tags = ("Operating",)

    @get(
        "/live",
        opt=describes(
            Operation(
                summary="Is the process up",
                answers={200: Says(description="It is.", content=Health)},
            ),
            **{PUBLIC: True},
        ),
    )
    async def live(self) -> Response[bytes]:
        return answer(Health())

    @get(
        "/ready",
        opt=describes(
            Operation(
                summary="Can it take requests",
                description="Not while its database does not answer, nor once it is shutting down.",
                answers={200: Says(description="It can.", content=Health)},
                problems=(Overloaded,),
            ),
            **{PUBLIC: True},
        ),
    )
    async def ready(self, services: Use) -> Response[bytes]:
        await services.ready()
        return answer(Health())
