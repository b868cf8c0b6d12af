"""What a reader of results needs to know of how a network was loaded, in lines."""

from __future__ import annotations

from ntkdiag.cli.inputs.loading import LoadedModel
from ntkdiag.cli.options.choices import MODELS


def notes_on(loaded: LoadedModel, controls_missing: bool, woken: tuple[str, ...] = ()) -> list[str]:
    """Notes on the network and its controls that a reader of the results needs."""
    notes = loading_notes(loaded)
    if not loaded.trained and loaded.recipe.model in MODELS:
        notes.append("note: no weights were loaded, so this is a network at its initialisation")
    if controls_missing:
        notes.append(
            f"note: {loaded.recipe.model} gives the same weights at every call, so there is no untrained control"
        )
    if woken:
        notes.append(
            f"note: a fresh network starts with a last layer of zeros ({', '.join(woken)}), whose kernel says nothing of "
            "the rest; the controls have random weights there"
        )
    return notes


def loading_notes(loaded: LoadedModel) -> list[str]:
    """What was chosen without a word of the user.

    Which weights of a checkpoint were loaded, where it has more than those of one network at its top; and what stands for
    the conditions that the data lack.
    """
    weights = loaded.weights
    notes = [f"note: {weights}"] if weights is not None and (weights.key != "." or weights.others) else []
    for name, value in loaded.denoiser.falls_back_to(loaded.data.conditions).items():
        option = "--labels FILE.npy" if name == "label" else f"--cond {name}=FILE.npy"
        notes.append(
            f"note: the data have no {name}, so the network got the one that stands for none, {value}; {option} gives others"
        )
    return notes
