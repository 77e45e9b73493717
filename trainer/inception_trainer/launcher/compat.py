"""What Python 3.10 lacks: the launcher is copied into images of others, which may bring it."""

from datetime import timezone
from enum import Enum

UTC = timezone.utc  # noqa: UP017


class StrEnum(str, Enum):  # noqa: UP042
    """An enumeration whose members are and print as their words."""

    # Enum's own __str__ would say "State.IDLE".
    __str__ = str.__str__
