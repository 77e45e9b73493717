"""The reference job of all figures of recovery, made from the samples that users apply, and what is
on its volume.

The volume of the local cluster is a folder of this machine, so that results are read without
another pod.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from node_jobs import Jobs, Json

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "manifests" / "samples"
DATA, REFERENCE = "digits-folder", "bninception-digits-folder"
"""The sample that writes the images, and the one that trains on them; the claim is named as the
first.
"""
PROGRAM = ROOT / "benchmarks" / "recovery_program.py"
GLOBAL_BATCH = 64
IMAGES = 4000
STEPS_OF_AN_EPOCH = (IMAGES - IMAGES // 5) // GLOBAL_BATCH
"""A fifth of the images is held out."""
MANY_RESTARTS = 1000


class NotExactError(Exception):
    """A job ended otherwise than one that nobody disturbed."""


def documents(sample: str) -> dict[str, Json]:
    """The objects of a sample by kind."""
    text = (SAMPLES / f"{sample}.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def merged(base: Json, over: Json) -> Json:
    """``base`` with the values of ``over``; objects merge, everything else is replaced."""
    result = dict(base)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            result[name] = merged(below, value)
        else:
            result[name] = value
    return result


@dataclass(frozen=True)
class ReferenceJobs:
    """Makes jobs of one size and length; ``own`` ones run the program of one's own."""

    jobs: Jobs
    pods: int
    steps: int
    own: bool = False
    overlay: Json = field(default_factory=dict)
    """What the spec of every job has besides, or otherwise."""

    def write_images(self) -> None:
        """Have a pod write the data set onto the volume."""
        self.jobs.kubectl("apply", "-f", str(SAMPLES / f"{DATA}.yaml"))
        self.jobs.wait_succeeded(DATA)
        self.jobs.kubectl("delete", "itrain", DATA, "--wait=true", "--timeout=120s")
        if self.own:
            self.jobs.kubectl("create", "configmap", "own-program", f"--from-file={PROGRAM}")

    def apply(self, name: str, *, spare: bool = False, **failure_policy: Any) -> None:
        """Start a job of this name."""
        manifest = self.manifest(name, spare=spare, **failure_policy)
        self.jobs.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def manifest(self, name: str, *, spare: bool = False, **failure_policy: Any) -> Json:
        """The sample at this size and length, with a name of its own."""
        sample = documents(REFERENCE)["InceptionTraining"]
        policy = {"maxRestarts": MANY_RESTARTS, **failure_policy}
        changes: Json = {"numNodes": self.pods, "failurePolicy": policy}
        if spare:
            changes["elasticPolicy"] = {"minNodes": self.pods, "spareNodes": 1}
        if not self.own:
            epochs = math.ceil(self.steps / STEPS_OF_AN_EPOCH)
            changes["training"] = {"epochs": epochs, "maxSteps": self.steps}
        spec = merged(merged(sample["spec"], changes), self.overlay)
        if self.own:
            spec = self._with_program(spec)
        return {**sample, "metadata": {"name": name}, "spec": spec}

    def _with_program(self, spec: Json) -> Json:
        """The spec with the program of one's own in the place of the bundled trainer."""
        spec = copy.deepcopy(spec)
        del spec["training"]
        (container,) = spec["template"]["spec"]["containers"]
        container["command"] = ["torchrun", f"/program/{PROGRAM.name}"]
        container["args"] = [
            *("--data", "/checkpoint/digits"),
            *("--folder", "$(INCEPTION_CHECKPOINT_PATH)"),
            *("--steps", str(self.steps)),
        ]
        container["volumeMounts"] = [{"name": "program", "mountPath": "/program"}]
        volume = {"name": "program", "configMap": {"name": "own-program"}}
        spec["template"]["spec"]["volumes"] = [volume]
        spec["numProcPerNode"] = 1
        return spec

    @cached_property
    def volume(self) -> Path:
        """The folder of this machine that the claim is."""
        claim = json.loads(self.jobs.kubectl("get", "pvc", DATA, "-o", "json"))
        volume = json.loads(
            self.jobs.kubectl("get", "pv", claim["spec"]["volumeName"], "-o", "json")
        )
        return Path(volume["spec"]["hostPath"]["path"])

    def folder(self, name: str) -> Path:
        """The job's own folder, once it is there."""
        places = (self.volume / name, *self.volume.glob(f"*/{name}"))
        return next((path for path in places if path.is_dir()), places[0])

    def final_checkpoint(self, name: str) -> Path:
        """The state at the end of a job that is finished."""
        place = "snapshot.pt" if self.own else "checkpoints/final.pt"
        return self.folder(name) / place

    def check_samples(self, name: str) -> None:
        """Raise NotExactError unless the job has seen the samples of all of its steps once."""
        text = (self.folder(name) / "output" / "summary.json").read_text(encoding="utf-8")
        summary = json.loads(text)
        counts = (summary["steps"], summary["samplesSeen"])
        if counts != (self.steps, self.steps * GLOBAL_BATCH):
            raise NotExactError(f"{name}: steps and samples {counts} instead of {self.steps} steps")

    def remove(self, name: str) -> None:
        """Delete a job and its folder."""
        self.jobs.kubectl("delete", "itrain", name, "--wait=true", "--timeout=180s")
        shutil.rmtree(self.folder(name), ignore_errors=True)


def compare(undisturbed: Path, disturbed: Path) -> Json:
    """How two final checkpoints differ, as recovery_compare tells it."""
    # A process of its own: torch's memory is not for the time of the measurement.
    argv = [sys.executable, "-m", "benchmarks.recovery_compare", str(undisturbed), str(disturbed)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))
