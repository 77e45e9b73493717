"""All commands, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from inception_operator.client.errors import INTERRUPTED, USAGE, ClientError, did_you_mean
from inception_operator.client.text import clean, program

from . import (
    checkpoints,
    compare,
    debug,
    doctor,
    explain,
    init,
    listing,
    local,
    logs,
    others,
    preflight,
    recipes,
    steering,
    submit,
    waiting,
)
from .completion import completion, for_kubectl
from .terminal import is_coloured


class _Group(click.Group):
    """Names the nearest command when there is none of a name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if not ctx.resilient_parsing and name not in self.commands and not name.startswith("-"):
            nearest = did_you_mean(name, self.commands)
            raise click.UsageError(f"there is no command {name}{f'; {nearest}' if nearest else ''}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
def root() -> None:
    """Train image classifiers on a Kubernetes cluster: jobs of the kind InceptionTraining.

    docs/cli.md shows the commands by task, and has the table of exit codes.
    """


for _command in (
    submit.run,
    init.init,
    listing.list_jobs,
    listing.get,
    listing.describe,
    logs.logs,
    preflight.preflight,
    checkpoints.checkpoints,
    compare.compare,
    waiting.wait,
    waiting.watch,
    waiting.top,
    steering.suspend,
    steering.resume,
    steering.restart,
    steering.scale,
    steering.cancel,
    steering.delete,
    recipes.recipes,
    explain.explain,
    debug.debug,
    doctor.doctor,
    doctor.version,
    others.convert,
    others.report,
    local.local,
    completion,
):
    root.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments, program())
    except click.ClickException as error:
        error.show()
        return USAGE
    except ClientError as error:
        return _fail(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has seen enough, as `head` has; Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # What a command returns is nothing, or the code that it has ended itself with.
    return code if isinstance(code, int) else 0


def _run(arguments: list[str], name: str) -> Any:
    complete = "_INCEPTIONCTL_COMPLETE"
    if complete in os.environ:
        # With it set click answers the shell and ends the process.
        return root.main(arguments, prog_name=name, complete_var=complete)
    return root.main(arguments, prog_name=name, standalone_mode=False)


def _fail(error: ClientError) -> int:
    head = click.style("error:", fg="red") if is_coloured() and sys.stderr.isatty() else "error:"
    click.echo(f"{head} {clean(error)}", err=True)
    return error.code


def complete(argv: Sequence[str] | None = None) -> int:
    """Answer kubectl what it may complete."""
    return for_kubectl(root, list(sys.argv[1:] if argv is None else argv))
