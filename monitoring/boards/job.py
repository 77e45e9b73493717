"""One job: how far and how good it is, where its time goes, and what its pods do."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.boards.parts import (
    JOB_LEGEND,
    TRAINING_LEGEND,
    About,
    Panel,
    Query,
    bars,
    board,
    figure,
    filled,
    firing,
    graph,
    spread,
    state_figure,
    states,
    table,
)
from monitoring.boards.queries import (
    OF_JOB,
    OF_TRAINING,
    growth,
    job,
    per,
    rate,
    trainer,
)


def training_job() -> Dashboard:
    """The dashboard that links from the list of jobs lead to."""
    made = board(
        "inception-job",
        "Inception: job",
        "Progress, accuracy, speed, restarts, checkpoints and goodput of the chosen jobs.",
        ["namespace", "job"],
    )
    sections = {
        "": [*_now(), states(), *_life()],
        "Training": _training(),
        "Steps": _steps(),
        "Checkpoints": _checkpoints(),
        "Pods": _pods(),
    }
    return filled(made, sections)


def of_training(title: str, description: str, unit: str, operation: str, series: str) -> Panel:
    """Curves of a figure that is the same in all pods of a job."""
    query = Query(per(operation, OF_TRAINING, trainer(series)), TRAINING_LEGEND)
    return graph(About(title, description, unit), query)


def _now() -> list[Panel]:
    def latest(title: str, description: str, unit: str, series: str) -> Panel:
        query = Query(per("max", OF_JOB, series), JOB_LEGEND)
        return figure(About(title, description, unit), query)

    top1 = job("accuracy_ratio", 'k="1"')
    goodput = "Share of the time, without that of suspension, that went into steps not done before."
    return [
        state_figure(),
        bars(
            About(
                "Progress", "Share of the steps that are done. Stays after the end.", "percentunit"
            ),
            Query(per("max", OF_JOB, job("progress_ratio")), JOB_LEGEND),
            width=4,
        ),
        latest("Accuracy", "Latest top-1 accuracy on the validation data.", "percentunit", top1),
        latest("Goodput", goodput, "percentunit", job("goodput_ratio")),
        latest(
            "Speed",
            "Training samples per second over all ranks; none once the job has ended.",
            "short",
            job("samples_per_second"),
        ),
        figure(
            About("Restarts", "Restarts so far, whether they count towards the limit or not."),
            Query(per("sum", OF_JOB, job("restarts")), JOB_LEGEND),
        ),
    ]


def _life() -> list[Panel]:
    by_cause = per("sum", (*OF_JOB, "cause"), growth(job("goodput_seconds_total")))
    return [
        graph(
            About(
                "Time by cause",
                "Seconds in each step of the graph, by what they went to (docs/goodput.md).",
                "s",
            ),
            Query(by_cause, "{{namespace}}/{{name}} {{cause}}"),
            width=12,
            stacked=True,
        ),
        graph(
            About(
                "Restarts over time",
                "Restarts so far: those that count towards failurePolicy.maxRestarts, and others.",
            ),
            Query(
                per("max", (*OF_JOB, "counted"), job("restarts")),
                "{{namespace}}/{{name}} counted: {{counted}}",
            ),
            width=12,
        ),
        firing('namespace=~"$namespace"', 'training=~"$job"'),
    ]


def _training() -> list[Panel]:
    accuracy = per("max", (*OF_TRAINING, "split"), trainer("accuracy_ratio", 'k="1"'))
    return [
        graph(
            About(
                "Top-1 accuracy",
                "Share of samples whose most likely class is right, on the validation data and on "
                "the training data of the last log interval.",
                "percentunit",
            ),
            Query(accuracy, TRAINING_LEGEND + " {{split}}"),
        ),
        of_training("Loss", "Training loss of the last log interval.", "short", "avg", "loss"),
        of_training("Learning rate", "That of the present step.", "sci", "max", "learning_rate"),
        of_training(
            "Samples per second",
            "Training samples over all ranks of a job.",
            "short",
            "max",
            "samples_per_second",
        ),
        of_training(
            "Time left",
            "How long the rest of the training takes at the present speed.",
            "s",
            "max",
            "estimated_remaining_seconds",
        ),
        of_training(
            "Samples seen",
            "Training samples consumed over all epochs, exact over restarts.",
            "short",
            "max",
            "samples_seen",
        ),
    ]


def _steps() -> list[Panel]:
    seconds = "step_duration_seconds_sum"
    waiting = per("sum", OF_TRAINING, rate(trainer(seconds, 'part="data"')))
    all_time = per("sum", OF_TRAINING, rate(trainer(seconds)))
    last = per("max", OF_TRAINING, f"{trainer('last_step_timestamp_seconds')} > 0")
    return [
        spread(
            "Step time",
            "How long the first rank of each pod computes in a step.",
            rate(trainer("step_duration_seconds_bucket", 'part="compute"')),
            OF_TRAINING,
        ),
        graph(
            About(
                "Share of time spent on data",
                "Part of the step time in which ranks wait for samples. Near 1 means that loading "
                "is the bottleneck.",
                "percentunit",
            ),
            Query(f"{waiting} / {all_time}", TRAINING_LEGEND),
        ),
        graph(
            About(
                "Time since the last step",
                "Grows while no step ends: at a start, in an evaluation, and when the job hangs.",
                "s",
            ),
            Query(f"time() - {last}", TRAINING_LEGEND),
        ),
        of_training(
            "Repeated steps",
            "Steps that restarts of the job had to do again, over all attempts.",
            "short",
            "max",
            "repeated_steps_total",
        ),
        of_training(
            "Skipped steps",
            "Steps whose FP16 gradients overflowed.",
            "short",
            "max",
            "skipped_steps",
        ),
        of_training(
            "Skipped samples",
            "Samples that could not be read, over all attempts.",
            "short",
            "max",
            "skipped_samples",
        ),
    ]


def _checkpoints() -> list[Panel]:
    saved = f"{trainer('checkpoint_last_success_timestamp_seconds')} > 0"
    stalled = per("max", OF_TRAINING, rate(trainer("checkpoint_stall_seconds_total")))
    return [
        graph(
            About("Age of the latest checkpoint", "Work that a failure would cost now.", "s"),
            Query(f"time() - {per('max', OF_TRAINING, saved)}", TRAINING_LEGEND),
        ),
        spread(
            "Time to save",
            "From the request of a checkpoint until it is complete.",
            growth(trainer("checkpoint_duration_seconds_bucket")),
            OF_TRAINING,
        ),
        graph(
            About(
                "Standstill for checkpoints",
                "Share of the time in which training stands still for a checkpoint.",
                "percentunit",
            ),
            Query(stalled, TRAINING_LEGEND),
        ),
        of_training(
            "Size of the latest checkpoint", "Bytes of it.", "bytes", "max", "checkpoint_size_bytes"
        ),
        of_training(
            "Failed checkpoints",
            "Checkpoints that could not be written; training goes on.",
            "short",
            "max",
            "checkpoint_failures_total",
        ),
        of_training(
            "Steps in the memory copy",
            "Step of the last copy of the state in the memory of the pods; 0 without one.",
            "short",
            "max",
            "memory_snapshot_step",
        ),
    ]


def _pods() -> list[Panel]:
    return [
        table(
            About("Pods and nodes", "The pods that each job has now, and where they run."),
            [("", per("max", (*OF_JOB, "slot", "pod", "node"), job("pod_info")))],
            width=12,
        ),
        graph(
            About(
                "Attempt of each pod",
                "The attempt that each pod works on. It rises at every restart and resume.",
            ),
            Query(per("max", (*OF_TRAINING, "pod"), trainer("attempt")), "{{namespace}}/{{pod}}"),
            width=12,
        ),
    ]
