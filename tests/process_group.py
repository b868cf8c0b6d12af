"""A group of processes that stay up for many tests: each job is a function that all of them call at the same time."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed

# Seconds after which a job counts as one that waits for ever.
PATIENCE = 300.0


class ProcessGroup:
    """Processes of one gloo group, each with one thread.

    Args:
        count: How many.
        folder: Where they find each other.
    """

    def __init__(self, count: int, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        # What takes seconds is imported once for all of them; modules of tests cannot be, whose folders the server lacks.
        context.set_forkserver_preload(["torch._dynamo", "ntkdiag.diagnosis", "ntkdiag.train"])
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(rank, count, folder / "meeting", theirs), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, job: Callable[..., Any], *args: Any, **options: Any) -> list[Any]:
        """What the job returns in each process; an exception that it raises is its result."""
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps((sys.path, pickle.dumps((job, args, options)))))
        found = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(PATIENCE):
                self.close()
                raise TimeoutError(f"process {rank} does not answer: {job.__name__}{args}")
            found.append(pickle.loads(pipe.recv_bytes()))
        return found

    def same(self, job: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The result of the job, which is the same in every process."""
        first, *others = self.run(job, *args, **options)
        if isinstance(first, Exception):
            raise first
        for other in others:
            assert _equal(first, other)
        return first

    def errors(self, job: Callable[..., Any], *args: Any, **options: Any) -> list[Exception]:
        """The exceptions that the job raises."""
        found = self.run(job, *args, **options)
        assert all(isinstance(each, Exception) for each in found), found
        return found

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    return bool(a == b)


def _work(rank: int, count: int, meeting: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    while True:
        try:
            path, work = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            sys.path[:] = path  # where the test finds its modules
            job, args, options = pickle.loads(work)
            found = job(*args, **options)
        except Exception as error:
            print("".join(traceback.format_exception(error)), file=sys.stderr)
            found = error
        try:
            pipe.send_bytes(pickle.dumps(found))
        except Exception as error:
            pipe.send_bytes(pickle.dumps(TypeError(f"a result that cannot be sent: {found!r}, {error}")))
