"""``completion``: what a shell completes; and what kubectl, which asks otherwise, does."""

from __future__ import annotations

import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

from .terminal import say

_VARIABLE = "_INCEPTIONCTL_COMPLETE"
# What cobra's protocol calls it: file names are no completions.
_NO_FILES = ":4"


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes it.

    \b
    source <(inceptionctl completion bash)

    kubectl (1.26 and later) completes `kubectl inception` without it: by the program
    kubectl_complete-inception, which is installed beside this one.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    say(kind(context.find_root().command, {}, "inceptionctl", _VARIABLE).source())


def for_kubectl(root: click.Command, arguments: list[str]) -> int:
    """Print what kubectl may complete the last argument to."""
    *before, incomplete = arguments or [""]
    completer = ShellComplete(root, {}, "kubectl inception", "")
    for item in completer.get_completions(before, incomplete):
        sys.stdout.write(f"{item.value}\t{item.help}\n" if item.help else f"{item.value}\n")
    sys.stdout.write(f"{_NO_FILES}\n")
    return 0
