"""Logs: one event a line on standard error, for a person or as JSON. Never a key, a token or a secret among them."""

import logging
import sys
from typing import Literal

import structlog
import structlog.tracebacks

_BARE = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""A traceback without the values of variables: keys and secrets are among them."""


def configure_logs(style: Literal["console", "json"]) -> None:
    """Send the gateway's own logs and those of its libraries the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(_BARE), structlog.processors.JSONRenderer()]
        if style == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("alembic", "aiosqlite", "uvicorn", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
