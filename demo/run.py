"""The demo itself: install, apply, follow, report; and the way back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import clusters
from demo.clusters import Ready
from demo.follow import follow
from demo.images import ROOT, VERSION, Progress
from demo.kube import PLUGIN, REPORT, DemoError, Kube
from demo.outlook import Say

OPERATOR_NAMESPACE = "inception-system"
JOB_NAMESPACE = "inception-demo"
DEPLOYMENT = "deployment/inception-operator"
JOB = "bninception-digits"
PAGE = "report.html"
SAMPLE = ROOT / "manifests" / "samples" / f"{JOB}.yaml"
MANIFEST = ROOT / "manifests" / "install.yaml"


def up(kind: str, environment: Mapping[str, str], say: Say) -> None:
    """Everything from nothing to the report. DemoError says in one sentence why not."""
    started = time.monotonic()
    say(f"cluster: {kind}")
    ready = clusters.STARTERS[kind](environment, say)
    output = Path(environment.get("DEMO_OUTPUT", ROOT / "out" / "demo"))
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    install_operator(ready, say)
    apply_job(ready, say)
    job = follow(ready.kube, JOB_NAMESPACE, JOB, output / "metrics.prom")
    collect_files(ready, output, say)
    make_page(ready, output, say)
    report(ready, job, output, time.monotonic() - started)
    if not succeeded(job):
        raise DemoError(
            f"the job did not succeed: {json.dumps(job['status'].get('rootCause', {}))}"
        )


def install_operator(ready: Ready, say: Progress) -> None:
    """Apply install.yaml with this cluster's images, then wait until the operator is ready."""
    say(f"kubectl apply --server-side -f {MANIFEST.relative_to(ROOT)}")
    kube = ready.kube
    before = kube.read("get", DEPLOYMENT, "-n", OPERATOR_NAMESPACE)
    manifest = operator_manifest(ready.operator_image, ready.trainer_image)
    kube.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)
    if before:
        # The image's tag does not change when the checkout does.
        kube.run("rollout", "restart", DEPLOYMENT, "-n", OPERATOR_NAMESPACE)
    kube.run("rollout", "status", DEPLOYMENT, "-n", OPERATOR_NAMESPACE, "--timeout=180s")


def operator_manifest(operator_image: str, trainer_image: str) -> str:
    """The text of install.yaml with other images."""
    text = MANIFEST.read_text()
    for name, image in (("operator", operator_image), ("trainer", trainer_image)):
        text = text.replace(f" inception-{name}:{VERSION}\n", f" {image}\n")
    return text


def apply_job(ready: Ready, say: Progress) -> None:
    """Apply the sample into the demo's own namespace; what an earlier demo left there goes
    first.
    """
    kube = ready.kube
    if kube.read("get", "namespace", JOB_NAMESPACE) is None:
        kube.run("create", "namespace", JOB_NAMESPACE)
    kube.run(
        "delete",
        "-n",
        JOB_NAMESPACE,
        "-f",
        str(SAMPLE),
        "--ignore-not-found",
        "--wait=true",
        "--timeout=180s",
    )
    say(f"kubectl apply -n {JOB_NAMESPACE} -f {SAMPLE.relative_to(ROOT)}")
    kube.run("apply", "-n", JOB_NAMESPACE, "-f", str(SAMPLE))


def collect_files(ready: Ready, output: Path, say: Progress) -> None:
    """Copy the job's directory out of its volume, through a pod that mounts it."""
    say("copying the job's files out of its volume")
    kube = ready.kube
    kube.run("apply", "-f", "-", stdin=json.dumps(reader_pod(ready.trainer_image)))
    try:
        kube.run(
            "wait", "-n", JOB_NAMESPACE, "--for=condition=Ready", "pod/demo-files", "--timeout=120s"
        )
        with tempfile.TemporaryFile() as archive:
            command = (
                "exec",
                "-n",
                JOB_NAMESPACE,
                "demo-files",
                "--",
                "tar",
                "c",
                "-C",
                f"/checkpoint/{JOB}",
                ".",
            )
            for block in kube.stream(*command):
                archive.write(block)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as files:
                files.extractall(output, filter="data")
    finally:
        kube.run(
            "delete",
            "pod",
            "demo-files",
            "-n",
            JOB_NAMESPACE,
            "--grace-period=0",
            "--force",
            "--wait=false",
        )


