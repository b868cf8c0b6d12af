"""`ntkdiag train`: the reference trainer, with constant, given or measured weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ntkdiag.cli.inputs.launched import asked_of_accelerate, is_first, joined
from ntkdiag.cli.options import parsing
from ntkdiag.cli.options.choices import MODELS, OPTIMIZERS, PRESETS, RULES, SETTINGS, one_of
from ntkdiag.cli.options.grouping import grouped, refuse_given
from ntkdiag.cli.options.shared import Force, Json, ModelOptions
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.errors import InputError
from ntkdiag.progress import Progress, progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.cli.inputs.recipe import Recipe
    from ntkdiag.train import BucketValues, Preset, TrainConfig, TrainResult
    from ntkdiag.weights import WeightSource


# The preset of a network that comes with its weights.
FINE_TUNING = "fine_tuning"


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the run; None where the user said nothing."""

    TITLE: ClassVar[str] = "Training"

    weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            show_default="constant",
            help="The loss weights, as one of: constant; learned, which follows the losses as EDM2 does; a rule with its "
            "parameters, such as erd or min_snr:gamma=5; a weight table, such as table.csv; refresh:STEPS, which measures "
            "the weights again after that many steps, with settings such as refresh:500,score=gsnr,samples=64. "
            f"The rules are {', '.join(RULES)}. The settings "
            "of refresh are score (learnability, gsnr or gain), samples, probes, buckets, half_life, max_change, power, "
            "floor and budget.",
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            show_default="the settings alone: fine_tuning for a folder, digits or mixture for that data",
            help="What the run starts from: network, data, process, weights and settings; every other option changes it. "
            + one_of(PRESETS)
            + " A file has the form that --dry-run prints.",
        ),
    ] = None
    steps: Annotated[int | None, typer.Option(metavar="N", help="Number of optimizer steps in all.")] = None
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of samples in each step, of all processes together."),
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Learning rate after the warm-up.")
    ] = None
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="adamw",
            help="The optimizer; muon takes the matrices and AdamW the rest. " + one_of(OPTIMIZERS),
        ),
    ] = None
    align: Annotated[
        float | None,
        typer.Option(
            metavar="WEIGHT",
            show_default="none",
            help="Draw the features of one module towards those of a small encoder of the clean samples, which is trained "
            "once on the data, with this weight beside the denoising loss. The losses that are reported leave it out. "
            "Another module: --setting align_module=NAME.",
        ),
    ] = None
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Any other setting, such as ema_decay=0.99. May be repeated. " + one_of(SETTINGS),
        ),
    ] = None


