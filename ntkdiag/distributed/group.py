"""What processes say to each other: which of them is where, tensors that each sends to all, sums.

Before anything is exchanged, every process says what it is about to exchange, or that it has failed. So an error of one
becomes the same error of all, none waits for another that has gone elsewhere, and nothing is mixed up.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary
from zlib import crc32

import torch
from torch import Tensor, distributed

from ntkdiag.distributed.failure import LostProcess, OutOfStep, first_of, packed
from ntkdiag.distributed.parcels import Parcel, share_of
from ntkdiag.errors import InputError

# Numbers beside the name of an exchange.
_NUMBERS = 3
_FAILED, _WELL = 0, 1

T = TypeVar("T")
# Group of processes → the group by which they pass tensors in main memory.
_BESIDE: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class Processes:
    """All processes of the default group of `torch.distributed`.

    Raises:
        InputError: there is no such group.

    Attributes:
        rank: Number of this process.
        count: How many there are.
        on_this_machine: How many of them run on this machine.
        failures: How many errors all have raised, through any object of this class; after each they may have stopped at
            different places.
    """

    failures = 0

    def __init__(self) -> None:
        if not (distributed.is_available() and distributed.is_initialized()):
            raise InputError(
                "distributed",
                expected="a group of processes, made by torch.distributed.init_process_group in each of them",
                got="no group",
                fix="Start the program with torchrun and make one in each process, or measure by one process alone.",
            )
        self.rank: int = distributed.get_rank()
        self.count: int = distributed.get_world_size()
        self._beside = _group_of_main_memory()
        self._buffers: dict[tuple[str, torch.device], Tensor] = {}
        self._raised: Exception | None = None  # what all processes have just raised
        machine = crc32(socket.gethostname().encode())
        self.on_this_machine = sum(each[0] == machine for each in self.meet("machine", machine))

    def meet(self, what: str, *numbers: int) -> list[tuple[int, ...]]:
        """Wait until every process is at the same place.

        Args:
            what: Names the place.
            numbers: A few integers to tell the others.

        Returns:
            The numbers of each process.

        Raises:
            OutOfStep: another process is at another place.
            Exception: that of a process that has failed.
        """
        seen = self._said(_WELL, crc32(what.encode()), *numbers)
        if any(status == _FAILED for status, *_ in seen):
            self._fail(None)
        if len({place for _, place, *_ in seen}) > 1:
            Processes.failures += 1
            self._raised = OutOfStep(
                f"processes: expected all at the same place; got another one at {what!r}."
            )
            raise self._raised
        self._raised = None
        return [tuple(rest[: len(numbers)]) for _, _, *rest in seen]

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """What is done inside succeeds in every process, or else fails in every process with the same exception."""
        self._raised = None
        try:
            yield
            self.meet("done")
        except Exception as error:
            if error is self._raised or isinstance(error, LostProcess):
                raise  # the others know
            self._said(_FAILED)
            self._fail(error)

    def exchange(self, what: str, parcels: Sequence[Parcel], counts: Sequence[int]) -> list[Tensor]:
        """Give all others what this process has of some tensors.

        Args:
            what: Names them; see `meet`, also for what is raised.
            parcels: Tensors, and who receives what of them; all sizes but the number of rows are equal in all processes.
            counts: Rows of each process.

        Returns:
            For each parcel, the rows of this process and of those it receives from, in their order: [Σ n, ...].
        """
        found: list[Tensor | None] = [None] * len(parcels)
        for kind in dict.fromkeys((parcel.rows.dtype, parcel.rows.device) for parcel in parcels):
            places = [i for i, each in enumerate(parcels) if (each.rows.dtype, each.rows.device) == kind]
            some = self._exchanged(what, [parcels[i] for i in places], counts)
            for place, tensor in zip(places, some, strict=True):
                found[place] = tensor
        return [tensor for tensor in found if tensor is not None]

    def share_of(self, size: int, rank: int | None = None) -> slice:
        """The part of a dimension that a process has: this one, or another."""
        return share_of(size, self.rank if rank is None else rank, self.count)

    def total(self, what: str, tensor: Tensor) -> Tensor:
        """The sum of a tensor over processes, in main memory."""
        found = tensor.detach().cpu().clone()
        self.meet(f"{what} {tuple(found.shape)}")
        self._call(lambda: distributed.all_reduce(found, group=self._beside))
        return found

    def of_first(self, what: str, tensor: Tensor) -> Tensor:
        """The first process's values of a tensor in main memory, whose shape all know."""
        found = tensor.detach().contiguous()
        self.meet(f"{what} {tuple(found.shape)}")
        self._call(lambda: distributed.broadcast(found, src=0, group=self._beside))
        return found

    def call(self, talk: Callable[[Tensor, Any], object], values: Tensor) -> Tensor:
        """What a function of `torch.distributed` leaves in a tensor, in main memory where processes exchange it there.

        Args:
            talk: Called with the tensor, or a copy of it, and the group that passes it.
            values: On any device; perhaps overwritten.
        """
        found = values if self._on_card(values) else values.cpu()
        self._call(lambda: talk(found, self._group_of(found)))
        return found.to(values.device)

    def each_says(self, what: str, value: T) -> list[T]:
        """What each process says; a plain value."""
        self.meet(what)
        return self._each_says(value)

    def first_says(self, what: str, value: Any) -> Any:
        """What the first process says; a plain value, or tensors in main memory. That of the others does not matter."""
        found = [value]
        self.meet(what)
        self._call(lambda: distributed.broadcast_object_list(found, src=0, group=self._beside))
        return found[0]

    def _each_says(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.count
        self._call(lambda: distributed.all_gather_object(found, value, group=self._beside))
        return found

    def _on_card(self, values: Tensor) -> bool:
        """Whether processes exchange tensors where these are; otherwise they do in main memory."""
        return values.is_cuda and "nccl" in distributed.get_backend_config()

    def _group_of(self, values: Tensor) -> Any:
        return None if self._on_card(values) else self._beside

    def _exchanged(self, what: str, parcels: list[Parcel], counts: Sequence[int]) -> list[Tensor]:
        """`exchange` of tensors of one dtype on one device."""
        ranks, own = range(self.count), self.rank
        pieces = [[each.part(own, rank, self.count) for each in parcels] for rank in ranks]
        shapes = [
            [each.shape(rank, own, self.count, rows) for each in parcels]
            for rank, rows in zip(ranks, counts, strict=True)
        ]
        to = [0 if rank == own else sum(piece.numel() for piece in pieces[rank]) for rank in ranks]
        of = [0 if rank == own else sum(map(math.prod, shapes[rank])) for rank in ranks]
        sent = self._buffer("sent", sum(to), parcels[0].rows)
        outward = (piece for rank in ranks if rank != own for piece in pieces[rank])
        _fill(sent, outward)
        known = [(tuple(each.rows.shape[1:]), each.rows.dtype) for each in parcels]
        received = self._all_to_all(f"{what} {known} {list(counts)}", sent, to, of).split(of)
        every = [pieces[rank] if rank == own else _shaped(received[rank], shapes[rank]) for rank in ranks]
        return [
            torch.cat([rows for rank, rows in enumerate(rows_of_all) if each.passes(rank, own)])
            for each, rows_of_all in zip(parcels, zip(*every, strict=True), strict=True)
        ]

    def _all_to_all(self, what: str, sent: Tensor, to: list[int], of: list[int]) -> Tensor:
        """Values for each process in turn → values of each process in turn; as bytes: some backends know few dtypes.

        What is returned is overwritten by the next call.
        """
        width, values = sent.element_size(), sent.view(torch.uint8)
        values = values if self._on_card(values) else values.cpu()
        found = self._buffer("received", width * sum(of), values)
        outward, inward = ([width * size for size in sizes] for sizes in (to, of))
        group = self._group_of(values)
        self.meet(what)
        self._call(lambda: distributed.all_to_all_single(found, values, inward, outward, group=group))
        return found.view(sent.dtype).to(sent.device)

    def _buffer(self, name: str, size: int, like: Tensor) -> Tensor:
        """Memory for `size` values, the same each time: fresh pages would cost more than what is written there."""
        key, needed = (name, like.device), size * like.element_size()
        if key not in self._buffers or len(self._buffers[key]) < needed:
            self._buffers[key] = torch.empty(needed, dtype=torch.uint8, device=like.device)
        return self._buffers[key][:needed].view(like.dtype)

    def _said(self, *header: int) -> list[list[int]]:
        """The header of each process."""
        own = torch.zeros(2 + _NUMBERS, dtype=torch.int64)
        own[: len(header)] = torch.tensor(header)
        every = [torch.empty_like(own) for _ in range(self.count)]
        self._call(lambda: distributed.all_gather(every, own, group=self._beside))
        return [each.tolist() for each in every]

    def _fail(self, error: Exception | None) -> None:
        """Raise what has gone wrong: this process's own error, if it is the first that failed and can be sent."""
        rank, found = first_of(self._each_says(None if error is None else packed(error)))
        if rank == self.rank and type(error) is type(found):
            found = error
        Processes.failures += 1
        self._raised = found
        raise found from (None if error is found else error)

    @staticmethod
    def _call(talk: Callable[[], object]) -> None:
        try:
            talk()
        except RuntimeError as error:
            raise LostProcess(
                f"processes: expected an answer of every process; got {' '.join(str(error).split())[:200]}. See what the "
                "other processes printed."
            ) from error


def in_step(processes: Processes | None) -> AbstractContextManager[None]:
    """`Processes.in_step`; for a process by itself, nothing."""
    return nullcontext() if processes is None else processes.in_step()


def _fill(buffer: Tensor, pieces: Iterator[Tensor]) -> None:
    """Copy tensors into a buffer, one behind the other."""
    place = 0
    for piece in pieces:
        buffer[place : place + piece.numel()].view(piece.shape).copy_(piece)
        place += piece.numel()


def _shaped(values: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Values that lie one behind the other, as tensors of these shapes."""
    flat = values.split([*map(math.prod, shapes)])
    return [each.view(shape) for each, shape in zip(flat, shapes, strict=True)]


def _group_of_main_memory() -> Any:
    """A group by which the processes of the default one pass tensors in main memory; None for that one itself."""
    default = distributed.group.WORLD
    if "gloo" in distributed.get_backend_config():
        return None
    if default not in _BESIDE:
        _BESIDE[default] = distributed.new_group(backend="gloo")
    return _BESIDE[default]
