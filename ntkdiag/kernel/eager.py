"""Plain eager execution: checkpointing, fused attention layers and compiled graphs are off inside a block.

Gradient checkpointing would run the forward a second time, unrecorded, during the backward; the fused path of multi-head
attention and compiled graphs would hide the operations inside from the recorder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import checkpoint


@contextmanager
def plain_eager() -> Iterator[None]:
    """Run checkpointed, fused and compiled modules as plain eager ones."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with uncompiled(), _without_checkpointing():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled modules run eagerly; nothing can be compiled before the compiler is imported, which takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


class _Direct:
    """Stands in for the reentrant checkpoint's autograd function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _no_saving(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


# What torch.utils.checkpoint calls for use_reentrant=False: the first name since torch 2.14, the second before.
_GENERATORS = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")


@contextmanager
def _without_checkpointing() -> Iterator[None]:
    """Both kinds of torch.utils.checkpoint call the function directly; the modules keep their own references to them."""
    replacements: dict[str, Any] = {"CheckpointFunction": _Direct}
    replacements |= {name: _no_saving for name in _GENERATORS if hasattr(checkpoint, name)}
    kept = {name: getattr(checkpoint, name) for name in replacements}
    vars(checkpoint).update(replacements)
    try:
        yield
    finally:
        vars(checkpoint).update(kept)
