"""An untrained network of `ntkdiag train` with its data, as the studies of training begin with."""

from __future__ import annotations

from typing import Any

from ntkdiag.cli.inputs.loading import LoadedModel, load_recipe
from ntkdiag.cli.inputs.recipe import Recipe


def fresh_network(
    model: str, options: dict[str, Any], data: str, target: str, seed: int = 0, schedule: str = "cosine"
) -> LoadedModel:
    """A reference network that predicts `target`, with the initial weights of a seed, and a data set by name."""
    recipe = Recipe(
        model, dict(options), data=data, schedule=schedule, target=target, call="log_snr", seed=seed
    )
    return load_recipe(recipe, None, "cpu")
