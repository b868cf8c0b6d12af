"""The toy study: the kernel without its shared answer, and verdicts that follow what is planted over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.collapse.run import ends, shares, without_shared


def test_what_all_samples_share_is_removed_output_by_output() -> None:
    rows = torch.randn(6, 2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share, apart = without_shared(rows.reshape(12, 9) @ rows.reshape(12, 9).T, 6)
    centred = rows - rows.mean(0)
    assert torch.allclose(apart, centred.reshape(12, 9) @ centred.reshape(12, 9).T)
    assert share == pytest.approx(1 - float(centred.square().sum() / rows.square().sum()))
    same = rows[:1].expand(6, 2, 9).reshape(12, 9)
    assert without_shared(same @ same.T, 6)[0] == pytest.approx(1.0)


def planted(seeds: int) -> pd.DataFrame:
    """The rank falls at the noisy end in every seed; without the shared answer it does not."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(seeds):
        for bucket, log_snr in enumerate(np.linspace(-9, 9, 10)):
            noise = np.exp(0.01 * rng.standard_normal(4))
            rank = 3.0 if log_snr < -4 else 9.0
            rows.append(
                {
                    "target": "v",
                    "seed": seed,
                    "step": 0,
                    "bucket": bucket,
                    "log_snr": log_snr,
                    "trace": noise[0],
                }
                | {"effective_rank": rank * noise[1], "centred_effective_rank": 8 * noise[2]}
                | {"shared_share": 0.4 * noise[3], "amplitude": bucket, "contamination": 10 - bucket}
                | {"floor": 1.0 if bucket < 5 else 0.1, "loss": 1.0}
            )
    return pd.DataFrame(rows)


def test_verdicts_and_shares_of_what_is_planted() -> None:
    found = ends(planted(5)).set_index(["statistic", "end"])
    assert found.loc[("effective_rank", "noisy"), "verdict"] == "supported"
    assert found.loc[("effective_rank", "noisy"), "mean"] == pytest.approx(np.log(3), abs=0.02)
    assert set(found["verdict"].drop(("effective_rank", "noisy"))) == {"absent"}
    described = shares(planted(5)).set_index("what")["mean"]
    assert described.tolist() == pytest.approx([-1.0, 0.5])


def test_one_seed_has_no_verdict() -> None:
    assert set(ends(planted(1))["verdict"]) == {""}
