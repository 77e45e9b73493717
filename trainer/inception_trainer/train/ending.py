"""When a training ends before its last step: at an accuracy, or once it gets no better
(``evaluation.target``, ``evaluation.patience``).

A pure function of the progress, which all ranks share and a checkpoint holds: a resumed run ends
where an undisturbed one would.
"""

from __future__ import annotations

from inception_trainer.config.training import EvaluationConfig
from inception_trainer.reporting.progress import Progress

COMPLETED = "Completed"
"""Ended after its last step. This and the next two are an ``exitReason`` of summary.json."""
TARGET_REACHED = "TargetReached"
NO_IMPROVEMENT = "NoImprovement"


def early_end(progress: Progress, evaluation: EvaluationConfig) -> str | None:
    """Why the training ends at the step that it has done, None where it goes on.

    Only an evaluation of this step can say so.
    """
    if progress.evaluated_step != progress.step:
        return None
    if evaluation.target is not None and progress.accuracy_top1 >= evaluation.target:
        return TARGET_REACHED
    if evaluation.patience is not None and in_vain(progress) >= evaluation.patience:
        return NO_IMPROVEMENT
    return None


def in_vain(progress: Progress) -> int:
    """How many evaluations there were since the best one."""
    return sum(row[0] > progress.best_step for row in progress.history.evaluations)


def describe_end(reason: str, progress: Progress, evaluation: EvaluationConfig) -> str:
    """An early end in a line for people."""
    if reason == TARGET_REACHED:
        return (
            f"ending at step {progress.step}: top-1 {progress.accuracy_top1:.4f} reaches "
            f"evaluation.target {evaluation.target:g}"
        )
    return (
        f"ending at step {progress.step}: {in_vain(progress)} evaluations without a better top-1 "
        f"than {progress.best_accuracy:.4f} of step {progress.best_step} (evaluation.patience)"
    )
