"""How many of the next training steps a kernel describes: read from 'ntkdiag drift', or measured where a run is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ntkdiag.cli.output.messages import note
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.progress import progress_bar

if TYPE_CHECKING:
    from ntkdiag.claims.verification import StepRange
    from ntkdiag.weights import WeightTable

# The comparison with real steps is small at this level.
_LEVEL = "quick"


def stored(folder: Path | None) -> StepRange | None:
    """What 'ntkdiag drift --out' wrote; None without a folder.

    Raises:
        InputError: it is something else, or does not say it.
    """
    if folder is None:
        return None
    from ntkdiag.trust import Examination

    found = Examination.load(folder)
    found.step_range  # noqa: B018  a folder that cannot say it is refused before anything is measured
    return found


def of_run(run: Path, device: str, buckets: int, seed: int, bars: bool) -> StepRange | None:
    """Real steps that go on from the last checkpoint of a training run, on its own data; None for another folder.

    A run that cannot go on is no reason to give no answer: a note says why, and the result is None.
    """
    from ntkdiag.cli.inputs.loading import load
    from ntkdiag.cli.options.shared import ModelOptions
    from ntkdiag.train.checkpoints.checkpoint import MANIFEST
    from ntkdiag.trust import linearization
    from ntkdiag.trust.sizes import sizes_named

    if not (run / MANIFEST).is_file():
        return None
    steps = sizes_named(_LEVEL).training_steps(buckets)
    note(f"note: how many training steps the kernel describes costs about as much as {steps} of them")
    try:
        loaded = load(ModelOptions(model=str(run.resolve()), device=device, seed=seed))
        with progress_bar(bars) as progress:
            return linearization(
                loaded.denoiser, loaded.data, run, buckets=buckets, level=_LEVEL, seed=seed,
                weights=run_weights(run), progress=progress,
            )  # fmt: skip
    except (InputError, MeasurementError) as error:
        note(f"note: how many training steps the kernel describes is not known: {error}")
        return None


def run_weights(run: Path) -> WeightTable | None:
    """The loss weights that a run was trained with; None for 1."""
    from ntkdiag.cli.inputs.training_runs import WEIGHTS_FILE
    from ntkdiag.weights import WeightTable

    return WeightTable.load(run / WEIGHTS_FILE) if (run / WEIGHTS_FILE).is_file() else None
