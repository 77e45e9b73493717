"""The programs a cluster consists of, and how to build them from their Go modules.

Every folder under ``go/`` is a small module that pins one project with ``tool`` lines. Binaries
land in ``<cache>/store/<hash of module and flags>/NAME``, so a changed pin never meets an old
binary; ``<cache>/bin/NAME`` links to the newest.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from . import disk, toolchain
from .errors import BuildError
from .locks import held
from .paths import GO_MODULES, build_environment, cache_dir
from .progress import Progress, quiet

_HEARTBEAT = 30.0
_KUBERNETES = "k8s.io/kubernetes"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class Component:
    """One binary: which module folder pins it, what to compile and with which flags."""

    name: str
    module: str
    package: str
    tags: tuple[str, ...] = ()
    cgo: bool = False
    debian: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the Go module."""
        return GO_MODULES / self.module

    def flags(self) -> tuple[str, ...]:
        """Arguments of ``go build`` besides output and package."""
        tags = ("-tags", ",".join(self.tags)) if self.tags else ()
        ldflags = ["-s", "-w"]
        if self.module == "kubernetes":
            ldflags += version_ldflags(pinned_version(self.folder, _KUBERNETES))
        fixed = ("-mod=readonly", "-buildvcs=false", "-trimpath", "-pgo=off", _COMPILER_FLAGS)
        return (*fixed, *tags, "-ldflags", " ".join(ldflags))


# Debug data the linker would drop (-s -w); not to make it saves a seventh of the time. Without
# inlining (-l) packages compile in four fifths of the time; what the programs lose does not show
# beside what they wait for.
_COMPILER_FLAGS = "-gcflags=all=-dwarf=false -l"
_CONTAINERD_TAGS = ("no_btrfs", "no_devmapper", "no_zfs")
_CNI = "github.com/containernetworking/plugins/plugins"


def _table() -> Iterator[Component]:
    # In the order in which a cold cache is best filled: kube-apiserver brings most of what others
    # need.
    yield Component("pause", "pause", ".")
    yield Component("etcd", "etcd", "go.etcd.io/etcd/server/v3")
    for name in (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
        "kubelet",
        "kube-proxy",
    ):
        yield Component(name, "kubernetes", f"{_KUBERNETES}/cmd/{name}")
    yield Component("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok")
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        package = f"github.com/containerd/containerd/v2/cmd/{name}"
        yield Component(name, "containerd", package, tags=_CONTAINERD_TAGS)
    yield Component(
        "runc",
        "runc",
        "github.com/opencontainers/runc",
        ("seccomp",),
        True,
        ("gcc", "libseccomp-dev", "pkg-config"),
    )
    for name in ("main/bridge", "main/loopback", "ipam/host-local"):
        yield Component(name.partition("/")[2], "cni", f"{_CNI}/{name}")
    yield Component("coredns", "coredns", "github.com/coredns/coredns")
    for name in ("buildkitd", "buildctl"):
        yield Component(
            name, "buildkit", f"github.com/moby/buildkit/cmd/{name}", tags=("no_oci_worker",)
        )
    yield Component("helm", "helm", "helm.sh/helm/v4/cmd/helm")
    for name in ("promtool", "prometheus"):
        yield Component(name, "prometheus", f"github.com/prometheus/prometheus/cmd/{name}")


COMPONENTS: Mapping[str, Component] = {component.name: component for component in _table()}


def pinned_version(folder: Path, module: str) -> str:
    """The version of a module that the folder's go.mod requires."""
    match = re.search(
        rf"^\s*(?:require\s+)?{re.escape(module)} (v\S+)",
        (folder / "go.mod").read_text(),
        re.MULTILINE,
    )
    if match is None:
        raise BuildError(f"{folder / 'go.mod'} does not require {module}")
    return match.group(1)


def version_ldflags(version: str) -> list[str]:
    """Linker flags that make Kubernetes programs report the version; without them they all say
    v0.0.0-master.
    """
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return [
        f"-X {package}.{key}={value}"
        for package in _VERSION_PACKAGES
        for key, value in values.items()
    ]


def select(names: Iterable[str]) -> list[Component]:
    """The named components in table order; raises BuildError for a name that is not in the
    table.
    """
    wanted = set(names)
    unknown = wanted - COMPONENTS.keys()
    if unknown:
        raise BuildError(
            f"unknown component {', '.join(sorted(unknown))}; known: {', '.join(COMPONENTS)}"
        )
    return [component for component in COMPONENTS.values() if component.name in wanted]


