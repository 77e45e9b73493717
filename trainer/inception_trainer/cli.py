"""The command line: a command per mode, ``data check``, ``average``, ``compare``, ``explain``,
``launch``, ``promote``, ``recipes``.

::

    python -m inception_trainer train job.yaml --set epochs=4
    torchrun --nproc-per-node 2 -m inception_trainer train job.yaml
    python -m inception_trainer train --set recipe=bninception-digits --set checkpoint.path=out
    python -m inception_trainer evaluate --set recipe=bninception-digits --set checkpoint.path=out
    python -m inception_trainer compare out other
    python -m inception_trainer data check job.yaml --json
    python -m inception_trainer explain optimizer.momentum
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .config import settings as environment
from .config.settings import Settings
from .errors import ConfigError, TrainerError, UsageError

if TYPE_CHECKING:
    from .config.training import TrainingConfig

COMMANDS = {
    "train": "train one network in this process, or as one rank under torchrun",
    "evaluate": "measure a trained network on the validation data",
    "benchmark": "measure the speed of training",
    "infer": "classify images with a trained network, or measure its latency",
    "export": "write a trained network as .pt2, ONNX, TorchScript or safetensors, and check it",
    "preflight": "try devices, network, data and the place of checkpoints, on every rank",
}


PYTORCH_BYTES = 512 * 2**20
"""More than a process takes that has imported PyTorch and does little with it."""


class _Parser(argparse.ArgumentParser):
    """Raises UsageError (exit 64) instead of ending the process with 2."""

    def error(self, message: str) -> NoReturn:
        # argparse itself would end the process with 2, which means nothing to the operator.
        raise UsageError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code or ends the process with it."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["launch"]:
        # First, because the launcher must be up at once and needs none of the trainer's packages.
        from .launcher.main import main as launch

        return launch(arguments[1:])
    try:
        # Only where they are shown: reading keys out of their classes takes a tenth of a second.
        asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)
        options = _parser(_keys() if asks_for_help else None).parse_args(arguments)
        if options.command == "recipes":
            return _recipes()
        if options.command == "explain":
            return _explain(options.key)
        if options.command == "average":
            return _average(options.files, options.output, options.allow_pickle)
        if options.command == "compare":
            return _compare(options.runs)
        if options.command == "promote":
            return _promote(options)
        if options.command == "data":
            return _check_data(options)
        return _run(options.command, options.config, options.set)
    except TrainerError as error:
        from . import entry

        # A wrong command line is for the person who typed it, not for torch elastic's error file.
        is_usage = isinstance(error, UsageError)
        entry.end(error, None if is_usage else environment.from_environment())


def _keys() -> str:
    from .config.explain import explain

    return f"keys of the configuration, in the file and after --set:\n{explain()}"


def _parser(keys: str | None = None) -> argparse.ArgumentParser:
    """``keys`` are what ``--help`` of the modes ends with."""
    parser = _Parser(
        prog="python -m inception_trainer",
        description="Train image classifiers on any accelerator.",
        epilog="`explain`, and --help of each mode, show the keys of the configuration.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=_Parser
    )
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=keys,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_configuration(command)
    _add_data_commands(commands.add_parser("data", help="look at the data without training"))
    explaining = commands.add_parser("explain", help="what a key of the configuration means")
    explaining.add_argument(
        "key",
        nargs="?",
        default="",
        metavar="KEY",
        help="a key such as optimizer.momentum, or a section such as optimizer; default: all",
    )
    commands.add_parser("launch", help="resident launcher of a pod", add_help=False)
    commands.add_parser("recipes", help="list the named presets")
    average = commands.add_parser(
        "average", help="average the weights of several checkpoints of one network"
    )
    average.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="checkpoint, state_dict or safetensors"
    )
    average.add_argument(
        "--output", required=True, type=Path, help="file to write: .pt or .safetensors"
    )
    average.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read .pt files with torch before 2.10, too, where code hidden in them may run",
    )
    promoting = commands.add_parser(
        "promote", help="keep a checkpoint for good, with its weights, as the one that serves"
    )
    promoting.add_argument("place", metavar="PLACE", help="checkpoint.path of the job, or its URL")
    promoting.add_argument(
        "checkpoint",
        nargs="?",
        metavar="STEP",
        help="number of its step, or its file; default: best.pt, else final.pt, else the newest",
    )
    promoting.add_argument("--name", metavar="NAME", help="default: step-000000120 of its step")
    promoting.add_argument(
        "--to", metavar="PLACE", help="folder or URL; default: promoted below PLACE"
    )
    comparing = commands.add_parser("compare", help="where two runs differ, and what came out")
    comparing.add_argument(
        "runs", nargs=2, type=Path, metavar="RUN", help="output or checkpoint folder of a run"
    )
    return parser


def _add_configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "config", nargs="?", type=Path, help="YAML or JSON file; default: INCEPTION_CONFIG"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key"
    )


def _add_data_commands(data: argparse.ArgumentParser) -> None:
    commands = data.add_subparsers(
        dest="data_command", required=True, metavar="command", parser_class=_Parser
    )
    checking = commands.add_parser(
        "check", help="read every image and say what is found; ends with 0 if it would train"
    )
    _add_configuration(checking)
    checking.add_argument("--json", action="store_true", help="for programs instead of people")
    checking.add_argument(
        "--processes", type=int, metavar="N", help="processes that read; default: one per CPU"
    )


def _recipes() -> int:
    from . import recipes

    for name in recipes.names():
        print(f"{name:28}{recipes.summary(name)}")
    return 0


def _explain(key: str) -> int:
    from .config.explain import explain

    print(explain(key).strip())
    return 0


def _average(files: list[Path], output: Path, allow_pickle: bool) -> int:
    environment.prepare()
    from .weights.average import write_mean

    print(write_mean(files, output, may_unpickle=allow_pickle))
    return 0


def _promote(options: argparse.Namespace) -> int:
    environment.prepare()
    from .launcher.linux import left_in_cgroup

    left = left_in_cgroup()
    if left is not None and left < PYTORCH_BYTES:
        raise ConfigError(
            f"the memory limit of this container leaves {left >> 20} MiB, and PyTorch alone takes "
            f"{PYTORCH_BYTES >> 20} MiB: not done, so that what runs here is not killed; promote "
            "the checkpoint when the training has ended"
        )
    from .checkpoint.promote import Request, promote

    request = Request(options.place, options.checkpoint, options.name, options.to)
    print(json.dumps(promote(request)))
    return 0


def _compare(runs: list[Path]) -> int:
    from .reporting.compare import compare

    print(compare(*runs))
    return 0


def _check_data(options: argparse.Namespace) -> int:
    environment.prepare()
    settings = environment.from_environment()
    config = _configuration(options.config, options.set, settings, "Train")
    from .data.check_report import run_check
    from .device.accelerator import threads_per_rank

    processes = options.processes or threads_per_rank(settings)
    return run_check(config, as_json=options.json, processes=processes)


def _run(command: str, path: Path | None, overrides: list[str]) -> int:
    from . import entry

    environment.prepare()
    settings = environment.from_environment()
    # Parsed before torch is imported, so that a wrong key is reported in a tenth of a second.
    config = _configuration(path, overrides, settings, command.capitalize())
    from torch.distributed.elastic.multiprocessing.errors import record

    record(entry.run_as_process)(config, settings)
    return 0


def _configuration(
    path: Path | None, overrides: list[str], settings: Settings, mode: str
) -> TrainingConfig:
    """The command decides the mode, so that one file serves them all."""
    from .config.training import load, load_file

    # Last, so that it wins over a --set of the mode.
    chosen = [*overrides, f"mode={mode}"]
    if path is not None:
        return load_file(path, chosen, settings.image_folder)
    if settings.config_json is None and not overrides:
        raise ConfigError("no configuration: give a file, INCEPTION_CONFIG, or --set recipe=NAME")
    return load(settings.config_json, chosen, "INCEPTION_CONFIG", settings.image_folder)
