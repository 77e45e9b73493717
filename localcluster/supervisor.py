"""The processes that keep a cluster alive, and end it completely.

``outer`` is a daemon in the host's namespaces. A control-plane cluster's components are its
children and get SIGKILL from the kernel when it dies. For a node cluster it starts ``inner`` as the
first process of new network, mount and PID namespaces, forwards the API server's port into them,
and only has to kill that one process to end everything at once. However a cluster ends, nothing of
it survives but, after a failed start, its logs; what a SIGKILL of ``outer`` leaves on disk is swept
by the next command (state.sweep).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from . import controlplane, forwarder, kubeconfig, kwok, pki, state
from .components import tail
from .errors import ComponentError, LocalClusterError
from .linux import ProcessIdentity, die_with_parent, only_child
from .model import ClusterSpec, Layout
from .paths import child_environment
from .processes import ProcessGroup, exit_text

_POLL = 0.2
_REPORTED = 3
"""Exit code of ``inner`` after it has reported why it could not start."""


class Stopped(BaseException):
    """Somebody wants the cluster to end; not an error."""


class Report:
    """Messages to the process that waits for the cluster, one JSON object per line."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def progress(self, message: str) -> None:
        """A step is done."""
        self._send({"progress": message})

    def ready(self) -> None:
        """The cluster can be used."""
        self._send({"ready": True})

    def failed(self, error: Exception) -> None:
        """The cluster did not come up."""
        details = {"reason": str(error) or repr(error)}
        if isinstance(error, ComponentError):
            details = {"component": error.component, "reason": error.reason, "tail": error.tail}
        self._send({"failed": details})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            os.write(self.descriptor, (json.dumps(message) + "\n").encode())
        except OSError:
            log(f"nobody listens: {message}")


class Parent:
    """The process that asked for the cluster: it is needed until the cluster runs, and longer if
    they are tied.
    """

    def __init__(self, identity: ProcessIdentity, *, tied: bool) -> None:
        self._identity = identity
        self._needed = True
        self._tied = tied

    def started(self) -> None:
        """The cluster runs."""
        self._needed = self._tied

    def check(self) -> None:
        """Raise Stopped when the process is gone and was needed."""
        if self._needed and not self._identity.is_alive():
            raise Stopped(f"process {self._identity.pid}, to which the cluster belongs, has ended")


def log(message: str) -> None:
    """A line in the supervisor's own log (standard error)."""
    print(time.strftime("%H:%M:%S"), message, file=sys.stderr, flush=True)


def bring_up(layout: Layout, spec: ClusterSpec, group: ProcessGroup) -> None:
    """Start everything in order and create what the spec asks for; runs inside the namespaces, if
    there are any.
    """
    if spec.kwok_nodes:
        kwok.write_config(layout)
    if spec.flavour != "image-builder":
        for batch in controlplane.batches(layout, spec):
            group.start(batch)
    if spec.namespaced:
        from . import node

        for process in node.processes(layout, spec):
            group.start([process])
    kwok.create_spec_nodes(layout, spec)
    if spec.flavour == "node":
        node.finish(layout, spec)


def watch(root: Path, group: ProcessGroup) -> None:
    """Notice components that have ended: into the log and the status with them."""
    news = group.poll()
    for name in news:
        log(
            f"{name} {group.ended[name]}; its log ends "
            f"with:\n{tail(state.layout_of(root).log(name))}"
        )
    if news:
        note_running(root, group)


def note_running(root: Path, group: ProcessGroup) -> None:
    """Write down that the cluster runs, and how every component does."""
    components = {name: group.ended.get(name, "running") for name in group.names()}
    state.write_status(root, state.Status("running", components))


# --- outer


def outer(root: Path, report: Report, parent: Parent) -> int:
    """Run a cluster until somebody wants it to end; then remove all of it."""
    layout, spec = state.layout_of(root), state.read_spec(root)
    keep: frozenset[str] = frozenset()
    try:
        _prepare_files(layout, spec, report)
        if spec.namespaced:
            _run_node(root, layout, report, parent)
        else:
            _run_control_plane(root, layout, spec, report, parent)
    except Stopped as stopped:
        log(f"stopping: {stopped}")
    except Exception as error:
        keep = frozenset({"logs", "status.json"})
        _note_failure(root, report, error)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        state.remove(root, keep=keep)
    return 1 if keep else 0


