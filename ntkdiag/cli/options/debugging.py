"""Errors in a user's own code, such as the forward of a network: one line, and with --debug the traceback."""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
import traceback
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ntkdiag.errors import InputError, NtkdiagError, files_of, first_line

Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback of an error, such as one that a network of yours raises."
    ),
]
_PACKAGE = Path(__file__).resolve().parents[2]
_MODULE_CALL = ("torch", "nn", "modules", "module.py")
_HINT = "--debug shows where."


def with_debug(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option --debug, and with errors of the user's code as bad input.

    Any other error of Python is a fault of this package, and leaves the command as it is.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
    ]
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)

    @functools.wraps(command)
    def run(debug: bool = False, **given: Any) -> None:
        try:
            command(**given)
        except (
            Exception,
            SystemExit,
        ) as error:  # code that leaves Python would end the command without a word
            theirs = raised_by_user(error)
            if debug and (theirs or isinstance(error, NtkdiagError)):
                traceback.print_exception(error, file=sys.stderr)
            if not theirs:
                raise
            hint = "" if debug else _HINT
            if isinstance(error, NtkdiagError):
                error.args = (f"{error} {hint}".rstrip(),)
                raise
            raise InputError(
                "the network, or another function that was given",
                expected="code that runs",
                got=first_line(error),
                fix=hint or None,
            ) from error

    run.__signature__ = inspect.Signature([*parameters, option])  # type: ignore[attr-defined]
    run.__annotations__ = {**hints, "debug": Debug}
    return run


def raised_by_user(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, comes from the user's code.

    That is code of files that belong neither to this package nor to the installation of Python, or a module of any
    library that this package called.
    """
    while not isinstance(error, OSError):  # which says the file, and needs no traceback
        files = [Path(file) for file in files_of(error)]
        own = [place for place, file in enumerate(files) if file.is_relative_to(_PACKAGE)]
        inside = files[own[0] :] if own else []
        called = files[own[-1] + 1 :] if own else []
        if any(_is_elsewhere(file) for file in inside) or any(_is_module_call(file) for file in called):
            return True
        if error.__cause__ is None:
            break
        error = error.__cause__
    return False


def _is_elsewhere(file: Path) -> bool:
    return not (
        file.name.startswith("<")
        or file.is_relative_to(_PACKAGE)
        or any(file.is_relative_to(folder) for folder in _installed())
    )


def _is_module_call(file: Path) -> bool:
    return file.parts[-len(_MODULE_CALL) :] == _MODULE_CALL


def _installed() -> Iterator[str]:
    """Folders of Python and of what is installed for it."""
    paths = sysconfig.get_paths()
    return (paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
