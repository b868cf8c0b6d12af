"""The list of commands; each lives in a file of its own name under `commands`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ntkdiag.cli.commands.audit import audit
from ntkdiag.cli.commands.demo import demo
from ntkdiag.cli.commands.drift import drift
from ntkdiag.cli.commands.measure import measure
from ntkdiag.cli.commands.plot import plot
from ntkdiag.cli.commands.report import report
from ntkdiag.cli.commands.sample import sample
from ntkdiag.cli.commands.train import train
from ntkdiag.cli.commands.verify import verify
from ntkdiag.cli.commands.weights import weights
from ntkdiag.cli.inputs.launched import require_shared
from ntkdiag.cli.options.debugging import with_debug
from ntkdiag.cli.options.help_text import CommandWithGroups
from ntkdiag.cli.options.remedies import remedies_as_options
from ntkdiag.cli.output.messages import say

# What the overview says of each, in the order in which a newcomer needs them.
COMMANDS: dict[Callable[..., None], str] = {
    demo: "Train, measure and reweight a small network on handwritten digits.",
    measure: "Measure a network's tangent kernel per log-SNR bucket.",
    weights: "Make a table of loss weights over log-SNR.",
    audit: "Find out which rule a weight function is, and its mistakes.",
    verify: "Say whether a kernel collapses, where, and if training did it.",
    train: "Train a network under loss weights.",
    sample: "Draw samples from a network and compare them with data.",
    drift: "Say how a kernel changed in training, and how far to trust it.",
    plot: "Draw one figure of a diagnosis.",
    report: "Write a diagnosis as one HTML page.",
}


def command_line() -> Any:
    """The whole command line, a group of click's."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(_root)
    for function, short in COMMANDS.items():
        command = with_debug(remedies_as_options(function))
        app.command(function.__name__, cls=CommandWithGroups, short_help=short)(command)
    return typer.main.get_command(app)


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """At which noise levels can a diffusion network still learn, and how should training effort be spent there?

    Start with 'ntkdiag demo', then 'ntkdiag measure' on a network of your own.
    """
    require_shared(context.invoked_subcommand)
    if version:
        from importlib import metadata

        say(f"ntkdiag {metadata.version('ntkdiag')}")
    elif context.invoked_subcommand is None:
        say(context.get_help())
