"""Load the network and the data that options name, and build its untrained controls."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.inputs.option_recipe import absolute, data_options, recipe_of
from ntkdiag.cli.inputs.own_data import SELF, own_data, own_shape
from ntkdiag.cli.inputs.recipe import Recipe, require_one_meaning
from ntkdiag.cli.options.choices import MODELS
from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.cli.output.messages import note
from ntkdiag.errors import InputError, first_line
from ntkdiag.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from ntkdiag.adapters.load_check import LoadCheck
    from ntkdiag.data import Data
    from ntkdiag.denoiser import Denoiser
    from ntkdiag.provenance import KeptParts
    from ntkdiag.state_dicts import WeightsTaken

# Options that a training folder determines: giving one again could only contradict it.
_DETERMINED_BY_RUN = (
    "model_option", "checkpoint", "weights_key", "schedule", "schedule_option", "target", "call", "scheduler", "timesteps",
)  # fmt: skip
# The split into training and held-out samples is the same for every --seed, so that no network is later evaluated on
# samples it was trained on.
_SPLIT_SEED = 0
# Most numbers in the held-out samples that samples are compared with: 64 MiB.
_COMPARED = 2**24


@dataclass(frozen=True)
class LoadedModel:
    """A network that a command works on.

    Attributes:
        denoiser: On its device, with its weights loaded; one forward on the data has succeeded.
        data: The data that it is trained or measured on.
        recipe: How it is built.
        weights: Which weights were loaded; None where none were.
        held_out_unseen: Whether the network is known not to have been trained on the held-out samples.
    """

    denoiser: Denoiser
    data: Data
    recipe: Recipe
    weights: WeightsTaken | None
    held_out_unseen: bool = False

    @property
    def trained(self) -> bool:
        """Whether weights were loaded."""
        return self.weights is not None or self.recipe.is_folder

    def controls(self, count: int) -> tuple[dict[str, Denoiser], tuple[str, ...]]:
        """The same network built again: with the initial weights of its run, then with those of the seeds after it.

        Returns:
            As `fresh_controls`. There are none where building it again gives the same weights, as with a function that loads
            a checkpoint.
        """
        from ntkdiag.diagnosis.controls import fresh_controls

        place = next(self.denoiser.parameters()).device

        def fresh(seed: int) -> Denoiser:
            return self.recipe.build(self.data.shape, seed).to(place)

        first = self.recipe.seed if self.trained else self.recipe.seed + 1
        data = self.data
        return fresh_controls(fresh, self.denoiser, data.train, count, first, data.conditions)


def load(
    options: ModelOptions,
    null_label: int | None = None,
    samples: int = 0,
    kept: KeptParts | None = None,
    bars: bool = False,
) -> LoadedModel:
    """Build the network, load its weights and its data, and run one forward.

    Args:
        options: Which ones.
        null_label: The label of all samples, if not their own.
        samples: How many are needed at least, where not all of the data are encoded.
        kept: Where what the load check finds is kept, and taken from after an interruption.
        bars: Whether to show its progress.

    Raises:
        InputError: one of these steps is impossible.
    """
    require_one_meaning(options.model)
    if options.model is not None and options.model not in MODELS and Path(options.model).is_dir():
        from ntkdiag.adapters.diffusers import is_folder

        if not is_folder(Path(options.model)):
            return _from_run(Path(options.model), options, null_label, samples)
    return load_new(options, null_label, samples, kept, bars=bars)


def load_new(
    options: ModelOptions,
    null_label: int | None = None,
    samples: int | None = None,
    kept: KeptParts | None = None,
    recipe: Recipe | None = None,
    bars: bool = False,
) -> LoadedModel:
    """As `load`, of a network that is in no training folder; one in a folder of save_pretrained is checked on the data.

    Args:
        options, null_label, kept, bars: As in `load`.
        samples: As in `load`; None for a command that trains, which needs all.
        recipe: In place of that of the options.

    Raises:
        InputError: as `load`; or the load check refuses.
    """
    loaded = load_recipe(
        recipe or recipe_of(options),
        options.checkpoint,
        options.device,
        weights_key=options.weights_key,
        null_label=null_label,
        samples=samples,
    )
    if loaded.recipe.is_folder and options.load_check and loaded.data.from_network:
        note("note: the load check needs data that the network did not draw itself, so it was left out")
    elif loaded.recipe.is_folder and options.load_check:
        note(str(_load_check(loaded, kept, bars)))
    return loaded


def _load_check(loaded: LoadedModel, kept: KeptParts | None, bars: bool) -> LoadCheck:
    """What the load check finds, or found before an interruption."""
    from ntkdiag.adapters.load_check import LoadCheck
    from ntkdiag.diagnosis.measurement_key import load_check_key
    from ntkdiag.provenance import KeyedParts

    denoiser, data = loaded.denoiser, loaded.data
    made = loaded.recipe.to_dict() | {"diffusers": version("diffusers")}
    parts = KeyedParts() if kept is None else kept.of(load_check_key(denoiser, data, made))
    with progress_bar(bars) as progress:
        return LoadCheck(
            **parts.take("load check", lambda: asdict(denoiser.load_check(data, progress=progress)))
        )


def load_recipe(
    recipe: Recipe,
    checkpoint: Path | None,
    device: str,
    trained_on: dict[str, Any] | None = None,
    weights_key: str | None = None,
    null_label: int | None = None,
    samples: int | None = 0,
) -> LoadedModel:
    """Build the network of a recipe and load its data.

    Args:
        recipe: How the network is built.
        checkpoint: A file of weights to load into it, or None.
        device: The torch device.
        trained_on: The "shape" and, if there is one, the "digest" that the data must have.
        weights_key: Which weights of the file to load.
        null_label, samples: As in `load_new`.

    Raises:
        InputError: see `load`.
    """
    from ntkdiag import data as datasets
    from ntkdiag.state_dicts import load_weights

    if weights_key is not None and checkpoint is None:
        raise InputError("--weights-key", expected="--checkpoint beside it", got="no checkpoint")
    place = _device(device)
    stated = trained_on or {}
    data = None
    if recipe.data == SELF:
        shape = own_shape(recipe, stated.get("shape"), samples)
    else:
        data = datasets.load(recipe.data, _SPLIT_SEED, **recipe.data_options)
        data = recipe.encoded(data, samples, place)
        _check_data(data, stated)
        shape = data.shape
    denoiser = recipe.build(shape)
    weights = None if checkpoint is None else load_weights(denoiser, checkpoint, weights_key)
    denoiser = denoiser.to(place)
    if data is None:
        data = own_data(denoiser, recipe, shape, samples or 0, _SPLIT_SEED)
    if null_label is not None:
        if "label" not in denoiser.conditions:
            got = ", ".join(denoiser.conditions) or "no conditions"
            raise InputError("--null-label", expected="a network that takes labels", got=got)
        data = data.at_condition(label=null_label)
    _try(denoiser, data)
    return LoadedModel(denoiser, data, recipe, weights)


def run_recipe(folder: Path) -> Recipe:
    """The recipe in a training folder.

    Raises:
        InputError: it is no training folder, or has no recipe.
    """
    from ntkdiag.train.checkpoints.checkpoint import read_manifest

    return Recipe.from_dict(read_manifest(folder).notes.get("recipe"), str(folder))  # type: ignore[arg-type]


def _from_run(folder: Path, options: ModelOptions, null_label: int | None, samples: int) -> LoadedModel:
    """The averaged network of a training folder, on its own data or on other data of the same shape."""
    from ntkdiag.train.checkpoints.checkpoint import read_manifest
    from ntkdiag.train.checkpoints.run_folder import AVERAGE_FILE

    for name in _DETERMINED_BY_RUN:
        given = getattr(options, name)
        if given:
            raise InputError(
                "--" + name.replace("_", "-"),
                expected=f"nothing beside --model {folder}, which determines it",
                got=str(given),
            )
    manifest, recipe = read_manifest(folder), run_recipe(folder)
    trained_on = dict(manifest.problem["data"])
    if not (folder / AVERAGE_FILE).is_file():
        raise InputError(
            str(folder),
            expected=f"a finished training run with {AVERAGE_FILE}",
            got="an unfinished one",
            fix=f"Finish it with: ntkdiag train --resume --out {folder}",
        )
    changed = [*data_options(options), *(["latents"] if options.latents else [])]
    if options.data is None and changed:
        name = changed[0]
        raise InputError(
            "--" + name.replace("_", "-"),
            expected="--data beside it, or the run's own data as it is",
            got="no --data",
        )
    if options.data is not None:
        recipe = replace(
            recipe,
            data=absolute(options.data),
            data_options=data_options(options),
            latents=options.latents,
        )
        trained_on.pop("digest", None)
    average, needed = folder / AVERAGE_FILE, None if options.data is None else samples
    loaded = load_recipe(recipe, average, options.device, trained_on, null_label=null_label, samples=needed)
    began_elsewhere = (
        recipe.is_folder or manifest.notes.get("checkpoint") is not None
    )  # perhaps on these very samples
    return replace(loaded, held_out_unseen="digest" in trained_on and not began_elsewhere)


def _check_data(data: Data, trained_on: dict[str, Any]) -> None:
    shape, digest = trained_on.get("shape"), trained_on.get("digest")
    if shape is not None and list(data.shape) != shape:
        raise InputError("--data", expected=f"samples of shape {shape}, as in training", got=list(data.shape))
    if digest is not None and data.digest != digest:
        raise InputError(
            f"data '{data.name}'",
            expected="the samples that the run was trained on",
            got="samples that have changed since",
            fix="Name the data to use with --data.",
        )


def unseen(data: Data) -> Tensor:
    """Held-out samples in memory, to compare a network's samples with; of very many, a random choice.

    Raises:
        InputError: the data has none.
    """
    from ntkdiag.data import in_memory

    return in_memory(data.held_out_for("comparing samples with data"), _COMPARED)


def _device(name: str) -> Any:
    import torch

    try:
        place = torch.device(name)
        torch.ones(1, device=place).item()  # fails on the meta device, which holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            "--device", expected="a device this machine has, such as cpu", got=f"{name}: {first_line(error)}"
        ) from error
    return place


def _try(denoiser: Denoiser, data: Data) -> None:
    """Run one forward on few samples, so that a network that does not fit the data fails before any work.

    Raises:
        InputError: the forward raises any exception.
    """
    import torch

    from ntkdiag.conditions import extremes, rows_of
    from ntkdiag.modes import in_mode

    level = float(denoiser.schedule.quantile(0.5))
    cond = denoiser.conditions_from(data.conditions)
    rows = extremes(cond) if cond else torch.arange(min(2, len(data.train)))
    try:
        like = next(denoiser.parameters(), torch.empty(0))
        with in_mode(denoiser, training=False), torch.no_grad():
            denoiser(data.train[rows].to(like), level, rows_of(cond, rows) or None)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "--model",
            expected=f"a network that takes samples of shape {list(data.shape)}",
            got=first_line(error),
            fix="Check the data's shape and --call, which says whether the network is called with time or log_snr.",
        ) from error
