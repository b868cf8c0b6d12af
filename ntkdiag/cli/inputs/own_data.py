"""`--data self`: samples that the network draws itself, where its data is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.inputs.recipe import Recipe
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.data import Data
    from ntkdiag.denoiser import Denoiser

SELF = "self"
_FILES = ("labels", "cond")


def own_shape(recipe: Recipe, stated: list[int] | None, samples: int | None) -> tuple[int, ...]:
    """Shape of a sample of the network, from what is known of it without data.

    Args:
        recipe: How it is built; data_options may be files of labels and conditions.
        stated: What a training folder says.
        samples: How many will be measured; 0 or None for a command that needs real data.

    Raises:
        InputError: the shape is not known, or data_options that need data.
    """
    if not samples:
        raise InputError(
            f"--data {SELF}", expected="data, for all but measure and verify", got="the network itself"
        )
    for name in recipe.data_options:
        if name not in _FILES:
            raise InputError(
                "--" + name.replace("_", "-"), expected=f"nothing beside --data {SELF}", got="given"
            )
    found = _of_folder(recipe) if recipe.is_folder else stated
    if not found:
        raise InputError(
            f"--data {SELF}",
            expected="a trained network whose samples have a known shape, in a folder of 'ntkdiag train' or save_pretrained",
            got=recipe.model,
            fix="In Python ntkdiag.train.own_samples(denoiser, count, shape) draws them.",
        )
    return tuple(found)


def own_data(denoiser: Denoiser, recipe: Recipe, shape: tuple[int, ...], samples: int, seed: int) -> Data:
    """Samples of the network: one for each row of --labels and --cond; without these `samples` of them under no condition.

    Raises:
        InputError: rows that do not fit the network, or none where nothing stands for no condition.
    """
    from ntkdiag.train import own_samples

    options = recipe.data_options
    if not options:
        missing = [name for name in denoiser.conditions if name not in denoiser.null]
        if missing:
            label = missing[0] == "label"
            raise InputError(
                f"--data {SELF}",
                expected=f"what to draw under, since nothing stands for no {missing[0]}",
                got="no labels" if label else "no conditions",
                fix="Give {labels}." if label else "Give {cond}.",
                arguments={"labels" if label else "cond": None},
            )
        return own_samples(denoiser, samples, shape, seed=seed)
    cond = denoiser.conditions_from(_rows(options))
    count = len(next(iter(cond.values())))
    return own_samples(denoiser, count, shape, seed=seed, cond=cond)


def _rows(options: dict[str, Any]) -> Any:
    """Conditions in files, [N, ...] by name."""
    import torch

    from ntkdiag.data import as_data
    from ntkdiag.data.files import mapped_npy

    files = [options["labels"]] if "labels" in options else []
    first = mapped_npy(Path([*files, *options.get("cond", {}).values()][0]))
    blank = torch.zeros(len(first), 1)
    return as_data(blank, labels=options.get("labels"), cond=options.get("cond")).conditions


def _of_folder(recipe: Recipe) -> list[int] | None:
    """Channels and sides, as a model's config says them."""
    from ntkdiag.adapters.diffusers import Folder

    config = Folder.find(recipe.model, recipe.scheduler).model_config()
    channels, sides = config.get("in_channels"), config.get("sample_size")
    both = sides if isinstance(sides, list) else [sides, sides]
    found = [channels, *both]
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in found)
    return found if whole else None
