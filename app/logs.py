"""Structured logging: one JSON object a line (or a coloured line on a terminal), never free text.

Exceptions are logged by class and place only: their text may hold what ThingsBoard or a caller sent.
"""

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

LogFormat = Literal["json", "console"]


def _safe_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its class and the frames it passed, without its message."""
    info = event.pop("exc_info", None)
    error = sys.exception() if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["error_type"] = type(error).__name__
        event["error_at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return event


SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _safe_exception,
)


class _StandardOutput:
    """Writes to whatever standard output is at the time of writing."""

    def msg(self, message: str) -> None:
        # A full disk, or a reader that has gone: callers get their answers all the same.
        with suppress(OSError):
            sys.stdout.write(message + "\n")
            sys.stdout.flush()

    debug = info = warning = error = exception = critical = msg


def _to_json(event: EventDict, **options: Any) -> str:
    return orjson.dumps(event, default=options["default"]).decode()


def _renderer(log_format: LogFormat) -> structlog.typing.Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer(_to_json)
    return structlog.dev.ConsoleRenderer()


def _is_news(record: logging.LogRecord) -> bool:
    """Drop uvicorn's word on answers that were cut, and on WebSockets with their paths and queries.

    A path may hold a device's name, and a query whatever a caller takes for the place of its key.
    """
    return "without completing" not in str(record.msg) and '"WebSocket %s"' not in str(record.msg)


def configure_events(level: str, log_format: LogFormat) -> None:
    """Send our own events to standard output."""
    structlog.configure(
        processors=[*SHARED, _renderer(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: _StandardOutput(),
        cache_logger_on_first_use=True,
    )


def configure(level: str, log_format: LogFormat) -> None:
    """Send our events and those of the libraries to standard output, in one format."""
    configure_events(level, log_format)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    # uvicorn tells of its start; its access log is ours. At DEBUG its WebSockets write all headers, keys
    # included.
    logging.getLogger("uvicorn.error").setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level]))
    logging.getLogger("uvicorn.access").disabled = True
