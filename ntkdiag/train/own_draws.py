"""What a network draws itself in a training step (dropout, dropped labels): the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from ntkdiag.randomness import stream_seed


@contextmanager
def own_draws(seed: int, step: int, device: torch.device, rank: int = 0) -> Iterator[None]:
    """Seed torch's global generators, of the CPU and of a CUDA device, for one step; afterwards they are as before.

    So a run that was interrupted and resumed draws what the straight one draws, and the caller's random state is untouched.

    Args:
        seed: The run's seed.
        step: Steps done before this one.
        device: Of the network.
        rank: Of this process, which draws for other samples than the first.
    """
    cuda = [device] if device.type == "cuda" else []
    chosen = stream_seed(_of_run(seed), step)
    chosen = stream_seed(chosen, rank) if rank else chosen
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(chosen)
        for each in cuda:
            torch.cuda.default_generators[each.index].manual_seed(chosen)
        yield


@cache
def _of_run(seed: int) -> int:
    return stream_seed(seed, "own draws")
