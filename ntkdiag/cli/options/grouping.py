"""Groups of options: a parameter that is a dataclass becomes one option for each field."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from ntkdiag.errors import InputError


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter that is a dataclass by the fields of that dataclass.

    Args:
        function: A command. Its dataclass parameters have fields annotated with `typer.Option`, and a TITLE, under
            which `--help` lists them.

    Returns:
        The same command in the form that typer reads: without groups, all parameters by keyword.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            flat += _fields(groups[parameter.name])
        else:
            flat.append(_keyword(parameter.name, hints[parameter.name], parameter.default))

    @functools.wraps(function)
    def command(**given: Any) -> None:
        for name, group in groups.items():
            own = [field.name for field in dataclasses.fields(group)]
            given[name] = group(**{key: given.pop(key) for key in own})  # type: ignore[operator]
        function(**given)

    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command


def refuse_given(groups: Iterable[Any], beside: str, allowed: tuple[str, ...] = ()) -> None:
    """Refuse options that would be ignored without a word.

    Args:
        groups: Instances of option dataclasses, as typer filled them.
        beside: Why they would have no effect, for the message: "beside --resume, which ...".
        allowed: Names of fields that do have an effect.

    Raises:
        InputError: naming the first option that differs from its default.
    """
    for group in groups:
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if field.name not in allowed and value != field.default:
                raise InputError(f"--{field.name.replace('_', '-')}", expected=f"nothing {beside}", got=value)


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        _keyword(field.name, _under_title(hints[field.name], group.TITLE), field.default)
        for field in dataclasses.fields(group)
    ]


def _under_title(annotation: Any, title: str) -> Any:
    """The annotation of an option, with the title under which help lists it."""
    kind, option = typing.get_args(annotation)
    option = copy.copy(option)
    option.rich_help_panel = title
    return Annotated[kind, option]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
