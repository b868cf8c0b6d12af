"""What a network draws itself in a training step (dropout, dropped labels): the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch

from ntkdiag.randomness import stream_seed

# Steps whose seeds are made at once.
_BLOCK = 1024


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
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    chosen = _seeds(seed, rank, step // _BLOCK)[step % _BLOCK]
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(chosen)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


@lru_cache(maxsize=4)
def _seeds(seed: int, rank: int, block: int) -> list[int]:
    """Seeds of a block of steps, by numpy's `SeedSequence`."""
    made = np.random.SeedSequence([stream_seed(seed, "own draws"), rank, block])
    seeds: list[int] = made.generate_state(_BLOCK, np.uint64).tolist()
    return seeds
