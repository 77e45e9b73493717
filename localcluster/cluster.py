"""The library's face: start, use and end clusters."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import components, controlplane, disk, kwok, state, toolchain
from .errors import ClusterStateError, CommandError, ComponentError, LocalClusterError
from .linux import ProcessIdentity
from .model import ClusterSpec, Layout
from .paths import CACHE_VARIABLE, cache_dir, child_environment
from .progress import Progress, quiet, to_stderr

if TYPE_CHECKING:
    from .images import ImageBuild

_STOP_SECONDS = 60.0
_NSENTER = ("nsenter", "--net", "--mount", "--pid")


class Cluster:
    """A running cluster. Make one with :meth:`up`, or take hold of one with :meth:`attach`.

    As a context manager it is taken down at the end.
    """

    def __init__(self, layout: Layout, spec: ClusterSpec) -> None:
        self.layout = layout
        self.spec = spec

    @classmethod
    def up(
        cls, spec: ClusterSpec, progress: Progress = quiet, *, persistent: bool = False
    ) -> Cluster:
        """Build what is missing, start the cluster and wait until it is usable.

        A cluster ends with the calling process, however that ends, unless it is persistent: then it
        runs until it is taken down, and ``up`` of the same spec takes hold of the running one.
        Raises ClusterStateError if another one of that name runs already, ComponentError if a
        component fails to start.
        """
        prepare(spec, progress)
        with state.clusters_lock():
            state.sweep(also=spec.name)
            if state.root_of(spec.name).exists():
                return cls._running(spec, progress, persistent=persistent)
            layout = state.create(spec)
            descriptor, identity = _start_supervisor(layout, persistent=persistent)
        try:
            _wait_until_ready(layout, descriptor, progress)
        except BaseException:
            _stop(identity)
            raise
        return cls(layout, spec)

    @classmethod
    def _running(cls, spec: ClusterSpec, progress: Progress, *, persistent: bool) -> Cluster:
        root = state.root_of(spec.name)
        if not persistent or not state.is_alive(root):
            raise ClusterStateError(f"cluster {spec.name} is already running ({root})")
        running, phase = state.read_spec(root), state.read_status(root).phase
        if running != spec:
            raise ClusterStateError(
                f"cluster {spec.name} is already running, but as {running}; take it down first"
            )
        if phase != "running":
            raise ClusterStateError(f"cluster {spec.name} is {phase}; wait for it or take it down")
        progress(f"cluster {spec.name} is already running")
        return cls(state.layout_of(root), spec)

    @classmethod
    def attach(cls, name: str = "default") -> Cluster:
        """The running cluster of that name; raises ClusterStateError if there is none."""
        root = state.root_of(name)
        if not state.is_alive(root):
            raise ClusterStateError(f"cluster {name} is not running")
        return cls(state.layout_of(root), state.read_spec(root))

    @property
    def name(self) -> str:
        """The name that tells clusters on this machine apart."""
        return self.spec.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works inside and outside of the cluster's
        namespaces.
        """
        return self.layout.kubeconfig("admin")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def down(self) -> None:
        """End the cluster and remove everything of it; nothing happens if it is gone."""
        self.remove(self.name)

    @staticmethod
    def remove(name: str) -> bool:
        """End the named cluster, started by whomever; answers whether there was anything to end."""
        root = state.root_of(name)
        existed = root.exists()
        identity = state.supervisor(root) if existed else None
        if identity is not None:
            _stop(identity)
        with state.clusters_lock():
            state.sweep(also=name)
        return existed

    def status(self) -> state.Status:
        """How the cluster and its components are doing."""
        return state.read_status(self.layout.root)

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Run kubectl as the administrator and return its output; raises CommandError with what it
        complained about.
        """
        argv = (self.layout.binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments)
        result = subprocess.run(
            argv, input=input or "", capture_output=True, text=True, check=False
        )
        if check and result.returncode:
            raise CommandError(("kubectl", *arguments), result.returncode, result.stderr)
        return result.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply manifests on the server side."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl("apply", "--server-side", "--filename=-", input=document)

    def add_kwok_nodes(
        self,
        names: Sequence[str],
        resources: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Create more fake nodes and wait until they are Ready; the cluster must have been started
        with kwok nodes.
        """
        if not self.spec.kwok_nodes:
            raise ClusterStateError(
                f"cluster {self.name} was started without kwok: give its spec a kwok_nodes number"
            )
        kwok.create_nodes(
            self.layout, names, resources, labels=labels or {}, tainted=self.spec.flavour == "node"
        )

    def enter_argv(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The command as it must be run to see what the cluster's components see, from the same
        working folder.
        """
        if not self.spec.namespaced:
            return tuple(argv)
        pid = state.init_pid(self.layout.root)
        if pid is None or not state.is_alive(self.layout.root):
            raise ClusterStateError(f"cluster {self.name} is not running")
        return (*_NSENTER, f"--target={pid}", f"--wdns={Path.cwd()}", "--", *argv)

    def logs(self, component: str) -> str:
        """The whole log of a component."""
        return state.read_log(self.layout.root, component)

    def build_image(self, image: ImageBuild, progress: Progress = to_stderr) -> bool:
        """Build an image straight into the node's image store; False when it is there already from
        the same inputs.
        """
        from . import images

        return images.build_image(self.layout, image, progress)


def prepare(spec: ClusterSpec, progress: Progress = quiet) -> None:
    """Build and install what the cluster needs on this machine; quick when all is there."""
    _require_abilities(spec, progress)
    components.build(controlplane.required_components(spec), progress)


def _require_abilities(spec: ClusterSpec, progress: Progress) -> None:
    state.root_of(spec.name)
    if not spec.namespaced:
        return
    if os.geteuid() != 0:
        raise LocalClusterError(
            "a cluster with a node needs root; as another user take the flavour control-plane"
        )
    from . import node

    toolchain.ensure_packages(node.debian_packages(), progress)
    missing = [tool for tool in ("unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        raise LocalClusterError(f"{', '.join(missing)} not found: install util-linux")
    stores = cache_dir() / "containerd"
    needed = disk.LATER_CLUSTER if stores.exists() else disk.FIRST_CLUSTER
    disk.require_room(stores, needed, "a node", CACHE_VARIABLE)


def _start_supervisor(layout: Layout, *, persistent: bool) -> tuple[int, ProcessIdentity]:
    parent = ProcessIdentity.of(os.getpid())
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    command = [sys.executable, "-P", "-m", "localcluster.supervisor", "outer", str(layout.root)]
    command += ["--report", str(writing), "--parent", str(parent.pid), str(parent.start_time)]
    # Not subprocess.Popen: its object would complain when it is dropped while the daemon still
    # runs.
    with layout.log("supervisor").open("ab") as output, Path(os.devnull).open("rb") as null:
        actions = [
            (os.POSIX_SPAWN_DUP2, file.fileno(), number)
            for number, file in enumerate((null, output, output))
        ]
        arguments = [*command, *([] if persistent else ["--tied"])]
        pid = os.posix_spawn(
            sys.executable, arguments, child_environment(), file_actions=actions, setsid=True
        )
    os.close(writing)
    identity = ProcessIdentity.of(pid)
    state.write_supervisor(layout.root, identity)
    return reading, identity


def _wait_until_ready(layout: Layout, descriptor: int, progress: Progress) -> None:
    with os.fdopen(descriptor) as messages:
        for line in messages:
            message = json.loads(line)
            if "progress" in message:
                progress(message["progress"])
            elif "failed" in message:
                raise _failure(message["failed"])
            else:
                return
    raise ComponentError(
        "supervisor", "ended unexpectedly", components.tail(layout.log("supervisor"))
    )


def _failure(details: Mapping[str, str]) -> LocalClusterError:
    if "component" in details:
        return ComponentError(details["component"], details["reason"], details["tail"])
    return LocalClusterError(details["reason"])


def _stop(identity: ProcessIdentity) -> None:
    identity.signal(signal.SIGTERM)
    if not identity.wait(_STOP_SECONDS):
        identity.signal(signal.SIGKILL)
        identity.wait(_STOP_SECONDS)
    with contextlib.suppress(ChildProcessError):  # started by another process: not ours to reap
        os.waitpid(identity.pid, os.WNOHANG)
