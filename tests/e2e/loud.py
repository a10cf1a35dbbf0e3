"""`gateway serve` as its developers run it to find a fault: debug logs of everything, and a route that surprises."""

import logging
from typing import Any

import structlog
from litestar import Request, post

from gateway.app import Gateway
from gateway.http.server import serve
from gateway.settings import load
from gateway.telemetry import configure_logs

SURPRISE = "/v1/surprise"


@post(SURPRISE, opt={"description": "Fails with whatever it was sent at hand."})
async def surprise(request: Request[Any, Any, Any]) -> None:
    given = request.headers["authorization"]
    body = await request.body()
    raise RuntimeError(f"a fault of ours with {len(given)} characters and {len(body)} bytes")


def main() -> None:
    settings = load()
    configure_logs(settings.log_format)
    logging.getLogger().setLevel(logging.DEBUG)
    # Statements; at DEBUG it would print the rows that it reads, whatever is in them.
    logging.getLogger("sqlalchemy").setLevel(logging.INFO)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    gateway = Gateway(settings)
    gateway.app.register(surprise)
    serve(
        gateway.app,
        host=settings.host,
        port=settings.port,
        within=gateway.running,
        drains=[gateway.drain],
        listening=lambda host, port: None,
    )


if __name__ == "__main__":
    main()
