"""From a preset and the options beside it to a recipe, and from a recipe to the preset that describes it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.inputs.option_recipe import recipe_of
from ntkdiag.cli.inputs.recipe import Recipe
from ntkdiag.cli.options.choices import MODELS
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.cli.options.shared import ModelOptions
    from ntkdiag.train import Preset, TrainConfig


def preset_recipe(options: ModelOptions, preset: Preset) -> Recipe:
    """The recipe of the options, with what the preset says where the user said nothing.

    What belongs together is replaced together: another network has none of the preset's options, other data none of how its
    data is read, another schedule none of its options, and a function's network its own process.

    Raises:
        InputError: no data, or that of `recipe_of`.
    """
    from ntkdiag.train.presets.preset import Network

    if options.data is None and preset.data.name is None and preset.network is not None:
        raise InputError("--data", expected="your data, since the preset names none", got="nothing")
    network = preset.network or Network(name="")
    own = recipe_of(
        replace(
            options,
            model=options.model or network.name or None,
            data=options.data or preset.data.name,
            seed=options.seed or preset.training.get("seed", 0),
        )
    )
    if options.model in (None, network.name):
        own = replace(own, model_options=network.options | own.model_options)
    if options.data is None or preset.data.name is None:
        own = replace(own, data_options=_data_options(preset) | own.data_options)
    if options.model in (None, network.name, *MODELS):
        own = _with_process(own, preset)
    return own


def _data_options(preset: Preset) -> dict[str, Any]:
    """How the preset's data is read, with absolute paths."""
    given = preset.data.model_dump(exclude={"name"}, exclude_none=True)
    if "labels" in given:
        given["labels"] = str(Path(given["labels"]).resolve())
    cond = given.pop("cond")
    return given | (
        {"cond": {name: str(Path(path).resolve()) for name, path in cond.items()}} if cond else {}
    )


def _with_process(own: Recipe, preset: Preset) -> Recipe:
    process = preset.process
    if own.schedule in (None, process.schedule):
        settings = process.schedule_options | own.schedule_options
        own = replace(own, schedule=process.schedule, schedule_options=settings)
    return replace(own, target=own.target or process.target, call=own.call or process.call)


def as_preset(recipe: Recipe, weights: str, config: TrainConfig) -> Preset:
    """Everything that a run is made of, with nothing left to a default."""
    from ntkdiag.train import Preset

    known = recipe.model in MODELS
    return Preset.model_validate(
        {
            "weights": weights,
            "network": {"name": recipe.model, "options": recipe.model_options},
            "data": {"name": recipe.data, **recipe.data_options},
            "process": {
                "schedule": recipe.schedule or ("cosine" if known else None),
                "schedule_options": recipe.schedule_options,
                "target": recipe.target or ("v" if known else None),
                "call": recipe.call or ("log_snr" if known else None),
            },
            "training": asdict(config),
        }
    )
