"""How many requests there were, how they were answered, and after how long.

A middleware of our own: Litestar's for Prometheus costs as much again as the whole framework does for a small request,
and counts into one registry for all apps of a process. This one passes messages on as they are, so that streams detach.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from gateway.errors import GatewayError
from gateway.http.problems import INTERNAL, kind_of
from gateway.metrics import cumulated
from gateway.rollups.distribution import SECONDS, Distribution


class Answered(NamedTuple):
    method: str
    route: str
    """As it is declared, `/v1/events/{event_id}`: never the path that was asked for."""
    status: int


class Requests:
    """Of this process, since its start. Paths that lead nowhere are not counted."""

    def __init__(self, *, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self.monotonic = monotonic
        self.answered: Counter[Answered] = Counter()
        self.durations: defaultdict[str, Distribution] = defaultdict(lambda: Distribution(SECONDS))
        """By route: from the request to the beginning of its answer."""

    def count(self, answered: Answered, seconds: float) -> None:
        self.answered[answered] += 1
        self.durations[answered.route].observe(seconds)

    def families(self) -> Iterator[Metric]:
        answered = CounterMetricFamily(
            "gateway_http_requests", "Requests that were answered.", labels=("method", "route", "status")
        )
        for (method, route, status), count in self.answered.items():
            answered.add_metric((method, route, str(status)), count)
        yield answered
        durations = HistogramMetricFamily(
            "gateway_http_request_duration_seconds", "To the beginning of the answer.", labels=("route",)
        )
        for route, distribution in self.durations.items():
            durations.add_metric((route,), cumulated(distribution), distribution.total)
        yield durations


class Measuring:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, *, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        requests = self._requests
        began = requests.monotonic()
        method, route = scope["method"], scope["path_template"]

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                requests.count(Answered(method, route, message["status"]), requests.monotonic() - began)
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except Exception as error:
            # It is answered further out: who is refused by a guard or without a key comes this way.
            requests.count(Answered(method, route, _status(error)), requests.monotonic() - began)
            raise


def _status(error: Exception) -> int:
    if isinstance(error, GatewayError):
        return kind_of(error).status
    return error.status_code if isinstance(error, HTTPException) else INTERNAL.status
