"""All commands, and what becomes of their errors.

A command is imported when it runs: kubectl asks for completions at every press of Tab.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from inception_operator.client.errors import INTERRUPTED, USAGE, ClientError, did_you_mean
from inception_operator.client.text import clean, program

from .terminal import is_coloured, silence

COMMANDS: Final = {
    "cancel": ("steering", "End jobs for good, and keep them and their logs."),
    "checkpoints": ("checkpoints", "List the checkpoints of a job, copy or promote one."),
    "compare": ("compare", "Compare jobs: their figures, and where their specs differ."),
    "completion": ("completion", "Print the script by which a shell completes it."),
    "convert": ("others", "Make jobs of those of other operators."),
    "debug": ("debug", "Collect all about a job in one archive."),
    "delete": ("steering", "Delete jobs and their pods."),
    "describe": ("listing", "Show all about a job on one page."),
    "doctor": ("doctor", "Check the cluster, the API, your rights, the operator."),
    "explain": ("explain", "Explain a field of a job."),
    "get": ("listing", "Show jobs as rows of the list, or whole with -o yaml."),
    "init": ("init", "Write a job into a file, with comments."),
    "list": ("listing", "List the jobs of a namespace, or of all."),
    "local": ("local", "Run jobs on this machine, without Kubernetes."),
    "logs": ("logs", "Print the logs of all pods of a job."),
    "preflight": ("preflight", "Try devices, network, data and checkpoints of a job."),
    "recipes": ("recipes", "List the recipes, or show all keys of one."),
    "report": ("others", "Make a page of HTML of a job."),
    "restart": ("steering", "Give a job new pods."),
    "resume": ("steering", "Go on with suspended jobs from where they were."),
    "run": ("submit", "Start a job."),
    "scale": ("steering", "Give a job another number of nodes."),
    "suspend": ("steering", "Save the state of jobs and free their nodes."),
    "top": ("waiting", "Show the jobs that go on, again and again."),
    "version": ("doctor", "Say the versions, and whether they fit."),
    "wait": ("waiting", "Wait for a job; the exit code is the job's."),
    "watch": ("waiting", "Show the progress of a job until it ends."),
}
"""Of each command its module and the first line of its help."""


class _Group(click.Group):
    """Imports the command that runs, and names the nearest when there is none of a name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        (found,) = (
            each
            for each in vars(module).values()
            if isinstance(each, click.Command) and each.name == cmd_name
        )
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if not ctx.resilient_parsing and name not in COMMANDS and not name.startswith("-"):
            nearest = did_you_mean(name, COMMANDS)
            raise click.UsageError(f"there is no command {name}{f'; {nearest}' if nearest else ''}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
def root() -> None:
    """Train image classifiers on a Kubernetes cluster: jobs of the kind InceptionTraining.

    docs/cli.md shows the commands by task, and has the table of exit codes.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's locale does not have, such as the … of a text, is no error.
            stream.reconfigure(errors="replace")
    try:
        code = _ended(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough, as `head` has; Python would complain at its end.
        for stream in (sys.stdout, sys.stderr):
            silence(stream)
        return 0
    return code


def _ended(arguments: list[str]) -> int:
    try:
        code = _run(arguments, program())
    except click.ClickException as error:
        error.show()
        return USAGE
    except ClientError as error:
        return _fail(error)
    except (click.Abort, KeyboardInterrupt):
        # Below the ^C.
        click.echo(err=True)
        return INTERRUPTED
    # What a command returns is nothing, or the code that it has ended itself with.
    return code if isinstance(code, int) else 0


def _run(arguments: list[str], name: str) -> Any:
    complete = "_INCEPTIONCTL_COMPLETE"
    if complete in os.environ:
        # With it set click answers the shell and ends the process.
        return root.main(arguments, prog_name=name, complete_var=complete)
    # Not by root.main, to which a reader that has seen enough is a failure.
    try:
        with root.make_context(name, arguments) as context:
            return root.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code


def _fail(error: ClientError) -> int:
    head = click.style("error:", fg="red") if is_coloured() and sys.stderr.isatty() else "error:"
    click.echo(f"{head} {clean(error)}", err=True)
    return error.code


def complete(argv: Sequence[str] | None = None) -> int:
    """Answer kubectl what it may complete."""
    from .completion import for_kubectl

    return for_kubectl(root, list(sys.argv[1:] if argv is None else argv))
