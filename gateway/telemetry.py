"""Logs: one event a line on standard error, for a person or as JSON. Never a key, a token or a secret among them."""

import logging
import sys
from typing import Any, Literal

import msgspec
import structlog
import structlog.tracebacks

_BARE = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""A traceback without the values of variables: keys and secrets are among them."""
_LOGFMT = structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event"), bool_as_flag=False)


def configure_logs(style: Literal["console", "json"]) -> None:
    """Send the gateway's own logs and those of its libraries the same way.

    Our own go straight to standard error: there is a line an attempt, and the standard library's way to write one
    costs several times as much.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer = _renderer(style)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
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
    for chatty in ("alembic", "uvicorn", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _renderer(style: Literal["console", "json"]) -> list[structlog.typing.Processor]:
    if style == "json":
        return [structlog.processors.ExceptionRenderer(_BARE), structlog.processors.JSONRenderer(_json)]
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, _plain]


def _json(line: dict[str, Any], **_: object) -> str:
    return msgspec.json.encode(line, enc_hook=repr).decode()


def _plain(logger: object, method: str, line: structlog.typing.EventDict) -> str:
    """`key=value …`, and a traceback below it as people read it."""
    traceback = line.pop("exception", None)
    rendered = str(_LOGFMT(logger, method, line))
    return rendered if traceback is None else f"{rendered}\n{traceback}"
