"""The contract as `gateway openapi` writes it to `openapi/openapi.json`; a test compares the two."""

from pathlib import Path

from litestar import Litestar
from litestar.di import Provide

from gateway.http import documenting
from gateway.http.routes import CONTROLLERS
from gateway.http.sockets import SocketController
from gateway.http.streams import EventStreamController, StreamsController

FILE = Path("openapi/openapi.json")


def described() -> Litestar:
    """The routes alone, to be described: no request can be served by it."""
    return Litestar(
        route_handlers=[*CONTROLLERS, EventStreamController, SocketController, StreamsController],
        dependencies={name: Provide(lambda: None, sync_to_thread=False) for name in ("services", "streams")},
        openapi_config=None,
        logging_config=None,
    )


def text() -> str:
    """The document, the same for the same code."""
    return documenting.text(described())
