"""The command line: ``python -m localcluster COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import components, disk, state
from .cluster import Cluster
from .errors import LocalClusterError
from .model import ClusterSpec, DeviceSpec, DriverSpec
from .paths import cache_dir
from .progress import to_stderr
from .prune import prune

_DESCRIPTION = """\
A real Kubernetes on this machine, built from source, without a container engine.

On two cores the first build takes 8 (control-plane) to 15 minutes (node); later starts take
seconds. Everything lies in one folder (LOCALCLUSTER_CACHE, else .cache/localcluster of the
checkout); `down` leaves only built binaries and images there.
"""
_UP = """\
Start a cluster that runs until `down`. One of the same name that runs already is left alone.

flavours:
  node           one real node: kubelet, containerd, pod network, DNS, storage, image builds;
                 needs root (the default)
  control-plane  API server, controllers and scheduler only, any user; --kwok-nodes adds nodes
                 that play pods

examples:
  python -m localcluster up --device cambricon.com/mlu=4
  python -m localcluster up --name big --flavour control-plane --kwok-nodes 100 \
    --resource nvidia.com/gpu=8
  python -m localcluster kubectl --name big get nodes
"""

AddParser = Callable[..., argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what goes wrong is told on standard error, with exit code 1."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except LocalClusterError as error:
        print(f"localcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    result = _raw(argparse.ArgumentParser, prog="python -m localcluster", description=_DESCRIPTION)
    add = result.add_subparsers(required=True, metavar="COMMAND").add_parser
    _add_up(add)
    _add_down_and_status(add)
    _add_kubectl_and_logs(add)
    _add_build_image(add)
    known = ", ".join(components.COMPONENTS)
    build = add(
        "build",
        help="build components, so that later starts are quick",
        description=f"Components: {known}.",
    )
    build.add_argument(
        "names", nargs="*", metavar="COMPONENT", help="what to build; everything unless given"
    )
    build.set_defaults(run=_build)
    _add_prune(add)
    return result


def _raw(add: AddParser, *arguments: str, **options: str) -> argparse.ArgumentParser:
    return add(*arguments, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _add_name(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--name", default="default", help="name of the cluster (default: %(default)s)"
    )


def _add_up(add: AddParser) -> None:
    command = _raw(add, "up", help="start a cluster", description=_UP)
    _add_name(command)
    command.add_argument(
        "--flavour", choices=("node", "control-plane"), default="node", help="see above"
    )
    command.add_argument(
        "--kwok-nodes", type=int, default=0, metavar="N", help="number of fake nodes"
    )
    _add_repeatable(command, "--resource", _pair, "R=Q", "an extended resource of every fake node")
    example = "a device plugin on the real node, for example cambricon.com/mlu=4"
    _add_repeatable(command, "--device", _device, "RESOURCE=COUNT[:VARIABLE]", example)
    example = "a DRA driver on the real node, for example mlu.example.com=4"
    _add_repeatable(command, "--dra-driver", _driver, "DRIVER=COUNT[:VARIABLE]", example)
    command.set_defaults(run=_up)


def _add_repeatable(
    command: argparse.ArgumentParser,
    option: str,
    kind: Callable[[str], object],
    metavar: str,
    text: str,
) -> None:
    command.add_argument(
        option, type=kind, action="append", default=[], metavar=metavar, help=f"{text}; repeatable"
    )


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value


def _device(text: str) -> DeviceSpec:
    try:
        return DeviceSpec.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _driver(text: str) -> DriverSpec:
    try:
        return DriverSpec.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _up(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    spec = ClusterSpec(
        name=arguments.name,
        flavour=arguments.flavour,
        kwok_nodes=arguments.kwok_nodes,
        kwok_resources=dict(arguments.resource),
        devices=tuple(arguments.device),
        drivers=tuple(arguments.dra_driver),
    )
    cluster = Cluster.up(spec, to_stderr, persistent=True)
    to_stderr(f"cluster {cluster.name} is up after {time.monotonic() - started:.0f} s")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _add_down_and_status(add: AddParser) -> None:
    command = add("down", help="end a cluster and remove everything of it")
    _add_name(command)
    command.set_defaults(run=_down)
    command = add(
        "status", help="show all clusters and their components; exit code 1 unless all are well"
    )
    command.set_defaults(run=_status)


def _down(arguments: argparse.Namespace) -> int:
    existed = Cluster.remove(arguments.name)
    to_stderr(
        f"cluster {arguments.name} is gone"
        if existed
        else f"cluster {arguments.name} is not running"
    )
    return 0


def _status(arguments: argparse.Namespace) -> int:
    del arguments
    well = True
    for root in state.roots():
        if state.supervisor(root) is None:
            continue
        status = state.read_status(root)
        print(f"{root.name}: {status.phase}" + (f": {status.error}" if status.error else ""))
        for name, condition in status.components.items():
            print(f"  {name}: {condition}")
        well = well and status.phase == "running" and set(status.components.values()) == {"running"}
    return 0 if well else 1


def _add_kubectl_and_logs(add: AddParser) -> None:
    command = add(
        "kubectl", help="run kubectl against a cluster", usage="%(prog)s [--name NAME] ARGUMENT..."
    )
    _add_name(command)
    command.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="passed on to kubectl"
    )
    command.set_defaults(run=_kubectl)
    command = add("logs", help="print the log of a component, also after a failed start")
    _add_name(command)
    command.add_argument("component", help="for example kubelet, or supervisor")
    command.set_defaults(run=_logs)


def _kubectl(arguments: argparse.Namespace) -> int:
    cluster = Cluster.attach(arguments.name)
    rest = arguments.arguments[1:] if arguments.arguments[:1] == ["--"] else arguments.arguments
    kubectl = cluster.layout.binary("kubectl")
    os.execv(kubectl, [kubectl, f"--kubeconfig={cluster.kubeconfig}", *rest])  # noqa: S606 - becomes kubectl


def _logs(arguments: argparse.Namespace) -> int:
    print(state.read_log(state.root_of(arguments.name), arguments.component), end="")
    return 0


def _add_build_image(add: AddParser) -> None:
    command = add("build-image", help="build a Dockerfile straight into the node's image store")
    _add_name(command)
    command.add_argument("tag", help="for example localhost/trainer:dev")
    command.add_argument(
        "--context", type=Path, default=Path(), help="build context (default: this folder)"
    )
    command.add_argument("--file", type=Path, help="Dockerfile (default: that of the context)")
    command.add_argument("--target", help="stage to build")
    _add_repeatable(command, "--build-arg", _pair, "NAME=VALUE", "a build argument")
    _add_repeatable(
        command, "--named-context", _pair, "NAME=FOLDER", "a further folder to mount from"
    )
    command.set_defaults(run=_build_image)


def _build_image(arguments: argparse.Namespace) -> int:
    from .images import ImageBuild

    context = arguments.context.resolve()
    image = ImageBuild(
        tag=arguments.tag,
        context=context,
        dockerfile=(arguments.file or context / "Dockerfile").resolve(),
        target=arguments.target,
        build_args=dict(arguments.build_arg),
        named_contexts={name: Path(folder).resolve() for name, folder in arguments.named_context},
    )
    Cluster.attach(arguments.name).build_image(image, to_stderr)
    return 0


def _add_prune(add: AddParser) -> None:
    text = (
        "remove binaries and base images of other versions, and image stores that no cluster uses"
    )
    command = add("prune", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument(
        "--when-below",
        type=float,
        metavar="GIB",
        help="only if the disk of the cache has less than this free",
    )
    command.set_defaults(run=_prune)


def _prune(arguments: argparse.Namespace) -> int:
    enough = arguments.when_below
    if enough is not None and disk.free_bytes(cache_dir()) >= enough * disk.GIB:
        return 0
    for path in prune(to_stderr):
        print(f"removed {path}")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    paths = components.build(arguments.names or components.COMPONENTS, to_stderr)
    for name, path in paths.items():
        print(f"{name}: {path}")
    return 0
