"""A group of supervised processes: start them in order, notice who dies, kill them all."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence

from .components import tail
from .errors import ComponentError
from .linux import die_with_parent
from .model import Layout, ProcessSpec
from .progress import Progress, quiet

_POLL = 0.05


def exit_text(code: int) -> str:
    """``exited with code 1`` or ``killed by signal 9``."""
    return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"


class ProcessGroup:
    """Processes that end with the process that started them, in whatever way that ends."""

    def __init__(
        self, layout: Layout, check: Callable[[], None], progress: Progress = quiet
    ) -> None:
        """``check`` runs while waiting and may raise to give up."""
        self._layout = layout
        self._check = check
        self._progress = progress
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.ended: dict[str, str] = {}

    def start(self, batch: Sequence[ProcessSpec]) -> None:
        """Start all, then wait until all are ready; raises ComponentError if one is not."""
        started = time.monotonic()
        for spec in batch:
            self._running[spec.name] = self._spawn(spec)
        waiting = [spec for spec in batch if spec.ready is not None]
        while waiting:
            self._check()
            self._raise_if_any_ended()
            waiting = [
                spec for spec in waiting if not self._is_ready(spec, time.monotonic() - started)
            ]
            if waiting:
                time.sleep(_POLL)

    def names(self) -> list[str]:
        """Everything ever started, in order."""
        return list(self._running)

    def poll(self) -> list[str]:
        """Names of the processes that have ended since the last call; ``ended`` says how."""
        news = [
            name
            for name, process in self._running.items()
            if name not in self.ended and process.poll() is not None
        ]
        self.ended.update({name: exit_text(self._running[name].returncode) for name in news})
        return news

    def kill(self) -> None:
        """Kill everything and wait for the end of it."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def _spawn(self, spec: ProcessSpec) -> subprocess.Popen[bytes]:
        log = self._layout.log(spec.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        with log.open("ab") as output:
            try:
                return subprocess.Popen(
                    spec.argv,
                    env={**os.environ, **spec.env},
                    cwd=self._layout.root,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509 - only system calls
                )
            except OSError as error:
                raise ComponentError(spec.name, f"cannot be started: {error}", "") from error

    def _raise_if_any_ended(self) -> None:
        for name in self.poll():
            raise self._failure(name, self.ended[name])

    def _is_ready(self, spec: ProcessSpec, seconds: float) -> bool:
        if spec.ready is not None and spec.ready():
            self._progress(f"{spec.name} is ready ({seconds:.1f} s)")
            return True
        if seconds > spec.ready_timeout:
            raise self._failure(spec.name, f"not ready after {spec.ready_timeout:.0f} s")
        return False

    def _failure(self, name: str, reason: str) -> ComponentError:
        return ComponentError(name, reason, tail(self._layout.log(name)))
