"""Log lines as JSON for machines or text for people; both name the training they are about."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .settings import LogFormat


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, and namespace and name where there are any."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        key = getattr(record, "key", None)
        if key is not None:
            line["namespace"], line["name"] = key
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level, training and message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        key = getattr(record, "key", None)
        where = f"{key[0]}/{key[1]}: " if key is not None else ""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        text = f"{time} {record.levelname:<7} {where}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(log_format: LogFormat, level: str) -> None:
    """Send everything to standard error; kopf, which logs each object it sees, only from warnings
    on.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
