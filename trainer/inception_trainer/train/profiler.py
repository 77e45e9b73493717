"""Records a few optimizer steps with torch's profiler (``profiler.steps``): a Chrome trace, and a
table of the operations that took longest.

torch's profiler is imported when the first step is recorded. Only rank 0 records; the others wait
while it writes.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from inception_trainer.comm import Comm
from inception_trainer.config.training import ProfilerConfig
from inception_trainer.device import Accelerator
from inception_trainer.errors import Stopped
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import logger
from inception_trainer.reporting.outputs import replacing

TRACE, TABLE = "trace.json.gz", "trace.txt"
ROWS = 30
CPU_COLUMN = "self_cpu_time_total"
DEVICE_COLUMNS = ("self_device_time_total", "self_cuda_time_total")
"""Time on the device: the name since torch 2.4, and the one before."""
NAME_CHARACTERS = 80
_NOT_RECORDED = nullcontext(False)


class Trace:
    """Put :meth:`step` around every step, and the whole around all of them.

    When the steps end early, by themselves or on request, what was recorded until then is written.
    After any other error nothing is: a device that has failed might never answer the profiler.
    """

    def __init__(
        self,
        config: ProfilerConfig,
        accelerator: Accelerator,
        comm: Comm,
        heartbeat: Heartbeat,
        output: Path | None,
        attempt: int = 0,
    ) -> None:
        """``output`` is the folder for the files of rank 0."""
        self._first = config.after_steps
        self._count = config.steps or 0
        self._accelerator = accelerator
        self._comm = comm
        self._heartbeat = heartbeat
        self._output = output if comm.is_first else None
        self._attempt = attempt
        self._done = 0
        self._recording = False
        self._profiler: Any = None

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._count or not (kind is None or issubclass(kind, Stopped)):
            return
        if self._recording:
            self._finish()
        elif self._done <= self._first and self._output is not None:
            logger.warning(
                "no step was recorded: the end came after %d, recording begins after %d",
                self._done,
                self._first,
            )

    def step(self, number: int) -> AbstractContextManager[bool]:
        """The context of one step, which the trace calls ``ProfilerStep#<number>``; gives whether
        it is recorded.
        """
        at = self._done - self._first
        self._done += 1
        return self._recorded(number, at) if 0 <= at < self._count else _NOT_RECORDED

    @contextmanager
    def _recorded(self, number: int, at: int) -> Iterator[bool]:
        if at == 0:
            self._begin()
        if self._profiler is None:
            yield True
        else:
            from torch.profiler import record_function

            # The name by which viewers recognise steps.
            with record_function(f"ProfilerStep#{number}"):
                yield True
        if at == self._count - 1:
            self._finish()

    def _begin(self) -> None:
        self._heartbeat.pause()
        self._recording = True
        if self._output is not None:
            self._profiler = _started(self._accelerator)

    def _finish(self) -> None:
        """Write what was recorded; every rank must call it after the same step."""
        self._heartbeat.pause()
        self._recording = False
        if self._profiler is not None and self._output is not None:
            self._write(self._profiler, self._output)
            self._profiler = None
        # Here the others say that it may take long; in the next step they would soon look as if
        # they hung.
        self._comm.barrier()

    def _write(self, profiler: Any, output: Path) -> None:
        try:
            profiler.stop()
            output.mkdir(parents=True, exist_ok=True)
            with replacing(output / TABLE, self._attempt) as draft:
                draft.write_text(_table(profiler, self._accelerator.device.type), encoding="utf-8")
            with replacing(output / TRACE, self._attempt) as draft:
                draft.write_bytes(_chrome_trace(profiler))
        except Exception as error:
            # Vendors' profilers raise what they like, and a failed trace must never fail the
            # training.
            logger.warning(
                "the recorded steps could not be written: %s: %s", type(error).__name__, error
            )
        else:
            logger.info(
                "%d recorded steps: %s", min(self._count, self._done - self._first), output / TRACE
            )


def _started(accelerator: Accelerator) -> Any:
    """A profiler that runs, of the device too where it can be recorded; None if not even the CPU
    can be.
    """
    from torch import profiler

    cpu = profiler.ProfilerActivity.CPU
    of_device = _activity(accelerator)
    supported: set[Any] = profiler.supported_activities()  # type: ignore[no-untyped-call]
    # A device that says it can be recorded may still refuse, so the CPU alone is tried after it.
    attempts = ([cpu, of_device], [cpu]) if of_device in supported else ([cpu],)
    for activities in attempts:
        try:
            chosen = profiler.profile(activities=activities)
            chosen.start()
        except Exception as error:
            names = " and ".join(activity.name for activity in activities)
            logger.warning("%s cannot be recorded: %s: %s", names, type(error).__name__, error)
        else:
            return chosen
    return None


def _activity(accelerator: Accelerator) -> Any:
    """What torch's profiler calls the work of this device; None for the CPU and where it has no
    name for it.
    """
    from torch.profiler import ProfilerActivity

    if accelerator.is_cpu:
        return None
    of_vendors = getattr(ProfilerActivity, "PrivateUse1", None)
    return getattr(ProfilerActivity, accelerator.device.type.upper(), of_vendors)


def _table(profiler: Any, device: str) -> str:
    """The operations that took longest, on the device where it was recorded."""
    averages = profiler.key_averages()
    column = next(
        (name for name in DEVICE_COLUMNS if averages and hasattr(averages[0], name)), CPU_COLUMN
    )
    if column == CPU_COLUMN or not any(getattr(average, column) > 0 for average in averages):
        column = CPU_COLUMN
        if device != "cpu":
            logger.warning(
                "torch's profiler saw no work of device %s: only the CPU is recorded", device
            )
    table: str = averages.table(
        sort_by=column, row_limit=ROWS, max_name_column_width=NAME_CHARACTERS
    )
    return table


def _chrome_trace(profiler: Any) -> bytes:
    """The compressed trace; torch writes it to files only."""
    with tempfile.TemporaryDirectory(prefix="inception-trace-") as folder:
        plain, packed = Path(folder, "trace.json"), Path(folder, TRACE)
        profiler.export_chrome_trace(str(plain))
        with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target)
        return packed.read_bytes()
