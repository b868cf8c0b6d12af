"""One module's output is aligned with a frozen encoder of the clean samples, as in REPA (Yu et al. 2024, arXiv 2410.06940).

The loss is 1 − cos(P h, e(x0)), the mean over samples: h is the module's output for the noisy sample, e the encoder, and P a
linear map that is trained beside the network and belongs to no denoiser. REPA compares patch by patch, by an MLP, with a
large encoder; here all numbers of a sample go through one linear map, so that any network can be aligned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, kind_of, listed
from ntkdiag.modes import evaluating
from ntkdiag.train.alignment.encoder import WIDTH, Encoder, trained_encoder
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.loss import Batch, denoising_losses

# A default module lies a third of the way through the blocks, where REPA aligns.
_DEPTH = 1 / 3


class Aligner(nn.Module):
    """The encoder and the linear map; both still to be trained or loaded.

    Args:
        size: Numbers in a sample.
        width: Numbers in the module's output for a sample.
        module: Name of the module in the network.
        seed: Of the linear map.
    """

    def __init__(self, size: int, width: int, module: str, seed: int) -> None:
        super().__init__()
        self.module = module
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.encoder = Encoder(size).requires_grad_(False)
            self.projection = nn.Linear(width, WIDTH)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """The linear map, by names that no parameter of a network has."""
        return {f"align/{name}": p for name, p in self.projection.named_parameters()}

    def learn_encoder(self, data: Data) -> None:
        """Train the encoder."""
        self.encoder.load_state_dict(trained_encoder(data).state_dict())

    def losses(self, denoiser: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        """Denoising losses [N], and the alignment loss of the same forward, between 0 and 2.

        Raises:
            InputError: the module was not called, or gave something without a row a sample.
        """
        with _watched(denoiser, self.module) as seen:
            losses = denoising_losses(denoiser, batch)
        hidden = _rows(seen, self.module, len(batch.x0))
        likeness = nn.functional.cosine_similarity(self.projection(hidden), self.encoder(batch.x0), dim=1)
        return losses, 1 - likeness.mean()


def losses_beside(aligner: Aligner | None, denoiser: Denoiser, batch: Batch) -> tuple[Tensor, ...]:
    """Denoising losses [N], and the alignment loss where there is an aligner."""
    return (denoising_losses(denoiser, batch),) if aligner is None else aligner.losses(denoiser, batch)


def fresh_aligner(denoiser: Denoiser, config: TrainConfig, batch: Batch) -> Aligner:
    """An aligner that fits a network.

    Args:
        denoiser: Left as it is.
        config: `align`, `align_module` and `seed`.
        batch: Any batch, from whose forward the size of the module's output is known.

    Raises:
        InputError: no such module, or an output without a row a sample.
    """
    module = _chosen(denoiser, config.align_module)
    with evaluating(denoiser), _watched(denoiser, module) as seen:
        denoising_losses(denoiser, batch)
    width = _rows(seen, module, len(batch.x0)).shape[1]
    return Aligner(batch.x0[0].numel(), width, module, config.seed).to(batch.x0)


def stored_aligner(
    denoiser: Denoiser, config: TrainConfig, tensors: Mapping[str, Tensor], what: str
) -> Aligner:
    """The aligner that fits the tensors of a checkpoint, still to be loaded.

    Raises:
        InputError: the tensors are not those of an aligner, or no such module.
    """
    needed = {"encoder.first.weight", "projection.weight"}
    if not all(name in tensors and tensors[name].ndim == 2 for name in needed):
        raise InputError(
            f"{what}: align", expected="matrices " + ", ".join(sorted(needed)), got=listed(tensors) or "none"
        )
    size, width = (tensors[name].shape[1] for name in sorted(needed))
    aligner = Aligner(size, width, _chosen(denoiser, config.align_module), config.seed)
    return aligner.to(next(denoiser.parameters()))


def _chosen(denoiser: Denoiser, name: str | None) -> str:
    """The module to align; by default an early one of the network's longest list of modules."""
    modules = dict(denoiser.network.named_modules())
    if name is not None:
        if name not in modules or not name:
            expected = f"the name of a module, such as {listed(filter(None, modules), 4)}"
            raise InputError("align_module", expected=expected, got=repr(name))
        return name
    lists = {path: part for path, part in modules.items() if isinstance(part, nn.ModuleList | nn.Sequential)}
    if not lists or not max(map(len, lists.values())):
        raise InputError(
            "align_module",
            expected=f"the name of a module, such as {listed(filter(None, modules), 4)}",
            got="none, and the network has no list of blocks",
        )
    path = max(lists, key=lambda each: len(lists[each]))
    place = round(_DEPTH * (len(lists[path]) - 1))
    return f"{path}.{list(dict(lists[path].named_children()))[place]}".removeprefix(".")


@contextmanager
def _watched(denoiser: Denoiser, module: str) -> Iterator[list[object]]:
    """Outputs of a module in the forwards of this block."""
    seen: list[object] = []
    handle = denoiser.network.get_submodule(module).register_forward_hook(
        lambda part, given, out: seen.append(out)
    )
    try:
        yield seen
    finally:
        handle.remove()


def _rows(seen: list[object], module: str, count: int) -> Tensor:
    """The module's last output, [N, F]."""
    out = seen[-1] if seen else None
    first = out[0] if isinstance(out, tuple) and out else out
    if not isinstance(first, Tensor) or first.ndim < 2 or len(first) != count:
        got = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else kind_of(first)
        raise InputError(f"output of module '{module}'", expected=f"a tensor [{count}, ...]", got=got)
    return first.flatten(1)
