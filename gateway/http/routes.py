"""The HTTP API as one Litestar app, from the services it is made of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from litestar import Controller, Litestar, Request, Response
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.enums import HttpMethod
from litestar.middleware import DefineMiddleware
from litestar.types import ControllerRouterHandler

from gateway.http.auth import Authentication
from gateway.http.dead_letters import DeadLetterController
from gateway.http.deliveries import DeliveryController
from gateway.http.event_types import EventTypeController
from gateway.http.events import EventController
from gateway.http.figures import FigureController
from gateway.http.handshakes import Handshakes
from gateway.http.health import HealthController
from gateway.http.keys import KeyController
from gateway.http.manual import ManualController
from gateway.http.measuring import Measuring
from gateway.http.metrics import MetricsController
from gateway.http.problems import EXCEPTION_HANDLERS
from gateway.http.replays import ReplayController, SubscriptionReplayController
from gateway.http.services import Services
from gateway.http.stream_tokens import StreamTokenController
from gateway.http.subscription_actions import SubscriptionActionController
from gateway.http.subscriptions import SubscriptionController

MAX_BODY_BYTES = 10 * 2**20

CONTROLLERS: tuple[type[Controller], ...] = (
    EventController,
    EventTypeController,
    StreamTokenController,
    SubscriptionController,
    SubscriptionActionController,
    SubscriptionReplayController,
    DeliveryController,
    DeadLetterController,
    ReplayController,
    KeyController,
    FigureController,
    HealthController,
    MetricsController,
    ManualController,
)

WITHOUT_API: tuple[type[Controller], ...] = (HealthController, MetricsController)
"""What every process answers, whatever its roles."""

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_http(
    services: Services,
    *,
    cors_origins: Sequence[str] = (),
    controllers: Sequence[type[Controller]] = CONTROLLERS,
    route_handlers: Sequence[ControllerRouterHandler] = (),
    dependencies: Mapping[str, Provide] | None = None,
    lifespan: Sequence[Lifespan] = (),
) -> Litestar:
    """The app. *route_handlers* are those that come from elsewhere (streams, console), with their *dependencies*.

    Every handler needs a key but those with `auth.PUBLIC` in their `opt`; those with `auth.TAKES_TOKEN` accept a
    stream token too.
    """
    return Litestar(
        route_handlers=[*controllers, *route_handlers],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False), **(dependencies or {})},
        middleware=[
            DefineMiddleware(Measuring, requests=services.requests),
            DefineMiddleware(Authentication, keyring=services.keyring, tokens=services.tokens),
        ],
        plugins=[Handshakes()],
        before_request=_options,
        exception_handlers=EXCEPTION_HANDLERS,
        cors_config=_cors(cors_origins) if cors_origins else None,
        request_max_body_size=MAX_BODY_BYTES,
        lifespan=list(lifespan),
        # The document is written by gateway.http.openapi, from the models that parse and answer.
        openapi_config=None,
        # Errors are logged by gateway.http.problems; an access log would hold tokens.
        logging_config=None,
    )


async def _options(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Which methods a path has, for anybody. Litestar's own answer names those of its first handler only."""
    if request.method != HttpMethod.OPTIONS:
        return None
    template = request.scope["path_template"]
    methods = {method for route in request.app.routes if route.path_format == template for method in route.methods}
    return Response(content=None, status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(sorted(methods))})


def _cors(origins: Sequence[str]) -> CORSConfig:
    """Never with credentials: a key is no cookie, and is sent only by who has it."""
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "traceparent"],
        allow_credentials=False,
        expose_headers=["Retry-After"],
    )