def fingerprint(component: Component) -> str:
    """A hash over everything of ours that decides what the binary is."""
    digest = hashlib.sha256()
    for path in sorted(component.folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for part in (*component.flags(), str(component.cgo)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def binary_path(component: Component) -> Path:
    """Where the built binary lies, built or not."""
    return cache_dir() / "store" / fingerprint(component) / component.name


def binaries_dir() -> Path:
    """The folder with a link to every built binary."""
    return cache_dir() / "bin"


def build(names: Iterable[str], progress: Progress = quiet) -> dict[str, Path]:
    """Build what is missing of the named components; returns where every one of them lies."""
    chosen = select(names)
    paths = {component.name: binary_path(component) for component in chosen}
    if all(_linked(path) for path in paths.values()):
        return paths
    with build_lock(progress):
        _build_missing(chosen, progress)
        for path in paths.values():
            _link(path)
    return paths


def not_built(names: Iterable[str]) -> list[Component]:
    """Those of the named components that are not built yet."""
    return [component for component in select(names) if not binary_path(component).exists()]


def download(names: Iterable[str], progress: Progress = quiet) -> None:
    """Fetch the sources of what is missing of the named components ahead of a build."""
    go = toolchain.find_go(progress)
    for module, group in groupby(not_built(names), lambda component: component.module):
        command = [str(go), "mod", "download"]
        folder = next(group).folder
        result = subprocess.run(
            command,
            cwd=folder,
            env=build_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise BuildError(
                f"the sources of {module} cannot be downloaded: {result.stderr.strip()}"
            )


def _linked(path: Path) -> bool:
    return path.exists() and (binaries_dir() / path.name).resolve() == path.resolve()


def _link(path: Path) -> None:
    link = binaries_dir() / path.name
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("..") / path.relative_to(cache_dir()))
    temporary.rename(link)


def _build_missing(chosen: list[Component], progress: Progress) -> None:
    names = [component.name for component in chosen]
    missing = not_built(names)
    if not missing:
        return
    disk.require_room(Path(tempfile.gettempdir()), disk.BUILD, "Go", "TMPDIR")
    go = install_tools(missing, progress)
    for _, group in groupby(missing, lambda component: component.module):
        programs = list(group)
        title = ", ".join(program.name for program in programs)
        done = len(names) - len(not_built(names))
        progress(f"building {title} ({done} of {len(names)} programs are there)")
        seconds = _build_module(go, programs, progress)
        progress(f"built {title} in {seconds:.0f} s")


def install_tools(components: Iterable[Component], progress: Progress) -> Path:
    """Install what it takes to build the components; the path of Go."""
    toolchain.ensure_packages(
        [name for component in components for name in component.debian], progress
    )
    return toolchain.find_go(progress)


@contextmanager
def build_lock(progress: Progress) -> Iterator[None]:
    """Held while binaries are built or removed."""
    with held(binaries_dir() / ".lock", lambda: progress("waiting for another build to end")):
        yield


def _build_module(go: Path, programs: list[Component], progress: Progress) -> float:
    """Build programs of one module in one run of Go: while one is linked, others are compiled."""
    folder = binary_path(programs[0]).parent
    partial = folder / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    # Of several programs each gets the name of its package's folder.
    output = partial / programs[0].name if len(programs) == 1 else f"{partial}/"
    packages = [program.package for program in programs]
    command = [str(go), "build", *programs[0].flags(), "-o", str(output), *packages]
    seconds = _run_go(command, programs[0], folder, progress)
    for program in programs:
        (partial / program.name).rename(folder / program.name)
    partial.rmdir()
    return seconds


def _run_go(command: list[str], first: Component, folder: Path, progress: Progress) -> float:
    log = folder / f"{first.name}.log"
    environment = {**build_environment(), "CGO_ENABLED": "1" if first.cgo else "0"}
    started = time.monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=first.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        while process.poll() is None:
            try:
                process.wait(_HEARTBEAT)
            except subprocess.TimeoutExpired:
                progress(f"still building {first.module}, {time.monotonic() - started:.0f} s")
    if process.returncode:
        raise BuildError(f"{first.module} does not build; {log} ends with:\n{tail(log)}")
    log.unlink()
    return time.monotonic() - started


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a text file, empty if there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
