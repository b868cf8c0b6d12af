"""Controls: fresh initialisations of the same network, measured on the same draws, which show what training did not do.

They are references of a diagnosis, named "untrained", "untrained 2", "untrained 3" and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from ntkdiag import provenance
from ntkdiag.conditions import Conditions
from ntkdiag.data.samples import Samples
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.diagnosis.zero_start import wake, zero_last_layer
from ntkdiag.distributed import Processes
from ntkdiag.errors import InputError, kind_of, require_int
from ntkdiag.kernel.sharded import gathered, tensors_of, with_values

CONTROL = "untrained"
DEFAULT_CONTROLS = 5
# The note in a diagnosis' meta on layers of zeros that controls had and did not keep.
WOKEN = "controls_woken"

Fresh = Callable[[int], Denoiser]
T = TypeVar("T")


def control_name(place: int) -> str:
    """Name of a control, counted from 0: "untrained", "untrained 2", …"""
    return CONTROL if place == 0 else f"{CONTROL} {place + 1}"


def controls_of(references: Mapping[str, T]) -> dict[str, T]:
    """The controls among the references of a diagnosis, in order."""
    numbers = {name: match for name in references if (match := re.fullmatch(rf"{CONTROL}(?: (\d+))?", name))}
    ordered = sorted(numbers, key=lambda name: int(numbers[name][1] or 1))
    return {name: references[name] for name in ordered}


def shown_references(references: Mapping[str, T]) -> dict[str, T]:
    """References without the second and further controls: what a figure draws as lines of their own."""
    further = list(controls_of(references))[1:]
    return {name: one for name, one in references.items() if name not in further}


def fresh_controls(
    fresh: Fresh,
    denoiser: Denoiser,
    samples: Samples,
    count: int = DEFAULT_CONTROLS,
    seed: int = 1,
    cond: Conditions | None = None,
    distributed: bool = False,
) -> tuple[dict[str, Denoiser], tuple[str, ...]]:
    """Build controls.

    Args:
        fresh: From a seed to the network of the same kind with new initial weights.
        denoiser: The network that they are compared with.
        samples: Data, [N, *shape], to see whether a network is at its zero start.
        count: How many.
        seed: Of the first; the others have those after it. A seed that gives the network's own weights is left out.
        cond: Conditions of the data by name, [N, ...].
        distributed: Every process of `torch.distributed` calls this; networks may be sharded by `fully_shard`.

    Returns:
        Name → network, and the names of the weights of zero that got random numbers. Where a call gives weights that another
        seed gave, such as those of a checkpoint, the controls end.

    Raises:
        InputError: a negative count, or something else than a `Denoiser`.

    Example:
        >>> from ntkdiag.diagnosis import fresh_controls
        >>> def fresh(seed):
        ...     network = nd.models.build("mlp", (2,), seed, width=16)
        ...     return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> controls, woken = fresh_controls(fresh, denoiser, data.train, count=2)
        >>> list(controls)
        ['untrained', 'untrained 2']
    """
    if isinstance(fresh, nn.Module) or not callable(fresh):
        raise InputError(
            "fresh",
            expected="a function from a seed to a Denoiser",
            got=kind_of(fresh),
            fix="Write a function that builds the network anew, such as lambda seed: make_denoiser(seed).",
        )
    networks: dict[str, Denoiser] = {}
    woken: dict[str, None] = {}
    require_int("controls", count, at_least=0)
    processes = Processes() if distributed else None
    with gathered(processes, denoiser):
        own, seen = _digest(denoiser), set[str]()
    while len(networks) < count:
        made = fresh(seed)
        require_denoiser("a fresh network", made)
        with gathered(processes, made):
            weights = _digest(made)
            zeros = () if weights in {own, *seen} else zero_last_layer(made, samples, cond)
        if weights in seen:
            break
        seen.add(weights)
        if weights != own:
            wake(made.network, zeros, seed)
            woken |= dict.fromkeys(zeros)
            networks[control_name(len(networks))] = made
        seed += 1
    return networks, tuple(woken)


def _digest(denoiser: Denoiser) -> str:
    return provenance.digest_of(with_values(denoiser, tensors_of(denoiser)))
