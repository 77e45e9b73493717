"""The three kinds of cluster the demo can use, and what each needs to get the images onto its
nodes.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.images import IMAGES, VERSION, Progress, build_local_image, docker_build, local_tag
from demo.kube import DemoError, Kube
from demo.outlook import Outlook, Say, local_parts

CLUSTER_NAME = "demo"
KIND_NAME = "inception-demo"
ELSEWHERE = (
    "What works here: `make demo KUBECONFIG=/path/to/config OPERATOR_IMAGE=… TRAINER_IMAGE=…` on "
    "another cluster, "
    "`make demo CLUSTER=kind` with Docker, or `make train-local` for the same training without "
    "Kubernetes."
)


@dataclass(frozen=True)
class Ready:
    """A cluster that runs and has both images."""

    kube: Kube
    operator_image: str
    trainer_image: str
    description: str
    go_on: str


def choose(environment: Mapping[str, str]) -> str:
    """``local``, ``kind`` or ``existing``, from CLUSTER and KUBECONFIG; DemoError names an unknown
    word.
    """
    word = environment.get("CLUSTER", "existing" if environment.get("KUBECONFIG") else "local")
    if word not in STARTERS:
        raise DemoError(f"CLUSTER={word}: expected one of {', '.join(STARTERS)}")
    return word


def obstacle() -> str | None:
    """One sentence on why this machine cannot carry a node, or None when it can."""
    if platform.system() != "Linux":
        return f"A local node needs Linux, this is {platform.system()}."
    if os.geteuid() != 0:
        return (
            "A local node needs root (network namespaces, mounts, cgroups), and this is an "
            "ordinary user."
        )
    if shutil.which("apt-get") is None:
        return "A local node installs a few Debian packages, and this machine has no apt-get."
    return None


def start_local(environment: Mapping[str, str], say: Say) -> Ready:
    """A real Kubernetes on this machine, built from source the first time."""
    from demo.together import make_all
    from localcluster.cluster import Cluster
    from localcluster.components import not_built
    from localcluster.controlplane import required_components
    from localcluster.model import ClusterSpec

    if reason := obstacle():
        raise DemoError(f"{reason} {ELSEWHERE}")
    # The operator and the ranks of a job find one another by addresses, so no DNS server is built.
    spec = ClusterSpec(name=CLUSTER_NAME, dns=False)
    programs = required_components(spec)
    built_images: set[str] = set()
    say.outlook = Outlook(local_parts(programs, built_images))
    say(say.outlook.announcement(len(not_built(programs))))
    if not_built(programs):
        make_all(programs, built_images, say)
    cluster = Cluster.up(spec, say, persistent=True)
    for image in IMAGES:
        build_local_image(cluster.layout, image, say)
        built_images.add(image)
    kubectl = cluster.layout.binary("kubectl")
    return Ready(
        Kube(cluster.kubeconfig, kubectl),
        local_tag("operator"),
        local_tag("trainer"),
        "a real Kubernetes on this machine (kube-apiserver, kubelet, containerd and all)",
        f"The cluster keeps running: export KUBECONFIG={cluster.kubeconfig}\n"
        f"  kubectl is {kubectl}",
    )


def start_existing(environment: Mapping[str, str], progress: Progress) -> Ready:
    """The cluster of KUBECONFIG, with images that its nodes can pull."""
    images = environment.get("OPERATOR_IMAGE"), environment.get("TRAINER_IMAGE")
    if not images[0] or not images[1]:
        raise DemoError(
            "A cluster of your own needs images its nodes can pull: build them with `make "
            "images`, push them, then "
            "`make demo KUBECONFIG=… OPERATOR_IMAGE=registry/you/inception-operator:0.1.0 "
            "TRAINER_IMAGE=registry/you/inception-trainer:0.1.0`."
        )
    kubeconfig = Path(environment["KUBECONFIG"].split(":")[0]).expanduser()
    if not kubeconfig.exists():
        raise DemoError(f"KUBECONFIG={kubeconfig}: there is no such file")
    kube = Kube(kubeconfig, find_kubectl(progress))
    return Ready(
        kube,
        images[0],
        images[1],
        f"the cluster of {kubeconfig}",
        f"export KUBECONFIG={kubeconfig}",
    )


def find_kubectl(progress: Progress) -> str:
    """The kubectl on the path, else our own build."""
    if found := shutil.which("kubectl"):
        return found
    from localcluster.components import build

    return str(build(["kubectl"], progress)["kubectl"])


def start_kind(environment: Mapping[str, str], progress: Progress) -> Ready:
    """A kind cluster in Docker, made unless it exists."""
    missing = [tool for tool in ("docker", "kind") if shutil.which(tool) is None]
    if missing:
        raise DemoError(f"CLUSTER=kind needs {' and '.join(missing)} on the path. {ELSEWHERE}")
    names = subprocess.run(
        ["kind", "get", "clusters"], capture_output=True, text=True, check=True
    ).stdout.split()
    if KIND_NAME not in names:
        progress(f"kind create cluster --name {KIND_NAME}")
        subprocess.run(["kind", "create", "cluster", "--name", KIND_NAME], check=True)
    tags = {image: f"inception-{image}:{VERSION}" for image in IMAGES}
    for image, tag in tags.items():
        docker_build(image, tag, progress)
        progress(f"kind load docker-image {tag}")
        subprocess.run(["kind", "load", "docker-image", tag, "--name", KIND_NAME], check=True)
    kubeconfig = kind_kubeconfig()
    return Ready(
        Kube(kubeconfig, find_kubectl(progress)),
        tags["operator"],
        tags["trainer"],
        f"the kind cluster {KIND_NAME}",
        f"The cluster keeps running: kubectl --context kind-{KIND_NAME} get itrain -A",
    )


def kind_kubeconfig() -> Path:
    """The kubeconfig of our kind cluster, as a private file of its own."""
    text = subprocess.run(
        ["kind", "get", "kubeconfig", "--name", KIND_NAME],
        capture_output=True,
        text=True,
        check=True,
    )
    path = Path(tempfile.mkdtemp(prefix="inception-demo-")) / "kubeconfig"
    path.write_text(text.stdout)
    path.chmod(0o600)
    return path


STARTERS: dict[str, Callable[[Mapping[str, str], Say], Ready]] = {
    "local": start_local,
    "kind": start_kind,
    "existing": start_existing,
}
