"""The recipe that options describe: which network, which process, which data and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntkdiag.cli.inputs.own_data import SELF
from ntkdiag.cli.inputs.recipe import Recipe, require_model
from ntkdiag.cli.options import parsing
from ntkdiag.cli.options.choices import DATASETS
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.errors import InputError


def recipe_of(options: ModelOptions) -> Recipe:
    """The recipe that the options describe."""
    return Recipe(
        model=require_model(options.model),
        model_options=parsing.pairs("--model-option", options.model_option),
        schedule=options.schedule,
        schedule_options=parsing.pairs("--schedule-option", options.schedule_option),
        target=options.target,
        call=options.call,
        scheduler=None if options.scheduler is None else str(options.scheduler.resolve()),
        timesteps=options.timesteps,
        data=absolute(options.data or "digits"),
        data_options=data_options(options),
        latents=options.latents,
        seed=options.seed,
    )


def absolute(data: str) -> str:
    """The absolute path of a file or folder, so that a run can be used from anywhere; a name of a data set unchanged."""
    try:
        path = Path(data)
        return (
            str(path.resolve()) if data not in (*DATASETS, SELF) and (path.suffix or path.exists()) else data
        )
    except (OSError, ValueError, RuntimeError):  # no path that can be, which loading will say
        return data


def data_options(options: ModelOptions) -> dict[str, Any]:
    """How the data is read, as `nd.data.load` takes it."""
    found: dict[str, Any] = {"data_key": options.data_key}
    if options.labels is not None:
        found["labels"] = str(options.labels.resolve())
    if options.cond:
        named = [text.partition("=") for text in options.cond]
        for name, equals, path in named:
            if not name.isidentifier() or not equals or not path:
                raise InputError("--cond", expected="NAME=FILE.npy", got=repr(name + equals + path))
        found["cond"] = {name: str(Path(path).resolve()) for name, _, path in named}
    if options.image_size is not None:
        sides = parsing.numbers("--image-size", options.image_size)
        if not all(side.is_integer() for side in sides):
            raise InputError("--image-size", expected="whole numbers", got=repr(options.image_size))
        found["image_size"] = [int(side) for side in sides] * (1 if len(sides) > 1 else 2)
    if options.pixel_range is not None:
        found["pixel_range"] = parsing.numbers("--pixel-range", options.pixel_range)
    return {name: value for name, value in found.items() if value is not None}
