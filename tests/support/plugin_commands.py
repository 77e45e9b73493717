"""Commands of the plug-in, run in this process as their entry point runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from inception_operator.plugin import cli


@dataclass(frozen=True)
class Result:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output of ``-o json``."""
        return json.loads(self.out)


class Commands:
    """Runs commands in one namespace of one cluster."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        self._capsys = capsys
        self._options = options

    def run(self, command: str, *arguments: str) -> Result:
        """Run a command, whatever comes of it."""
        self._capsys.readouterr()
        code = cli.main([command, *self._options, *arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def __call__(self, command: str, *arguments: str) -> Result:
        """Run a command that succeeds."""
        result = self.run(command, *arguments)
        assert result.code == 0, result
        return result