@grouped
def train(
    model: ModelOptions,
    how: TrainOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default="none, which only --dry-run allows",
            help="The folder for checkpoints, averaged weights and the loss history.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train and write nothing: print the whole configuration in the form of a preset, and what the run costs.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run at --out. Only --steps and --device may be given beside it."
        ),
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a network under loss weights, and print its held-out loss at every noise level.

    Other commands take the folder it writes as their --model. Ctrl-C saves a checkpoint, and --resume continues from it.
    Started by torchrun or accelerate, processes share the samples of every step, with --device cuda each on a card of its
    own; the first one prints and writes.

    \b
    Examples:
      ntkdiag train --model dit --data digits --weights erd --out runs/erd
      ntkdiag train --model my-pipeline --data pictures --weights erd --out runs/tuned
      ntkdiag train --resume --out runs/erd --steps 8000
      ntkdiag train --preset fashion --batch 64 --dry-run
      torchrun --nproc-per-node 2 -m ntkdiag train --preset fashion \
          --device cuda --setting mixed_precision=bf16 --out runs/fashion
    """
    if dry_run:
        for option, given in (("--resume", resume), ("--force", force), ("--out", out)):
            if given:
                raise InputError(
                    option, expected="nothing beside --dry-run, which writes nothing", got=str(given)
                )
        _print_plan(_fresh(model, how), json)
        return
    if out is None:
        raise InputError("--out", expected="a folder, or --dry-run", got="neither")
    if resume:
        beside = "beside --resume, which continues the run with its own settings"
        refuse_given((model, how), beside, allowed=("steps", "device"))
        if force:
            raise InputError("--force", expected=f"nothing {beside}", got="given")
    else:
        paths.check_folder(out, force)
    try:
        with joined(model) as (own, processes), progress_bar(not json) as progress:
            task = _stored(out, own, how) if resume else _fresh(own, how)
            result = _run(task, out, resume, force, progress, distributed=processes is not None)
    except KeyboardInterrupt:
        note(f"A checkpoint is in {out}; continue with: ntkdiag train --resume --out {out}")
        raise
    if is_first():
        losses = _write(result, task, out)
        _print(result, task, losses, out, json)


@dataclass(frozen=True)
class _Task:
    """What a run trains, and what its folder notes of it."""

    loaded: LoadedModel
    config: TrainConfig
    weights: WeightSource | None
    notes: dict[str, Any]


def _fresh(model: ModelOptions, how: TrainOptions) -> _Task:
    """A new run."""
    from ntkdiag import provenance
    from ntkdiag.cli.inputs.loading import load_new
    from ntkdiag.cli.inputs.loading_notes import loading_notes
    from ntkdiag.cli.inputs.option_recipe import recipe_of
    from ntkdiag.cli.inputs.preset_recipe import preset_recipe
    from ntkdiag.cli.inputs.recipe import require_one_meaning
    from ntkdiag.cli.inputs.weighting import CONSTANT, is_file, weight_source
    from ntkdiag.train import Preset

    require_one_meaning(model.model, runs=False)  # a run is no network to train
    if model.model is not None and model.model not in MODELS and provenance.is_run(Path(model.model)):
        raise InputError(
            "--model",
            expected="a network to train, or a folder of save_pretrained",
            got=f"the run {model.model}",
            fix="Continue a run with --resume, or start from its weights with --checkpoint.",
        )
    preset = None if how.preset is None else Preset.named(how.preset, "--preset")
    recipe = recipe_of(model) if preset is None else preset_recipe(model, preset)
    loaded = load_new(model, recipe=recipe)
    text = how.weights or (CONSTANT if preset is None else preset.weights)
    notes = {
        "recipe": loaded.recipe.to_dict(),
        "checkpoint": None if model.checkpoint is None else str(model.checkpoint.resolve()),
        "weights_key": None if loaded.weights is None else loaded.weights.key,
        "weights": str(Path(text).resolve()) if is_file(text) else text,
    }
    config = _config(how, preset or _settings_for(loaded), recipe.seed)
    for line in loading_notes(loaded):
        note(line)
    return _Task(loaded, config, weight_source(text, loaded, recipe.seed), notes)


def _stored(out: Path, model: ModelOptions, how: TrainOptions) -> _Task:
    """The run at `out` as it was started: its network is built again before its checkpoint is loaded."""
    from ntkdiag.cli.inputs.loading import load_recipe, run_recipe
    from ntkdiag.cli.inputs.weighting import weight_source
    from ntkdiag.train import TrainConfig
    from ntkdiag.train.checkpoints.checkpoint import read_manifest

    recipe, manifest = run_recipe(out), read_manifest(out)
    notes = manifest.notes
    start = notes.get("checkpoint")
    loaded = load_recipe(
        recipe,
        None if start is None else Path(start),
        model.device,
        {"shape": manifest.problem.get("data", {}).get("shape")},
        weights_key=notes.get("weights_key"),
        samples=None,
    )
    steps = manifest.config["steps"] if how.steps is None else how.steps
    config = TrainConfig.from_dict(manifest.config | {"steps": steps})
    return _Task(loaded, config, weight_source(notes["weights"], loaded, recipe.seed), notes)


def _settings_for(loaded: LoadedModel) -> Preset | None:
    """The preset whose settings count where none is named."""
    from ntkdiag.cli.options.choices import DATASETS
    from ntkdiag.train import Preset

    if loaded.recipe.is_folder:
        return Preset.named(FINE_TUNING)
    return Preset.named(loaded.data.name) if loaded.data.name in DATASETS else None


def _config(how: TrainOptions, preset: Preset | None, seed: int) -> TrainConfig:
    """The settings of a preset, with those that the user changed."""
    from ntkdiag.train import TrainConfig

    changes = {name: getattr(how, name) for name in ("steps", "batch", "learning_rate", "optimizer", "align")}
    given = {name: value for name, value in changes.items() if value is not None}
    given |= parsing.pairs("--setting", how.setting)
    start = ({} if preset is None else preset.training) | asked_of_accelerate()
    return TrainConfig.from_dict(start | given | {"seed": seed})


def _print_plan(task: _Task, as_json: bool) -> None:
    """What --dry-run prints."""
    from ntkdiag.cli.inputs.preset_recipe import as_preset
    from ntkdiag.cli.output.cost_text import cost_text
    from ntkdiag.train import training_cost

    plan = as_preset(task.loaded.recipe, task.notes["weights"], task.config)
    cost = training_cost(task.loaded.denoiser, task.loaded.data, task.config)
    if as_json:
        print_json({"preset": plan.model_dump(), "cost": asdict(cost)})
        return
    say(plan.text())
    for option in _beside_a_preset(task):
        say(f"# beside it: {option}")
    say(cost_text(cost))


def _beside_a_preset(task: _Task) -> list[str]:
    """What the run takes that a preset does not say."""
    recipe, notes = task.loaded.recipe, task.notes
    said = {
        "--checkpoint": notes["checkpoint"],
        "--weights-key": notes["weights_key"] if notes["checkpoint"] else None,
        "--scheduler": recipe.scheduler,
        "--timesteps": recipe.timesteps,
    }
    options = [f"{name} {value}" for name, value in said.items() if value]
    return [*options, *(["--latents"] if recipe.latents else [])]


def _run(
    task: _Task, out: Path, resume: bool, force: bool, progress: Progress, distributed: bool
) -> TrainResult:
    from ntkdiag.train import train as train_network

    return train_network(
        task.loaded.denoiser,
        task.loaded.data,
        task.weights,
        task.config,
        out=out,
        resume=resume,
        force=force,
        progress=lambda step, steps, loss: progress(f"training · loss {loss:.3g}", step, steps),
        notes=task.notes,
        distributed=distributed,
    )


def _write(result: TrainResult, task: _Task, out: Path) -> pd.DataFrame:
    """Write the held-out loss at every noise level and the weights beside the run, and return the losses.

    Of a network that came in a folder also such a folder with the averaged weights.
    """
    from ntkdiag import provenance
    from ntkdiag.cli.inputs.training_runs import LOSSES_FILE, WEIGHTS_FILE, loss_table
    from ntkdiag.weights import WeightTable

    if task.loaded.recipe.is_folder:
        _write_pretrained(task.loaded.recipe, out)
    losses = loss_table(_held_out(result, task.loaded))
    provenance.write_text(out / LOSSES_FILE, losses.to_csv(index=False))
    # Weights that change have a table of what they are now.
    table = getattr(task.weights, "table", task.weights)
    if isinstance(table, WeightTable):
        table.save(out / WEIGHTS_FILE)
    return losses


def _write_pretrained(recipe: Recipe, out: Path) -> None:
    from ntkdiag.adapters.diffusers import Folder
    from ntkdiag.cli.inputs.training_runs import PRETRAINED_FOLDER
    from ntkdiag.train.checkpoints.run_folder import AVERAGE_FILE

    Folder.find(recipe.model, recipe.scheduler).write_with(out / AVERAGE_FILE, out / PRETRAINED_FOLDER)


def _held_out(result: TrainResult, loaded: LoadedModel) -> BucketValues:
    from ntkdiag.cli.inputs.training_runs import held_out, held_out_of_folder

    if loaded.recipe.is_folder:
        return held_out_of_folder(result.denoiser, loaded.data, result.buckets, result.config.batch)
    return held_out(result.denoiser, loaded.data, result.buckets)


def _print(result: TrainResult, task: _Task, losses: pd.DataFrame, out: Path, as_json: bool) -> None:
    from ntkdiag.cli.output.tables import loss_text
    from ntkdiag.weights import Refresher

    refreshes = task.weights.history if isinstance(task.weights, Refresher) else []
    for record in refreshes:
        if not record.accepted:
            note(f"note: the weights stayed as they were at step {record.step}: {record.reason}")
    if as_json:
        print_json(
            {
                "step": result.step,
                "losses": losses.to_dict("records"),
                "refreshes": [asdict(record) for record in refreshes],
                "written": out,
            }
        )
    else:
        say(loss_text(losses))
        say(f"\nWritten: {out}   (next: ntkdiag measure --model {out})")
