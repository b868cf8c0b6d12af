"""Samples of a network in place of data, where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ntkdiag.conditions import LABEL, Conditions
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.train.sampling import sample


def own_samples(
    denoiser: Denoiser,
    count: int,
    shape: tuple[int, ...],
    *,
    steps: int = 32,
    seed: int = 0,
    cond: Conditions | None = None,
    guidance: float | None = None,
) -> Data:
    """Data drawn from the network itself, to measure it where its training data is not at hand.

    Results and answers say so, because it weakens them: they hold where the network's own samples lie. What it fails to draw
    is not seen, its loss is not that on data, and the recoverable share is that of its samples.

    Args:
        denoiser: Network, schedule and target.
        count: Number of samples.
        shape: Shape of one sample.
        steps, seed, guidance: As in `sample`.
        cond: Conditions to draw under, by name, [count, ...], which stay with the samples; None for those that stand for
            none.

    Returns:
        Data of `count` training samples with `from_network`, and no held-out samples.

    Raises:
        InputError: as `sample`.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> trained = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> own_samples(trained, 10, (2,), steps=4)
        Data('self', shape=(2,), train=10, held_out=0)
    """
    require_denoiser("network to sample from", denoiser)
    none = cond is None and bool(denoiser.conditions)
    given: dict[str, Any] = denoiser.null_conditions(count) if none else dict(cond or {})
    drawn = sample(denoiser, count, shape, steps=steps, seed=seed, cond=given or None, guidance=guidance)
    how = f"drawn from the network itself ({steps} steps, seed {seed}"
    if none:
        how += ", under the condition that stands for none"
    if guidance is not None:
        how += f", guidance {guidance:g}"
    data = Data(
        "self", drawn.detach().cpu(), description=f"{count:,} samples {how})", cond=given, from_network=True
    )
    return data if none or LABEL not in given else replace(data, labels=given[LABEL].long())
