"""How fast a job comes back, and how much of its work it does again: from a disturbance to the
first step of the next attempt, and to the first step that had not been done before.

    python -m benchmarks.recovery --only rank pod pod-spare --trials 100 --json recovery.json
    python -m benchmarks.recovery --only launcher-kill launcher-term fork-server --trials 30
    python -m benchmarks.recovery --only rank --program own --trials 50 --peer torchrun

The reference job trains BN-Inception on 4,000 PNG files with loader workers and the checkpoints
that a job has by default (manifests/samples/bninception-digits-folder.yaml), in two pods or four on
the local cluster, which is brought up and removed. Each kind of disturbance has a job of its own,
which is hurt again and again, each time after some new steps, and then runs to its end: there the
samples must be those of all steps once, and parameters and optimizer are compared bit by bit with
those of a job that nobody disturbed.

Moments are of one machine's clock: watches of the API server, and the heartbeats of the ranks, read
a hundred times a second. With --program own the job runs a plain DDP program in the place of the
trainer (benchmarks/recovery_program.py), and with --peer torchrun the same program runs without
any cluster, its ranks killed under torchrun's own restarts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.recovery_cluster import ClusterTraining
from benchmarks.recovery_jobs import ROOT, NotExactError, ReferenceJobs, compare
from benchmarks.recovery_kinds import KINDS, Kind
from benchmarks.recovery_report import document, table
from benchmarks.recovery_torchrun import TorchrunTraining
from benchmarks.recovery_trials import DidNotComeError, Plan, Result
from localcluster.cluster import Cluster
from localcluster.model import ClusterSpec
from node_jobs import Jobs, install

UNDISTURBED = "undisturbed"
IMAGES = ROOT / "benchmarks" / "data" / "digits_folder.py"


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@dataclass
class Benchmark:
    """The kinds to measure, one after the other."""

    options: argparse.Namespace
    plan: Plan
    results: list[Result] = field(default_factory=list)
    undisturbed_step_seconds: float = 0.0

    def run_on_cluster(self) -> None:
        """Measure all kinds on jobs of a cluster of their own."""
        options = self.options
        with Cluster.up(ClusterSpec(name=f"recovery-{os.getpid()}"), say) as cluster:
            install(cluster, say)
            reference = ReferenceJobs(
                Jobs(cluster, "default"),
                options.pods,
                # One length for all, so that one undisturbed job serves them.
                self.plan.steps(spare=any(KINDS[kind].spare for kind in options.only)),
                own=options.program == "own",
                overlay=options.spec,
            )
            reference.write_images()
            if options.compare and options.to_the_end:
                self._undisturbed(reference)
            for kind in options.only:
                self._kind(reference, kind)

    def _undisturbed(self, reference: ReferenceJobs) -> None:
        say(f"{reference.steps} steps that nobody disturbs")
        reference.apply(UNDISTURBED)
        with ClusterTraining(reference, UNDISTURBED, spare=False, say=say) as training:
            training.wait_succeeded()
            self.undisturbed_step_seconds = training.book.step_seconds()
        say(f"a step takes {self.undisturbed_step_seconds:.3f} s")
        if not reference.own:
            reference.check_samples(UNDISTURBED)

    def _kind(self, reference: ReferenceJobs, name: str) -> None:
        kind = KINDS[name]
        policy = dict(kind.failure_policy)
        if self.options.deadline:
            policy["progressDeadlineSeconds"] = self.options.deadline
        reference.apply(name, spare=kind.spare, **policy)
        with ClusterTraining(reference, name, spare=kind.spare, say=say) as training:
            result = self._disturb(training, name, kind)
        ended = result.failure is None and self.options.to_the_end
        if ended and not reference.own:
            # A program of one's own counts no samples; its parameters tell.
            result.samples_exact = self._has_all_samples(reference, name)
        if ended and self.options.compare:
            result.differences = compare(
                reference.final_checkpoint(UNDISTURBED), reference.final_checkpoint(name)
            )
        self._show(result)
        reference.remove(name)

    def _disturb(self, training: ClusterTraining, name: str, kind: Kind) -> Result:
        """All trials, then the rest of the training; what was measured until a failure counts."""
        result = Result(kind.title, name, training.trials)
        try:
            training.run_trials(name, self.plan, relief="rank" if kind.relieved else None)
            if self.options.to_the_end:
                training.wait_succeeded()
        except (DidNotComeError, TimeoutError) as error:
            # The other kinds have jobs of their own.
            say(str(error))
            result.failure = str(error).partition("\n")[0]
        result.step_seconds = training.book.step_seconds()
        return result

    def _has_all_samples(self, reference: ReferenceJobs, name: str) -> bool:
        try:
            reference.check_samples(name)
        except NotExactError as error:
            say(str(error))
            return False
        return True

    def run_torchrun(self) -> None:
        """Kill ranks under torchrun alone."""
        with tempfile.TemporaryDirectory(prefix="recovery-") as scratch:
            folder = Path(scratch)
            subprocess.run([sys.executable, str(IMAGES), str(folder / "digits")], check=True)
            with self._torchrun(folder, "disturbed") as training:
                training.run_trials("rank", self.plan)
                if self.options.to_the_end:
                    training.wait_succeeded()
            result = Result("SIGKILL of a rank, torchrun alone", "torchrun", training.trials)
            result.step_seconds = training.book.step_seconds()
            if self.options.compare and self.options.to_the_end:
                with self._torchrun(folder, UNDISTURBED) as undisturbed:
                    undisturbed.wait_succeeded()
                result.differences = compare(
                    undisturbed.final_checkpoint(), training.final_checkpoint()
                )
            self._show(result)

    def _torchrun(self, folder: Path, name: str) -> TorchrunTraining:
        steps = self.plan.steps()
        return TorchrunTraining(folder / name, folder / "digits", self.options.pods, steps, say)

    def _show(self, result: Result) -> None:
        """Print what there is after every kind: a later one may fail."""
        self.results.append(result)
        print(table(self.results), flush=True)
        if self.options.json:
            options = {name: str(value) for name, value in vars(self.options).items()}
            content = document(self.results, options, self.undisturbed_step_seconds)
            self.options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        choices=KINDS,
        nargs="+",
        default=None,
        metavar="KIND",
        help=f"of {', '.join(KINDS)}; all, or with --peer none",
    )
    parser.add_argument("--trials", type=int, default=10, help="of each kind")
    parser.add_argument("--pods", type=int, choices=(2, 4), default=2)
    parser.add_argument("--program", choices=("trainer", "own"), default="trainer")
    parser.add_argument("--peer", choices=("torchrun",), help="rank kills without a cluster, too")
    parser.add_argument("--between", type=int, default=10, help="mean number of new steps between")
    parser.add_argument("--seed", type=int, default=1, help="of the numbers of steps between")
    parser.add_argument("--patience", type=float, default=300, help="seconds for one recovery")
    parser.add_argument("--deadline", type=int, help="failurePolicy.progressDeadlineSeconds")
    parser.add_argument(
        "--spec", type=json.loads, default={}, help="JSON that is merged into the spec of all jobs"
    )
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument(
        "--no-compare", dest="compare", action="store_false", help="no undisturbed run"
    )
    parser.add_argument(
        "--no-end",
        dest="to_the_end",
        action="store_false",
        help="times alone: a job is removed after its last trial, and nothing said of its samples",
    )
    options = parser.parse_args()
    if options.only is None:
        options.only = [] if options.peer else list(KINDS)
    return options


def main() -> int:
    # As an exception, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = parse()
    plan = Plan.drawn(options.trials, options.between, options.seed, options.patience)
    benchmark = Benchmark(options, plan)
    if options.only:
        benchmark.run_on_cluster()
    if options.peer:
        benchmark.run_torchrun()
    return 0 if all(result.is_well for result in benchmark.results) else 1


if __name__ == "__main__":
    sys.exit(main())
