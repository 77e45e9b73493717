"""The process environment, read once. Nothing else in the trainer looks at ``os.environ``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inception_trainer.errors import UsageError

METRICS_OFF = 0
IMAGE_FOLDER = "IMAGENET_TRAIN_DATASET"


@dataclass(frozen=True)
class Settings:
    """Torchrun's variables, the launcher's and the user's own (docs/architecture/wire.md)."""

    config_json: str | None = None
    """The training configuration as JSON."""
    image_folder: str | None = None
    """``data.path`` of image folders whose configuration names none."""
    attempt: int | None = None
    """Attempt number from 1, the fence of the checkpoint folder; None outside the launcher."""
    stop_file: Path | None = None
    """All ranks save and end once this file exists."""
    progress_file: Path | None = None
    """Where local rank 0 leaves step and metrics for the launcher."""
    heartbeat_file: Path | None = None
    """Where this rank leaves signs of life for the launcher's watchdog."""
    other_checkpoints: str | None = None
    """Where else a job of this name may have left checkpoints: where version 0.1 kept those in
    stores, without the namespace.
    """
    metrics_port: int = METRICS_OFF
    """Where local rank 0 serves ``/metrics``; 0: nowhere."""
    job: str = ""
    """``<namespace>/<name>``, for log lines and as an owner of the checkpoint folder."""
    job_uid: str = ""
    """UID of the job: a job made anew has the same name and another UID."""
    job_created: str = ""
    """When the job was created, as Kubernetes writes it."""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    threads: int | None = None
    """OMP_NUM_THREADS, an upper limit on the threads of this rank."""
    pinned: bool = False
    """Whether the CPUs of this process are those of its rank alone; not from the environment, see
    :mod:`affinity`.
    """
    error_file: Path | None = None
    """Where torch elastic wants to read why this process failed."""
    benchmark_log: str | None = None
    """Where mode Benchmark appends its figures."""
    accuracy_log: str | None = None
    """Where modes Train and Evaluate append their accuracies."""


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; raises UsageError for a value that is no number."""
    env = os.environ if environ is None else environ
    # Without torchrun this process is rank 0 of 1; with it all four numbers are set.
    world = _number(env, "WORLD_SIZE", 1)
    return Settings(
        config_json=env.get("INCEPTION_CONFIG") or None,
        image_folder=env.get(IMAGE_FOLDER) or None,
        attempt=_number(env, "INCEPTION_ATTEMPT", 0) or None,
        stop_file=_path(env, "INCEPTION_STOP_FILE"),
        progress_file=_path(env, "INCEPTION_PROGRESS_FILE"),
        heartbeat_file=_path(env, "INCEPTION_HEARTBEAT_FILE"),
        other_checkpoints=env.get("INCEPTION_OTHER_CHECKPOINT_PATH") or None,
        metrics_port=_number(env, "INCEPTION_METRICS_PORT", METRICS_OFF),
        job=env.get("INCEPTION_JOB", ""),
        job_uid=env.get("INCEPTION_JOB_UID", ""),
        job_created=env.get("INCEPTION_JOB_CREATED", ""),
        rank=_number(env, "RANK", 0),
        world_size=world,
        local_rank=_number(env, "LOCAL_RANK", 0),
        local_world_size=_number(env, "LOCAL_WORLD_SIZE", world),
        threads=_number(env, "OMP_NUM_THREADS", 0) or None,
        error_file=_path(env, "TORCHELASTIC_ERROR_FILE"),
        benchmark_log=env.get("BENCHMARK_LOG") or None,
        accuracy_log=env.get("AVG_LOG") or None,
    )


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    # Pods set variables to an empty value where a field that they refer to is empty.
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"environment variable {name}={text!r} is not a whole number") from None


def _path(env: Mapping[str, str], name: str) -> Path | None:
    text = env.get(name, "")
    return Path(text) if text else None


def current(names: Iterable[str]) -> dict[str, str | None]:
    """The values of variables that no setting is made of: those with which vendors choose and hide
    devices.
    """
    return {name: os.environ.get(name) for name in names}


def prefer(values: Mapping[str, str]) -> None:
    """Set variables that a library reads when it is loaded; what the user has set stays."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def prepare() -> None:
    """Set what libraries read when they are loaded; call it before torch is imported.

    OpenMP threads that spin while they wait make a step ten times slower as soon as the cores are
    shared (5 s instead of 0.3 s, measured on 2 busy cores); threads that sleep cost nothing
    measurable on idle cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A plug-in that is broken would break `import torch` itself, where no error can say what to do
    # about it.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
