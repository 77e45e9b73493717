"""Prints which modules a rank imports after the launcher's fork server has forked it, up to its
first step: what each attempt pays anew.

    python late_imports.py '{"name": {configuration}, …}'

Prints a JSON object of lists by the same names.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

from inception_trainer import preload
from inception_trainer.launcher import forkserver


class FirstStepError(BaseException):
    """Ends the training when its first step is done."""


def main() -> None:
    configurations: dict[str, dict[str, Any]] = json.loads(sys.argv[1])
    os.environ["INCEPTION_CONFIG"] = ""
    forkserver.warm_up(None)
    found: dict[str, list[str]] = {}
    for name, configuration in configurations.items():
        os.environ["INCEPTION_CONFIG"] = json.dumps(configuration)
        found[name] = _in_a_fork()
    print(json.dumps(found))


def _in_a_fork() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer")
        process = os.fork()
        if process == 0:
            _train(answer)
        os.waitpid(process, 0)
        late: list[str] = json.loads(answer.read_text(encoding="utf-8"))
        return late


def _train(answer: Path) -> NoReturn:
    # What the fork server would have imported, here instead: the next job must not have it.
    forkserver.preload(preload.modules())
    from inception_trainer.entry import train
    from inception_trainer.train.loop import Trainer

    os.dup2(2, 1)
    before = set(sys.modules)
    step = Trainer._step

    def first_step(trainer: Trainer) -> None:
        step(trainer)
        raise FirstStepError

    Trainer._step = first_step  # type: ignore[method-assign]
    try:
        train()
    except FirstStepError:
        answer.write_text(json.dumps(sorted(set(sys.modules) - before)), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
