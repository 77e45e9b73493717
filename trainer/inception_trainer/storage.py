"""Errors of storage that may pass by themselves, and waiting for that.

A server that is restarted, a network that is cut for a moment, a mount that comes back: reading
again helps, and a job must neither end for good by it nor take it for a fault of its data. A disk
or a quota that is full passes when somebody makes room.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .errors import InputMissing, StorageFailed, StoreFailed
from .log import logger

T = TypeVar("T")
PATIENCE = 45.0
"""Seconds for which one read is tried again; less than what a rank may stand still unasked."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_PASSING = frozenset(
    (
        errno.EIO,
        errno.ESTALE,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOLINK,
        errno.ECOMM,
        errno.EPIPE,
    )
)
_FULL_STORE = re.compile(
    # Insufficient Storage of HTTP, and what S3, its relatives and file systems behind fsspec say.
    r"\b507\b|insufficient ?storage|storage ?full|quota|no space left|not enough space",
    re.IGNORECASE,
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: torch replaces the error of a file by one of its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _error_number(error: BaseException) -> int | None:
    numbers = (cause.errno for cause in _causes(error) if isinstance(cause, OSError))
    return next((number for number in numbers if number is not None), None)


def lacks_room(error: BaseException) -> bool:
    """Whether nothing more can be written: the disk or a quota is full, or the file too large."""
    if isinstance(error, StoreFailed) and _FULL_STORE.search(str(error)):
        return True
    return _error_number(error) in _NO_ROOM


def cannot_write_now(error: BaseException) -> bool:
    """Whether a write may succeed later, without anything done to the job."""
    passing = _PASSING | {errno.EROFS}  # what a disk becomes when it has errors
    return isinstance(error, StoreFailed) or lacks_room(error) or _error_number(error) in passing


def cannot_read_now(error: BaseException) -> bool:
    """Whether reading again may help."""
    return isinstance(error, StoreFailed) or _error_number(error) in _PASSING


def describe(error: BaseException) -> str:
    """``ESTALE (Stale file handle)``, or the error itself where it has no number."""
    number = _error_number(error)
    if number is None:
        return f"{type(error).__name__}: {error}"
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def patiently(read: Callable[[], T], path: object, patience: float | None = None) -> T:
    """What ``read`` returns, tried again for a while as long as its error may pass.

    Raises StorageFailed with error and path after ``patience`` seconds (StoreFailed of a store),
    and at once whatever else ``read`` raises.
    """
    pause = FIRST_PAUSE
    # Since the first error, not since the beginning: a listing or an index may itself take longer.
    failing_since: float | None = None
    patience = PATIENCE if patience is None else patience
    while True:
        try:
            return read()
        except (OSError, StoreFailed) as error:
            if not cannot_read_now(error):
                raise
            now = time.monotonic()
            failing_since = now if failing_since is None else failing_since
            waited = now - failing_since
            if waited + pause > patience:
                if isinstance(error, StoreFailed):
                    raise
                where = error.filename or path
                raise StorageFailed(
                    f"{where}: {describe(error)}, still after {waited:.0f} s of trying"
                ) from error
            if pause == FIRST_PAUSE:
                logger.warning("%s: %s; trying again for a while", path, describe(error))
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def read_data(read: Callable[[], T], path: object) -> T:
    """Like :func:`patiently`, for data: what is not there, or what this process may not read, is
    InputMissing. Trying again cannot help, nor is it a fault of the images.
    """
    try:
        return patiently(read, path)
    except FileNotFoundError as error:
        # A link that leads nowhere, or something removed while the folder was listed.
        raise InputMissing(f"{path}: {error.filename or error} is not there") from error
    except PermissionError as error:
        raise InputMissing(_refusal(error, str(path))) from error


def _refusal(error: PermissionError, path: str) -> str:
    place = str(error.filename or path)
    prefix = "" if place == path else f"{path}: "
    barrier = _barrier(Path(place)) if error.filename else path
    groups = ",".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    return (
        f"{prefix}{barrier} cannot be read ({describe(error)}) by user {os.geteuid()} with groups "
        f"{groups}; let them, by chmod -R a+rX or chown, or with fsGroup, supplementalGroups or "
        "runAsUser in spec.template.spec.securityContext"
    )


def _barrier(path: Path) -> str:
    """The file or folder whose rights are too few, with its owner and mode."""
    # What lies in a folder that may not be entered cannot even be looked at.
    for place in (path, *path.parents):
        with suppress(OSError):
            found = place.stat()
            mode = stat.filemode(found.st_mode)
            return f"{place} (owner {found.st_uid}:{found.st_gid}, {mode})"
    return str(path)
