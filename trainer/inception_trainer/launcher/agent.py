"""One attempt on this node: torch elastic's agent in a process of its own, forked from the fork
server.

``run`` calls torch's ``elastic_launch`` with a static rendezvous and no restarts: ranks, nodes and
attempts are the operator's to decide. What torch does more slowly than an attempt should take is
replaced in this process: its exit barrier, its waiting for the store, and how it ends ranks.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import last_copy, linux, plain_store, rank
from .assignment import Assignment
from .exitcodes import ExitCode, is_peer_loss
from .outcome import Failure, Outcome, Result, root_cause
from .rank_process import RankProcess
from .wire import Request

MONITOR_SECONDS = 0.02
LINGER_SECONDS = 5.0
"""How long the store outlives the local ranks for the sake of peers that are still ending."""
SETTLE_SECONDS = 0.3
"""How long a lost peer is given to turn out as another local rank's failure."""
RENDEZVOUS_SECONDS = 300
STOP_CODES = (ExitCode.STOPPED, -signal.SIGTERM, ExitCode.TERMINATED)
CHATTY = ("torch.distributed.elastic", "torch.multiprocessing")
"""Loggers that are silenced."""
_ORIGINAL_GETFQDN = socket.getfqdn


def environment(request: Request) -> dict[str, str]:
    """Make the variables of the attempt that torch elastic does not set itself."""
    return {
        "INCEPTION_ATTEMPT": str(request.assignment.attempt),
        "INCEPTION_STOP_FILE": str(request.stop_file),
        "INCEPTION_PROGRESS_FILE": str(request.progress_file),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def run(request: Request) -> Outcome:
    """Run one attempt to its end."""
    _detach()
    os.environ.update(environment(request))
    ranks = _Ranks(request)
    ranks.register_from_now_on()
    # Agent and store look the host's name up in the DNS, which may take seconds and serves nothing.
    socket.getfqdn = lambda name="": name or socket.gethostname()
    try:
        _await_master(request.assignment)
        values = _launch(request)
    except Exception as error:
        if not ranks.ended():
            return _no_ranks(request, error)
        return ranks.outcome()
    # A program that ends with 0 after SIGTERM may have saved or finished: running it again is right
    # in both cases.
    foreign_stop = bool(request.program) and request.stop_file.exists()
    stopped = foreign_stop or ExitCode.STOPPED in values.values()
    return Outcome(request.assignment.attempt, Result.STOPPED if stopped else Result.SUCCEEDED)


def _detach() -> None:
    """Become a process group of its own, without what the fork server set up for itself."""
    # The launcher kills the whole group at once.
    os.setsid()
    linux.die_with_parent()
    # A signal here must not wake the fork server, whose pipe this process has inherited.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if "LOGLEVEL" not in os.environ:
        # The launcher reports failures itself; torch elastic's own account of them is a page long.
        for name in (name for name in logging.root.manager.loggerDict if name.startswith(CHATTY)):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _await_master(assignment: Assignment) -> None:
    """Wait in small steps until the master's store listens: torch's own retries back off by
    seconds.
    """
    if assignment.node_rank == 0:
        return
    address = (assignment.master_addr, assignment.master_port)
    end = time.monotonic() + RENDEZVOUS_SECONDS
    while True:
        try:
            socket.create_connection(address, timeout=5).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(MONITOR_SECONDS)
        else:
            return


def _launch(request: Request) -> dict[int, Any]:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.launcher import api

    ranks_make_store = plain_store.avoid_missing_libuv(foreign=bool(request.program))

    class Agent(LocalElasticAgent):
        def __init__(self, spec: Any, *arguments: Any, **options: Any) -> None:
            if ranks_make_store:
                # Otherwise the port of the agents' store counts, whatever the rendezvous says.
                spec.master_port = None
            super().__init__(spec, *arguments, **options)

        def _exit_barrier(self) -> None:
            # Whatever goes wrong now, the ranks have already ended with success.
            with contextlib.suppress(Exception):
                _let_store_host_leave_last(self._store, request.assignment)

    # elastic_launch offers no choice of the agent's class; it looks it up in its module.
    vars(api)["LocalElasticAgent"] = Agent
    config = _config(api.LaunchConfig, request)
    values: dict[int, Any] = api.elastic_launch(config, rank.main)(request.folder, request.program)
    return values


def _let_store_host_leave_last(store: Any, assignment: Assignment) -> None:
    """Wait for the other nodes on the one that hosts the store, ``LINGER_SECONDS`` at most.

    Torch's own barrier has every node wait, up to 300 s; those that lose the store meanwhile spend
    seconds on describing it. Where the success of this node is the job's (success policy Chief),
    nothing that the others do matters any more.
    """
    ended = store.add("inception/ended", 1)
    deadline = time.monotonic() + LINGER_SECONDS
    waits = assignment.node_rank == 0 and os.environ.get("INCEPTION_SUCCESS_POLICY") != "Chief"
    while waits and ended < assignment.nnodes and time.monotonic() < deadline:
        time.sleep(MONITOR_SECONDS)
        ended = store.add("inception/ended", 0)


def _config(kind: Callable[..., Any], request: Request) -> Any:
    """Build torch's LaunchConfig, whose fields differ between 2.1 and today."""
    assignment = request.assignment
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    options: dict[str, Any] = {
        "min_nodes": assignment.nnodes,
        "max_nodes": assignment.nnodes,
        "nproc_per_node": assignment.nproc_per_node,
        "run_id": f"{request.job or 'job'}-{assignment.attempt}".replace("/", "-"),
        "role": "trainer",
        "rdzv_backend": "static",
        "rdzv_endpoint": _endpoint(assignment.master_addr, assignment.master_port),
        "rdzv_configs": {"rank": assignment.node_rank, "timeout": RENDEZVOUS_SECONDS},
        "max_restarts": 0,
        "monitor_interval": MONITOR_SECONDS,
        "start_method": "fork",
        "local_addr": os.environ.get("POD_IP") or None,
    }
    logs = str(Path(request.folder) / "elastic")
    if "logs_specs" in fields:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

        options["logs_specs"] = DefaultLogsSpecs(log_dir=logs)
    else:
        options["log_dir"] = logs
    if "numa_options" not in fields:
        return kind(**options)
    # Left to itself it counts the devices, which opens a context here that no forked rank could
    # use.
    config = kind(**options, numa_options=object())
    config.numa_options = None
    return config


def _endpoint(host: str, port: int) -> str:
    # IPv6 addresses are written in brackets where a port follows.
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Ranks:
    """The rank processes of the agent, in order of their local ranks.

    Torch elastic tells of the first failure only, and that may be a consequence: here each rank is
    judged, and none outlives the first failure.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._folder = Path(request.folder)
        self._processes: list[RankProcess] = []
        self._asked: set[int] = set()
        """Process numbers of those that were asked for a last copy."""
        self._killed: set[int] = set()
        """Process numbers of those that have not ended by themselves."""
        self._seen: dict[int, float] = {}
        """When the end of a local rank was noticed."""

    def register_from_now_on(self) -> None:
        """Have multiprocessing make processes that are registered here."""
        register = self._processes.append
        finish = self.finish

        # torch.multiprocessing makes its processes by the context's attribute and ends them by
        # terminate(); there is no hook for either.
        class Rank(RankProcess):
            def start(self) -> None:
                super().start()
                register(self)

            def join(self, timeout: float | None = None) -> None:
                super().join(timeout)
                if self.exitcode:
                    _kill_orphans()

            def run(self) -> None:
                # In the rank itself everything is as if the agent had never been.
                vars(multiprocessing.get_context("fork")).pop("Process", None)
                socket.getfqdn = _ORIGINAL_GETFQDN
                super().run()

            def terminate(self) -> None:
                finish()

        vars(multiprocessing.get_context("fork"))["Process"] = Rank

    def ended(self) -> bool:
        """Tell whether a rank has ended by itself with another code than 0."""
        return bool(self._failures())

    def finish(self) -> None:
        """End all ranks after the first failure; torch elastic would give the others 30 seconds."""
        # When the first failure was noticed counts, not when the others have ended.
        self._failures()
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._unfinished() and self._worth_waiting(deadline):
            time.sleep(0.01)
        if not self._request.program:
            self._take_last_copies()
        self._failures()
        for process in self._processes:
            if process.is_alive():
                self._killed.add(process.pid or 0)
                process.kill()

    def _take_last_copies(self) -> None:
        """Give the living ranks of the bundled trainer the time to keep what they know."""
        asked = {process.pid or 0 for process in self._unfinished()} - self._asked - self._killed
        self._asked |= asked
        last_copy.ask_for(asked)
        deadline = time.monotonic() + last_copy.SECONDS
        while asked and self._unfinished() and time.monotonic() < deadline:
            time.sleep(0.01)

    def outcome(self) -> Outcome:
        """Say how the attempt ended."""
        failures = self._failures()
        stopping = self._request.stop_file.exists()
        codes = STOP_CODES if stopping else (ExitCode.STOPPED,)
        stopped = all(failure.exit_code in codes for failure in failures)
        result = Result.STOPPED if stopped else Result.FAILED
        # The others would tell nothing more, and the words of many ranks exceed a packet.
        cause = (root_cause(failures),) if failures else ()
        return Outcome(self._request.assignment.attempt, result, cause)

    def _worth_waiting(self, deadline: float) -> bool:
        failures = self._failures()
        if self._request.stop_file.exists():
            stopped = all(failure.exit_code in STOP_CODES for failure in failures)
            if stopped:
                # The others are still saving; the launcher sets the limit.
                return True
        return all(failure.peer_lost for failure in failures) and time.monotonic() < deadline

    def _unfinished(self) -> list[RankProcess]:
        # A rank that has written its note is as good as ended.
        return [
            process
            for local, process in enumerate(self._processes)
            if process.is_alive() and rank.read_note(self._folder, local) is None
        ]

    def _failures(self) -> list[Failure]:
        return [
            self._failure(local, process.exitcode)
            for local, process in enumerate(self._processes)
            if process.exitcode and not self._was_ended(process)
        ]

    def _was_ended(self, process: RankProcess) -> bool:
        """Tell whether a rank has ended because it had to, not by itself."""
        if process.pid in self._asked and process.exitcode == -last_copy.SIGNAL:
            return True
        return process.pid in self._killed

    def _failure(self, local: int, exit_code: int) -> Failure:
        # A rank that a signal killed leaves no note.
        seen = self._seen.setdefault(local, time.time())
        note = rank.read_note(self._folder, local) or {}
        return Failure(
            exit_code=exit_code,
            time=note.get("time", seen),
            rank=self._request.global_rank(local),
            error=note.get("error", ""),
            message=note.get("message", ""),
            peer_lost=note.get("peerLost", False),
        )


def _kill_orphans() -> None:
    """Kill what ended ranks have left behind, their loader workers above all.

    They hold the rank's connections too: until they are gone, ranks of other nodes wait for one
    that is dead.
    """
    orphans = linux.orphans(os.getpid())
    linux.kill(orphans - linux.trackers(orphans))


def _no_ranks(request: Request, error: Exception) -> Outcome:
    """Say that not even the rendezvous came about."""
    kind = type(error).__name__
    message = f"{kind}: {error}"
    # With one node there is no peer; with more, what cannot be reached is the master.
    unreachable = isinstance(error, OSError) or is_peer_loss(kind, message)
    failure = Failure(
        exit_code=ExitCode.ERROR,
        time=time.time(),
        error=kind,
        message=message[:2000],
        peer_lost=request.assignment.nnodes > 1 and unreachable,
    )
    return Outcome(request.assignment.attempt, Result.FAILED, (failure,))
