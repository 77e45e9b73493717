"""The launcher's exit codes and reasons (docs/architecture.md), and the table between them.

The trainer's errors carry some of these codes (``inception_trainer/errors.py``), and the operator
decides by them what to do next. The launcher can import neither, for it is copied into images of
others: tests/trainer/test_exit_codes.py holds the three tables equal.
"""

import re
import signal
from enum import IntEnum

from .compat import StrEnum


class ExitCode(IntEnum):
    """Codes with a meaning of their own; every other code is the rank's."""

    DONE = 0
    ERROR = 1
    # Those of BSD's sysexits.h where one fits: EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_SOFTWARE,
    # EX_TEMPFAIL, EX_CONFIG.
    USAGE = 64
    DATA = 65
    INPUT_MISSING = 66
    HANG = 70
    STOPPED = 75
    CONFIG = 78
    # The first ones behind those of sysexits.h.
    NON_FINITE = 79
    DEVICE_OUT_OF_MEMORY = 80
    # A shell's words for a command that it cannot run.
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    # 128 and the number of the signal.
    KILLED = 137
    TERMINATED = 143


class Reason(StrEnum):
    """Why an attempt ended, in one word of the API."""

    ERROR = "Error"
    SIGNAL = "Signal"
    OOM_KILLED = "OOMKilled"
    PEER_LOST = "PeerLost"
    USAGE_ERROR = "UsageError"
    DATA_ERROR = "DataError"
    INPUT_MISSING = "InputMissing"
    CONFIG_ERROR = "ConfigError"
    HANG = "Hang"
    STOPPED = "Stopped"
    CANNOT_RUN = "CannotRun"
    NON_FINITE = "NonFinite"
    DEVICE_OUT_OF_MEMORY = "DeviceOutOfMemory"
    CONTRACT_MISMATCH = "ContractMismatch"


REASONS: dict[int, Reason] = {
    ExitCode.USAGE: Reason.USAGE_ERROR,
    ExitCode.DATA: Reason.DATA_ERROR,
    ExitCode.INPUT_MISSING: Reason.INPUT_MISSING,
    ExitCode.CONFIG: Reason.CONFIG_ERROR,
    ExitCode.NON_FINITE: Reason.NON_FINITE,
    ExitCode.DEVICE_OUT_OF_MEMORY: Reason.DEVICE_OUT_OF_MEMORY,
    ExitCode.HANG: Reason.HANG,
    ExitCode.STOPPED: Reason.STOPPED,
    ExitCode.NOT_EXECUTABLE: Reason.CANNOT_RUN,
    ExitCode.NOT_FOUND: Reason.CANNOT_RUN,
}

# A lost peer surfaces as a plain RuntimeError (gloo) or as one of torch's Dist* classes. Python's
# own OSError family is left out on purpose: a data set on a network that resets a connection is a
# cause, not a consequence.
_COLLECTIVE_ERRORS = {
    "RuntimeError",
    "DistError",
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
}
_LOCAL_CAUSE = re.compile(
    "unhandled cuda error|invalid usage|invalid argument|out of memory|duplicate gpu"
    "|shared memory|ncclInvalid|ncclUnhandledCuda|address already in use|EADDRINUSE",
    re.IGNORECASE,
)
_PEER_LOSS = re.compile(
    # Of the network, as gloo and the kernel say it.
    "connection closed|connection reset|connection was reset|broken pipe|connection refused"
    "|connection timed out|socket closed|socket timeout|closed by remote"
    "|remote process exited|remote error|remote peer"
    # Of NCCL and its relatives.
    "|unhandled system error|ncclRemoteError|ncclSystemError|ncclInProgress"
    "|communicator was aborted|collective operation timeout"
    # Of HCCL: EI0002 waits for what a remote rank has not told, EI0006 for its connection.
    "|EI0002|EI0006|remote rank|getting socket times out"
    # Of the store of the rendezvous, and of gloo's time-outs.
    "|failed to recv|failed to connect|recvValue failed|sendBytes failed|recvBytes|TCPStore|store->"
    "|application timeout caused pair closure|timed out waiting|wait timeout",
    re.IGNORECASE,
)


def is_peer_loss(error: str, message: str) -> bool:
    """Tell whether an exception says that the collective library lost a peer."""
    # The message of a local cause may hold a phrase of a lost peer too, so local causes come first.
    if error not in _COLLECTIVE_ERRORS or _LOCAL_CAUSE.search(message):
        return False
    return bool(_PEER_LOSS.search(message))


def signal_name(number: int) -> str:
    """Name a signal as people write it, ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_of(code: int) -> int | None:
    """Give the signal behind a process's end: a negative code, or a shell's 128 + n."""
    if code < 0:
        return -code
    return code - 128 if 128 < code < 160 else None


def contract_code(code: int) -> int:
    """Turn a negative code of a signal into 128 + n."""
    return 128 - code if code < 0 else code


def reason_of(code: int) -> Reason:
    """Give the reason that belongs to a process's exit code."""
    if signal_of(code) is not None:
        return Reason.SIGNAL
    return REASONS.get(code, Reason.ERROR)