def reader_pod(image: str) -> dict[str, Any]:
    """A pod under the restricted profile that mounts the job's claim and waits."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "files",
        "image": image,
        "command": ["sleep", "600"],
        "securityContext": security,
        "volumeMounts": [{"name": "checkpoint", "mountPath": "/checkpoint", "readOnly": True}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "checkpoint", "persistentVolumeClaim": {"claimName": JOB}}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "demo-files", "namespace": JOB_NAMESPACE},
        "spec": spec,
    }


def succeeded(job: dict[str, Any]) -> bool:
    """Whether the job's Succeeded condition is True."""
    return any(
        c["type"] == "Succeeded" and c["status"] == "True" for c in job["status"]["conditions"]
    )


def make_page(ready: Ready, output: Path, say: Progress) -> Path:
    """Make the page of the job to keep, from the API server and the files of the run."""
    page = output / PAGE
    job, shown = f"{JOB_NAMESPACE}/{JOB}", os.path.relpath(page)
    say(f"python -m {REPORT} {job} --files {os.path.relpath(output)} --output {shown}")
    where = (f"--kubeconfig={ready.kube.kubeconfig}", f"--files={output}", f"--output={page}")
    ready.kube.module(REPORT, job, *where)
    return page


def report(ready: Ready, job: dict[str, Any], output: Path, wall_seconds: float) -> None:
    """Print the short report: the job as the commands show it, figures, where the files lie, how to
    go on.
    """
    summary_file = output / "output" / "summary.json"
    summary = json.loads(summary_file.read_text()) if summary_file.exists() else {}
    table = ready.kube.module(PLUGIN, "list", "-n", JOB_NAMESPACE)
    described = ready.kube.module(PLUGIN, "describe", JOB, "-n", JOB_NAMESPACE)
    checkpoints = sorted((output / "checkpoints").glob("*.pt"))
    shown = Path(os.path.relpath(output))
    print(
        f"""
{table.rstrip()}

{described.rstrip()}

  top-1 on the held-out fifth   {100 * float(summary.get("accuracyTop1", "nan")):.2f} %
  images/s (all ranks)          {float(summary.get("imagesPerSecond", "nan")):.0f}
  samples seen, attempts        {summary.get("samplesSeen", "?")}, {summary.get("attempts", "?")}
  training wall time            {float(summary.get("wallSeconds", "nan")):.0f} s
  whole demo                    {wall_seconds:.0f} s on {ready.description}

  report        {shown}/{PAGE}: one page to keep, with curves, restarts, where the time went
  curves        {shown}/output/curves.png
  TensorBoard   tensorboard --logdir {shown}/output/tensorboard
  checkpoint    {checkpoints[-1] if checkpoints else "none"}
  /metrics      {shown}/metrics.prom
  figures       {shown}/output/summary.json

How to go on
  {ready.go_on}
  kubectl get itrain -n {JOB_NAMESPACE} -o wide; kubectl describe itrain {JOB} -n {JOB_NAMESPACE}
  pipx install '.[cli]'; kubectl inception describe {JOB} -n {JOB_NAMESPACE}   (docs/cli.md)
  your own cluster:  make demo KUBECONFIG=… OPERATOR_IMAGE=… TRAINER_IMAGE=…   (docs/install.md)
  tear down:         make demo-down
""",
        flush=True,
    )


def down(kind: str, environment: Mapping[str, str], say: Progress) -> None:
    """Remove what `up` made: a cluster of its own as a whole, on another's cluster only our
    objects.
    """
    shutil.rmtree(Path(environment.get("DEMO_OUTPUT", ROOT / "out" / "demo")), ignore_errors=True)
    if kind == "local":
        from localcluster.cluster import Cluster

        say(
            "removing the local cluster"
            if Cluster.remove(clusters.CLUSTER_NAME)
            else "there is no local cluster"
        )
    elif kind == "kind":
        say(f"kind delete cluster --name {clusters.KIND_NAME}")
        subprocess.run(["kind", "delete", "cluster", "--name", clusters.KIND_NAME], check=True)
    else:
        remove_objects(
            Kube(Path(environment["KUBECONFIG"].split(":")[0]), clusters.find_kubectl(say)), say
        )


def remove_objects(kube: Kube, say: Progress) -> None:
    """Delete the demo's namespace and the operator; the CRD stays, for others may have jobs."""
    say(f"deleting namespace {JOB_NAMESPACE} and the operator")
    kube.run("delete", "namespace", JOB_NAMESPACE, "--ignore-not-found", "--timeout=180s")
    objects = MANIFEST.read_text().split("\n---\n")
    manifest = "\n---\n".join(
        text for text in objects if "kind: CustomResourceDefinition" not in text
    )
    kube.run("delete", "-f", "-", "--ignore-not-found", "--timeout=180s", stdin=manifest)
