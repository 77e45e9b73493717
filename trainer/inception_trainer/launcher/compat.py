"""What Python 3.10 lacks: images of others may bring it, and the launcher runs there too."""

from datetime import timezone
from enum import Enum

UTC = timezone.utc  # noqa: UP017


class StrEnum(str, Enum):  # noqa: UP042
    """An enumeration whose members are and print as their words."""

    __str__ = str.__str__