def _prepare_files(layout: Layout, spec: ClusterSpec, report: Report) -> None:
    pki.create(layout)
    kubeconfig.create(layout)
    if spec.flavour == "node":
        from . import node

        report.progress("preparing the node's images")
        node.fetch(layout, spec)


def _note_failure(root: Path, report: Report, error: Exception) -> None:
    log(traceback.format_exc())
    status = state.read_status(root)
    if status.phase != "failed":
        state.write_status(root, state.Status("failed", status.components, str(error)))
        report.failed(error)


def _run_control_plane(
    root: Path, layout: Layout, spec: ClusterSpec, report: Report, parent: Parent
) -> NoReturn:
    group = ProcessGroup(layout, parent.check, report.progress)
    try:
        bring_up(layout, spec, group)
        note_running(root, group)
        parent.started()
        report.ready()
        while True:
            parent.check()
            watch(root, group)
            time.sleep(_POLL)
    finally:
        group.kill()


def _run_node(root: Path, layout: Layout, report: Report, parent: Parent) -> None:
    with socket.create_server(("127.0.0.1", layout.api_port)) as listener:
        unshare = _start_inner(root, report)
        init = None
        try:
            init = _wait_for_init(unshare)
            state.write_init_pid(root, init)
            forwarder.start(layout.api_port, listener, init)
            while unshare.poll() is None:
                parent.check()
                if state.read_status(root).phase == "running":
                    parent.started()
                time.sleep(_POLL)
        finally:
            if unshare.poll() is None:
                # With the first process of a PID namespace all others die; unshare ends when that
                # is over.
                os.kill(init or unshare.pid, signal.SIGKILL)
            unshare.wait()
    if unshare.returncode != _REPORTED:
        raise ComponentError(
            "inner supervisor", exit_text(unshare.returncode), tail(layout.log("supervisor"))
        )
    raise LocalClusterError("the start failed")


def _start_inner(root: Path, report: Report) -> subprocess.Popen[bytes]:
    namespaces = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    python = (sys.executable, "-P", "-m", "localcluster.supervisor", "inner", str(root))
    parent = os.getpid()
    return subprocess.Popen(
        [*namespaces, *python, "--report", str(report.descriptor)],
        pass_fds=[report.descriptor],
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509 - only system calls
    )


def _wait_for_init(unshare: subprocess.Popen[bytes]) -> int:
    while unshare.poll() is None:
        child = only_child(unshare.pid)
        if child is not None:
            return child
        time.sleep(0.01)
    raise LocalClusterError(
        f"unshare {exit_text(unshare.returncode)}: no namespaces can be made here"
    )


# --- inner


def inner(root: Path, report: Report) -> int:
    """First process of the namespaces: reaps orphans while its child, the worker, does the work."""
    worker = os.fork()
    if worker == 0:
        os._exit(_work(root, report))
    while True:
        pid, status = os.wait()
        if pid == worker:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _work(root: Path, report: Report) -> int:
    from . import node

    layout, spec = state.layout_of(root), state.read_spec(root)
    group = ProcessGroup(layout, lambda: None, report.progress)
    try:
        node.prepare(layout, spec)
        bring_up(layout, spec, group)
        note_running(root, group)
    except Exception as error:
        log(traceback.format_exc())
        state.write_status(root, state.Status("failed", error=str(error)))
        report.failed(error)
        return _REPORTED
    report.ready()
    while True:
        watch(root, group)
        time.sleep(_POLL)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise Stopped(signal.Signals(number).name)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of both processes; started by cluster.py and by ``outer``, never by hand."""
    parser = argparse.ArgumentParser(prog="localcluster.supervisor")
    parser.add_argument("role", choices=("outer", "inner"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--parent", nargs=2, type=int)
    parser.add_argument("--tied", action="store_true")
    arguments = parser.parse_args(argv)
    report = Report(arguments.report)
    if arguments.role == "inner":
        return inner(arguments.root, report)
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    return outer(
        arguments.root, report, Parent(ProcessIdentity(*arguments.parent), tied=arguments.tied)
    )


if __name__ == "__main__":
    sys.exit(main())
