"""`python -m gateway.http.openapi` writes the contract to `openapi/openapi.json`; a test compares the two."""

from pathlib import Path

from litestar import Litestar
from litestar.di import Provide

from gateway.http import documenting
from gateway.http.routes import CONTROLLERS

FILE = Path("openapi/openapi.json")


def described() -> Litestar:
    """The routes alone, to be described: no request can be served by it."""
    return Litestar(
        route_handlers=list(CONTROLLERS),
        dependencies={"services": Provide(lambda: None, sync_to_thread=False)},
        openapi_config=None,
    )


if __name__ == "__main__":
    FILE.write_text(documenting.text(described()), encoding="utf-8")
