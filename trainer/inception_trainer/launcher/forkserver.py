"""The fork server: a process with torch imported that forks an agent per attempt.

A fork of it makes its first step within 0.1 s, where a new interpreter takes 2.5 s or more to
import torch. It never opens a device context, for no forked rank could use it: vendors' plug-ins
stay unloaded until after the fork.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from . import agent, wire
from .linux import die_with_parent, reap
from .outcome import Failure, Outcome, Result
from .rank import PACKAGE_FOLDER

NEEDED = (
    "torch",
    "torch.distributed",
    "torch.distributed.launcher.api",
    "torch.distributed.elastic.multiprocessing",
)
HIDDEN = (
    "multiprocessing.popen_fork",
    "multiprocessing.queues",
    "torch.distributed.elastic.rendezvous.static_tcp_rendezvous",
)
"""Imported by torch elastic only when an attempt starts."""
USUAL = ("torch._dynamo", "torch.nn.parallel", "torch.optim", "torch.utils.data")
"""Imported lazily by torch at the first step of nearly every program, at a price of seconds."""
QUICK_SECONDS = 5.0
"""Who has imported torch within this time imports the rest in about as much."""
_BOOT = """\
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
sys.path.insert(0, sys.argv[1])
from importlib import import_module
import_module(sys.argv[2]).serve(int(sys.argv[3]), foreign=sys.argv[4] == "foreign")
"""


def command_line(descriptor: int, *, foreign: bool) -> list[str]:
    """Make the command line of a fork server; ``descriptor`` is its end of the socket."""
    # Not `-m`, which would put the working directory first on the path: what lies there, a torch.py
    # say, must not be imported in the place of the launcher's modules.
    kind = "foreign" if foreign else "bundled"
    return [sys.executable, "-c", _BOOT, PACKAGE_FOLDER, __spec__.name, str(descriptor), kind]


def modules(override: str | None, *, foreign: bool = False) -> tuple[str, ...]:
    """List what to import; ``override`` is INCEPTION_PRELOAD, a comma list that replaces all but
    the needed ones.

    For a foreign program that is parts of torch alone: nobody knows what else it can do with before
    its own start.
    """
    if override is not None:
        return (*NEEDED, *HIDDEN, *(name.strip() for name in override.split(",") if name.strip()))
    if foreign:
        return (*NEEDED, *HIDDEN, *USUAL)
    try:
        extra = tuple(importlib.import_module("inception_trainer.preload").modules())
    except Exception as error:
        print(f"inception-launcher: no list of the trainer's modules: {error}", file=sys.stderr)
        extra = ()
    return (*NEEDED, *HIDDEN, *USUAL, *extra)


def preload(names: tuple[str, ...]) -> None:
    """Import modules; only the needed ones must be there."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            if name in NEEDED:
                raise
            print(f"inception-launcher: not preloaded: {name}: {error}", file=sys.stderr)


def reserve() -> None:
    """Make what the bundled trainer's ranks share; without it each has its own."""
    try:
        importlib.import_module("inception_trainer.preload").reserve()
    except Exception as error:
        print(f"inception-launcher: nothing is shared by the ranks: {error}", file=sys.stderr)


def warm_up(
    override: str | None, *, foreign: bool = False, ready: Callable[[], None] = lambda: None
) -> None:
    """Import everything, and keep the garbage collector away from it; ``ready`` is called once an
    attempt may be given to this pod.

    A collection writes into the header of every object and would so copy the pages that a forked
    rank shares with this process.
    """
    began = time.monotonic()
    # Read when torch is loaded: threads that spin while they wait make a step many times slower on
    # shared cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    autoload = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD")
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    # A collection during the imports would leave holes of freed memory between frozen objects.
    gc.disable()
    names = modules(override, foreign=foreign)
    preload(NEEDED)
    # An assignment takes half a second to come, and the other pods begin meanwhile. From a slow
    # disk the rest may take minutes, which those should not wait at the rendezvous.
    is_quick = time.monotonic() - began < QUICK_SECONDS
    if is_quick:
        ready()
    preload(names)
    if not foreign and override is None:
        reserve()
    if autoload is None:
        del os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"]
    else:
        os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = autoload
    # No collection before: it takes 0.3 s, and what the imports leave behind is small.
    gc.freeze()
    gc.enable()
    if not is_quick:
        ready()


def main(descriptor: int, *, foreign: bool = False) -> int:
    """Serve the launcher at the other end of the socket until it is gone."""
    die_with_parent()
    channel = socket.socket(fileno=descriptor)
    tell = partial(wire.send, channel)
    try:
        warm_up(os.environ.get("INCEPTION_PRELOAD"), foreign=foreign, ready=partial(tell, "ready"))
    except BaseException as error:
        traceback.print_exc()
        tell("broken", message=f"{type(error).__name__}: {error}"[:2000])
        return 1
    wake = _wake_on_child()
    tell("warm")
    agents: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), wake], [], [])
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            _report_ended(channel, agents)
        if channel.fileno() in ready:
            message = wire.receive(channel)
            if message is None:
                return 0
            _start(channel, wire.Request.from_dict(message["request"]), agents)


def _wake_on_child() -> int:
    """Give a descriptor that becomes readable when a child has ended."""
    # select is restarted after a signal (PEP 475), so a handler alone would not wake it. A full
    # pipe may lose a byte, not the wake-up: there are bytes to read.
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _report_ended(channel: socket.socket, agents: dict[int, int]) -> None:
    for pid, code in reap().items():
        wire.send(channel, "exit", attempt=agents.pop(pid, 0), pid=pid, exitCode=code)


def _start(channel: socket.socket, request: wire.Request, agents: dict[int, int]) -> None:
    # What is still buffered would be written twice, here and in the fork.
    sys.stdout.flush()
    sys.stderr.flush()
    attempt = request.assignment.attempt
    try:
        pid = os.fork()
    except OSError as error:
        failure = Failure(1, time.time(), None, type(error).__name__, f"cannot fork: {error}")
        wire.send(channel, "outcome", outcome=Outcome(attempt, Result.FAILED, (failure,)).to_dict())
        wire.send(channel, "exit", attempt=attempt, pid=0, exitCode=1)
        return
    if pid == 0:
        _be_agent(channel, request)
    agents[pid] = attempt
    wire.send(channel, "agent", attempt=attempt, pid=pid)


def _be_agent(channel: socket.socket, request: wire.Request) -> NoReturn:
    code = 1
    try:
        wire.send(channel, "outcome", outcome=agent.run(request).to_dict())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def serve(descriptor: int, *, foreign: bool) -> NoReturn:
    """Be the fork server's process."""
    status = main(descriptor, foreign=foreign)
    sys.stderr.flush()
    # A normal exit unloads hundreds of extension modules, slowly and not always silently.
    os._exit(status)
