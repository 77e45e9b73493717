"""Log lines as JSON for machines or text for people; both name the job that they are about.

A call names its job by ``extra={"key": (namespace, name)}``.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger import json
from typing_extensions import override

from .settings import LogFormat


class JsonFormatter(json.JsonFormatter):
    """One JSON object per line.

    Time, level, logger, message, namespace and name where there is a job, and the traceback of an
    exception.
    """

    def __init__(self) -> None:
        super().__init__(json_ensure_ascii=False)

    @override
    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        # Not the library's own choice, which takes over every extra of a record: kopf adds objects
        # of its own to its records, and users' queries rest on these few fields.
        time = datetime.fromtimestamp(record.created, UTC)
        log_data |= {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        key = getattr(record, "key", None)
        if key is not None:
            log_data["namespace"], log_data["name"] = key
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]


class TextFormatter(logging.Formatter):
    """One line of time, level, job and message, and a traceback where there is one."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        key = getattr(record, "key", None)
        job = f"{key[0]}/{key[1]}: " if key is not None else ""
        clock = datetime.fromtimestamp(record.created, UTC).time()
        time = clock.isoformat(timespec="milliseconds")
        text = f"{time} {record.levelname:<7} {job}{record.getMessage()}"
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        return text


def configure(log_format: LogFormat, level: str) -> None:
    """Send everything to standard error, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter() if log_format == "json" else TextFormatter()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Below warnings kopf logs each object that it sees, and asyncio its own working.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
