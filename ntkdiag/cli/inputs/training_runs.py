"""What reports read of a training folder: the history, and the held-out loss at every noise level."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import InputError, first_line

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.data import Data
    from ntkdiag.denoiser import Denoiser
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.train import BucketValues

LOSSES_FILE = "losses.csv"
# Of a network that came in a folder of save_pretrained: such a folder with the averaged weights.
PRETRAINED_FOLDER = "pretrained"
WEIGHTS_FILE = "weights.csv"
# Held-out samples in each bucket, and the seed of their noise; equal for every run, so that differences are paired.
_SAMPLES, _SEED = 1024, 0
# Those of networks from elsewhere, which are larger.
_SAMPLES_OF_FOLDER = 256


def held_out(denoiser: Denoiser, data: Data, buckets: Buckets) -> BucketValues:
    """Unweighted held-out losses on the draws that all runs share."""
    from ntkdiag.train import bucket_losses

    return bucket_losses(denoiser, data, buckets, samples=_SAMPLES, seed=_SEED)


def held_out_of_folder(denoiser: Denoiser, data: Data, buckets: Buckets, batch: int) -> BucketValues:
    """As `held_out`, of a network from elsewhere: fewer samples, as many at once as in a training step."""
    from ntkdiag.train import bucket_losses

    return bucket_losses(denoiser, data, buckets, samples=_SAMPLES_OF_FOLDER, seed=_SEED, batch=batch)


def loss_table(values: BucketValues) -> pd.DataFrame:
    """The losses with the column names that figures read: bucket, log_snr, samples, loss, loss_low, loss_high (95%)."""
    table = values.table().drop(columns="stderr")
    return table.rename(columns={"mean": "loss", "low": "loss_low", "high": "loss_high"})


def read_run(folder: Path) -> dict[str, Any]:
    """The tables of a finished training run, for a report: history, and buckets if they were written.

    Raises:
        InputError: no training run, or an unfinished one.
    """
    import pandas as pd

    from ntkdiag.train.checkpoints.checkpoint import read_manifest
    from ntkdiag.train.checkpoints.run_folder import AVERAGE_FILE, HISTORY_FILE

    read_manifest(folder)
    if not (folder / AVERAGE_FILE).is_file() or not (folder / HISTORY_FILE).is_file():
        raise InputError(
            str(folder),
            expected=f"a finished training run with {AVERAGE_FILE} and {HISTORY_FILE}",
            got="an unfinished one",
            fix=f"Finish it with: ntkdiag train --resume --out {folder}",
        )
    tables = {"history": folder / HISTORY_FILE, "buckets": folder / LOSSES_FILE}
    try:
        return {name: pd.read_csv(path) for name, path in tables.items() if path.is_file()}
    except (OSError, ValueError) as error:
        raise InputError(str(folder), expected="tables in CSV", got=first_line(error)) from error
