"""Processes that torchrun or accelerate started: which of them this is, their group, and silence of all but the first.

torchrun --nproc-per-node 2 -m ntkdiag measure …
accelerate launch --multi_gpu --num_processes 2 -m ntkdiag train … --device cuda
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ntkdiag.cli.options.shared import ModelOptions
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.distributed import Processes

# What torchrun sets, which accelerate's launcher calls, and batch systems do not.
_MARK = "TORCHELASTIC_RUN_ID"
# Commands whose work processes can share.
SHARED = ("measure", "verify", "train")


def is_one_of_several() -> bool:
    """Whether torchrun started this process, and others with it."""
    return _MARK in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return not is_one_of_several() or os.environ.get("RANK") == "0"


def of_first(out: Path | None) -> Path | None:
    """Where results go: None in all processes but the first."""
    return out if is_first() else None


def asked_of_accelerate() -> dict[str, str]:
    """Settings of training that accelerate's launcher was given, of those that it passes on to the program."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    return {} if precision == "no" else {"mixed_precision": precision}


def require_shared(command: str | None) -> None:
    """Refuse a command that every process would do by itself.

    Raises:
        InputError: see above.
    """
    if is_one_of_several() and command is not None and command not in SHARED:
        raise InputError(
            "torchrun",
            expected=f"{', '.join(SHARED[:-1])} or {SHARED[-1]}, whose samples processes share",
            got=command,
            fix="Start it without torchrun.",
        )


@contextmanager
def first_alone_speaks() -> Iterator[None]:
    """Inside the block, nothing is printed by any process but the first."""
    if is_first():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def joined(model: ModelOptions) -> Iterator[tuple[ModelOptions, Processes | None]]:
    """The group of the processes that torchrun started: inside the block, an error of one is an error of all.

    Args:
        model: The options of the network.

    Yields:
        The options with the device of this process, and the processes; None for one alone.

    Raises:
        InputError: the device is a card with a number, which all processes would take, or there are too few cards.
    """
    if not is_one_of_several():
        yield model, None
        return
    import torch
    from torch import distributed

    from ntkdiag.distributed import Processes

    place = model.device
    if place.startswith("cuda:"):
        raise InputError(
            "--device", expected="cuda, of which each process takes the card of its number", got=place
        )
    if place == "cuda":
        place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        if torch.cuda.is_available():
            _require_cards(torch.cuda.device_count())
            torch.cuda.set_device(place)
    on_cards = place.startswith("cuda") and torch.cuda.is_available()
    own_group = not distributed.is_initialized()
    if own_group:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_cards else "gloo")
    processes = Processes()
    with processes.in_step():
        yield replace(model, device=place), processes
    if own_group:  # after an error, the end of the process does it
        distributed.destroy_process_group()


def _require_cards(cards: int) -> None:
    """Refuse more processes than cards, in all of them, since the first alone speaks."""
    count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if count > cards:
        raise InputError(
            "torchrun",
            expected=f"a card for each process on this machine, at most {cards}",
            got=f"{count} processes",
            fix=f"Start it with --nproc-per-node {cards}, or with --device cpu.",
        )
