"""Logs: one JSON object a line, by structlog; coloured text in Dev.

The event is a constant in snake_case (`refresh_failed`); what varies is in other fields. Log records
of libraries have the same form, with their text as `message`.
"""

import json
import logging
import os
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from totoro.observability.log_stream import MAX_WRITE_BYTES, LogStream

STDOUT = 1
OWN_LOGGERS = ("totoro.", "movies.", "services.")
EVENT_BY_LOGGER = {"django.request": "request_error", "py.warnings": "python_warning"}

SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    lambda _, __, event: {**event, "pid": os.getpid()},
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def with_constant_event(_: object, __: str, event: EventDict) -> EventDict:
    """Move the text of a library's record to `message`."""
    name = event["logger"]
    if name.startswith(OWN_LOGGERS):
        return event
    constant = EVENT_BY_LOGGER.get(name, "library_message")
    return {**event, "event": constant, "message": event["event"]}


def bounded_json(event: dict[str, Any], **options: Any) -> str:
    """Return a line of limited length; if necessary, texts are cut in the middle."""
    line, limit = json.dumps(event, **options), MAX_WRITE_BYTES
    while len(line) >= MAX_WRITE_BYTES:  # as a line feed follows
        limit //= 2
        short = {name: shorten(field, limit) for name, field in event.items()}
        line = json.dumps(short, **options)
    return line


def shorten(field: object, length: int) -> object:
    if field is None or isinstance(field, int | float):
        return field
    text, half = str(field), length // 2
    return text if len(text) <= length else f"{text[:half]}…{text[len(text) - half:]}"


def log_formatter(*, pretty: bool, colors: bool) -> logging.Formatter:
    # Not Django's `request`, whose query string may be personal.
    libraries: list[Processor] = [*SHARED, structlog.stdlib.ExtraAdder(["status_code"])]
    render: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if pretty:
        render += [structlog.dev.ConsoleRenderer(colors=colors)]
    else:
        libraries += [with_constant_event]
        render += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(bounded_json),
        ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=libraries, processors=render)


def is_bug(record: logging.LogRecord) -> bool:
    """Return False for the Ghibli API's failures (503), which `refresh_failed` logs."""
    return getattr(record, "status_code", 500) != 503


def configure_logging(level: str, *, pretty: bool, is_server: bool) -> None:
    """Log to stdout in the server, and else to stderr: commands print their results to stdout."""
    stream = LogStream(STDOUT) if is_server else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log_formatter(pretty=pretty, colors=stream.isatty()))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Whatever the level: lost lines, server errors and, with ACCESS_LOG, every request.
    logging.getLogger("totoro.observability.requests").setLevel(logging.INFO)
    logging.getLogger("totoro.observability.log_stream").setLevel(logging.INFO)
    # A wrong Host is the client's mistake; Django logs it as an error.
    logging.getLogger("django.security.DisallowedHost").setLevel(logging.CRITICAL)
    # Django logs every 4xx as a warning; ACCESS_LOG has them too.
    request_logger = logging.getLogger("django.request")
    request_logger.setLevel(logging.ERROR)
    request_logger.addFilter(is_bug)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
