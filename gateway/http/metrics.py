"""`/metrics`, for Prometheus."""

from litestar import Controller, Response, get

from gateway.http.auth import requires
from gateway.http.operations import Operation, Says, describes
from gateway.http.services import Use
from gateway.keys import Scope

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's own text format."""


class MetricsController(Controller):
    path = "/metrics"
    tags = ("Operating",)
    guards = (requires(Scope.ADMIN),)

    @get(
        "/",
        opt=describes(
            Operation(
                summary="Figures for Prometheus",
                description="Of the process that answers, and of the database as it was at most 5 s ago.",
                answers={200: Says(description="They.", content=str, media_type="text/plain")},
            )
        ),
    )
    async def scrape(self, services: Use) -> Response[bytes]:
        return Response(await services.metrics(), media_type=MEDIA_TYPE)
