"""The remedy of an error, with the arguments it names spelled as options of the command that runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any

from ntkdiag.cli.output.json_document import stdout_for_document
from ntkdiag.errors import InputError, as_keyword

# Arguments that are typed as NAME=VALUE after the option of another name.
_IN_OPTION = {"classes": "model_option", "convention": "option", "keep_every": "setting"}


def remedies_as_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with remedies that speak of its options: "--clip" where the library says "clip="."""
    names = inspect.signature(command).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            with stdout_for_document() if given.get("json") else nullcontext():
                command(**given)
        except InputError as error:
            error.args = (error.message(lambda name, value: spelled(name, value, names)),)
            raise

    return run


def parameter_of(argument: str) -> str:
    """The parameter of a command that takes an argument of the library."""
    return _IN_OPTION.get(argument, argument)


def spelled(argument: str, value: object, parameters: Collection[str]) -> str:
    """An argument as it is typed.

    Args:
        argument: Its name in the library.
        value: What to give it, as written in Python; None for any value.
        parameters: What the command takes. An argument that is not among them keeps its spelling in Python.
    """
    parameter = parameter_of(argument)
    if parameter not in parameters:
        return as_keyword(argument, value)
    dashed = parameter.replace("_", "-")
    if value is False:
        return f"--no-{dashed}"
    option = f"--{dashed}"
    text = None if value is None or value is True else _typed(str(value))
    if parameter != argument:
        return f"{option} {as_keyword(argument, text)}"
    return option if text is None else f"{option} {text}"


def _typed(value: str) -> str:
    """A value without Python's quotation marks; of a schedule, its name."""
    return value.strip("'").removeprefix("ntkdiag.schedules.").removesuffix("()")
