"""Every error the trainer raises on purpose, with the exit code it ends the process with.

::

    TrainerError            1   base; carries ``exit_code``
    ├── UsageError         64   the command line is wrong
    ├── DataError          65   the data or the checkpoints are there but cannot be used
    │   └── ExportDiffers  65   an exported file computes something else than the network
    ├── InputMissing       66   a file or folder that the configuration names does not exist
    ├── Stopped            75   saved and ended because someone asked for it
    ├── ConfigError        78   the configuration is wrong; names the key, the value and the remedy
    ├── NonFiniteLoss      79   the loss or a weight became NaN or infinite
    ├── DeviceOutOfMemory  80   the batch does not fit into the memory of the device
    ├── DeviceMemoryTaken   1   it would fit, if others had not used that memory
    ├── Fenced              1   a newer attempt owns the checkpoint folder
    ├── StorageFailed       1   files cannot be read or written just now; trying again may help
    │   └── StoreFailed      1   an object store refused or did not answer
    ├── RanksDiverged       1   the ranks no longer hold the same weights
    └── PreflightFailed     1   this rank's device, network, data or storage is not fit for the job

Codes 64, 65, 66, 78 and 80 tell the operator that trying again cannot help, 79 that it does not
help twice at the same step. Where there is a name for it, the numbers are those of BSD's
``sysexits.h`` (EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_TEMPFAIL, EX_CONFIG): programs written for
other purposes use the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrainerError(Exception):
    """Base of all: its message is printed without a traceback, ``exit_code`` ends the process."""

    exit_code = 1


class UsageError(TrainerError):
    """The command line is wrong."""

    exit_code = 64


class DataError(TrainerError):
    """Data or checkpoints exist but cannot be used."""

    exit_code = 65


class ExportDiffers(DataError):  # noqa: N818 - the name of the contract
    """An exported file, read again and run, computes something else than the network."""


class InputMissing(TrainerError):  # noqa: N818 - the name of the contract
    """A file or folder named by the configuration does not exist; the message names it."""

    exit_code = 66


class Stopped(TrainerError):  # noqa: N818 - the name of the contract
    """Ended on request, after a checkpoint where there is a place for one."""

    exit_code = 75


class ConfigError(TrainerError):
    """The configuration is wrong; the message names the full key, the value and the remedy."""

    exit_code = 78


class Fenced(TrainerError):  # noqa: N818 - the name of the contract
    """A newer attempt owns the checkpoint folder: this one must not write."""


class StorageFailed(TrainerError):  # noqa: N818 - the name of the contract
    """Files could not be read or written for a while; the message names the error and the path."""


class StoreFailed(StorageFailed):
    """An object store refused a request or did not answer."""


class NonFiniteLoss(TrainerError):  # noqa: N818 - the name of the contract
    """The loss or a weight became NaN or infinite; the message names the step as ``step 550``."""

    exit_code = 79


class DeviceOutOfMemory(TrainerError):  # noqa: N818 - the name of the contract
    """The batch does not fit into the memory of the device; the message names the one that does."""

    exit_code = 80


class DeviceMemoryTaken(TrainerError):  # noqa: N818 - the name of the contract
    """The memory of the device was full, but not of what this run needs, which fits."""


class RanksDiverged(TrainerError):  # noqa: N818 - the name of the contract
    """The ranks hold different weights where they must be equal."""


class PreflightFailed(TrainerError):  # noqa: N818 - the name of the contract
    """Mode Preflight has found something on this rank that training would fail or suffer from."""


def closest(name: str, candidates: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the candidate nearest to ``name``, or an empty string."""
    # difflib minds the case: as they are, RESNET50 and resnet50 have only two characters in common.
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[matches[0]]}?)" if matches else ""
