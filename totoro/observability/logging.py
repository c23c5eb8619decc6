"""Logs: one JSON object a line, by structlog; coloured text in Dev.

The event is a constant in snake_case (`refresh_failed`); what varies is in other fields. Log records
of libraries have the same form.
"""

import logging.config
import os
import sys
from typing import Any

import structlog

SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    lambda _, __, event: {**event, "pid": os.getpid()},
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(level: str, *, pretty: bool) -> dict[str, Any]:
    """Return a configuration for `logging.config.dictConfig`."""
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            # Not the Ghibli API's failures (503), which `refresh_failed` logs.
            "bugs": {
                "()": "django.utils.log.CallbackFilter",
                "callback": lambda record: getattr(record, "status_code", 500) != 503,
            }
        },
        "formatters": {
            "structlog": {
                "()": structlog.stdlib.ProcessorFormatter,
                # Not Django's `request`, whose query string may be personal.
                "foreign_pre_chain": [*SHARED, structlog.stdlib.ExtraAdder(["status_code"])],
                "processors": [remove_meta, *render],
            }
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "structlog"},
            "null": {"class": "logging.NullHandler"},
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # A wrong Host is the client's mistake; Django logs it as an error.
            "django.security.DisallowedHost": {"handlers": ["null"], "propagate": False},
            # Django logs every 4xx as a warning; ACCESS_LOG has them too.
            "django.request": {"level": "ERROR", "filters": ["bugs"]},
        },
    }


def configure_logging(level: str, *, pretty: bool) -> None:
    logging.config.dictConfig(logging_config(level, pretty=pretty))
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
