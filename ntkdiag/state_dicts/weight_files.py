"""Weights of networks in files: written as .safetensors, and read from checkpoints as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from ntkdiag import provenance
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, listed
from ntkdiag.state_dicts.checkpoint import WeightsTaken, weights_in
from ntkdiag.state_dicts.fit import load_state
from ntkdiag.tensor_files import INDEX_SUFFIX, TORCH_SUFFIXES, read_safetensors, read_sharded, read_torch


def save_weights(network: nn.Module, path: Path | str) -> None:
    """Write a network's parameters and buffers to a .safetensors file, whole or not at all.

    Args:
        network: Any module; for a `Denoiser`, the network inside it is saved.
        path: The file to write.

    Raises:
        InputError: the folder cannot be written to.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> save_weights(network, "weights.safetensors")
    """
    provenance.write_bytes(path, safetensors.torch.save(state_of(bare(network))))


def load_weights(network: nn.Module, path: Path | str, weights_key: str | None = None) -> WeightsTaken:
    """Load the weights of a checkpoint into a network, in place. Nothing in the file is run.

    The weights are found by the network's own names and shapes, below any dicts ("state_dict", "model", "ema", …) and behind
    any prefix ("module.", "_orig_mod.", "model.", …). Where a moving average and other weights fit, the average is taken.

    Args:
        network: Any module; for a `Denoiser`, the network inside it is loaded. The stored numbers are converted to
            its dtype and device.
        path: A .safetensors file; the .index.json of a sharded one; a file of `torch.save`, such as .pt, .pth or .ckpt; or a
            folder with one of these in it.
        weights_key: Which weights of the file to take: the names of the dicts on the way to them and the prefix of their
            names, with dots between, such as "ema" or "state_dict.model"; "." for the top level.

    Returns:
        Which weights were taken.

    Raises:
        InputError: the file is missing or damaged, or cannot be read without running code; no weights in it fit (the error
            says what is missing); several do and `weights_key` does not say which; or they contain a NaN or infinity.

    Example:
        >>> network = nd.models.build("mlp", (2,))
        >>> average = {f"module.{name}": value for name, value in network.state_dict().items()}
        >>> torch.save({"step": 5, "model": network.state_dict(), "ema": average}, "net.pt")
        >>> print(load_weights(network, "net.pt"))
        the weights 'ema.module' of net.pt, a moving average, were taken; 'model' would fit too
    """
    file, module = _file(Path(path)), bare(network)
    owner = type(module).__name__
    state, taken = weights_in(_read(file), module.state_dict(), str(file), owner, weights_key)
    load_state(module, state, str(file))
    return taken


def bare(network: nn.Module) -> nn.Module:
    """The network inside a denoiser; any other module as it is."""
    return network.network if isinstance(network, Denoiser) else network


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state on the CPU; tied tensors are copied once for each of their names.

    Raises:
        InputError: the state is not all tensors.
    """
    state = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"state of {type(module).__name__}",
                expected="tensors alone",
                got=f"{type(value).__name__} in {name}",
                fix="Keep what must be saved in buffers.",
            )
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def _read(file: Path) -> Any:
    if file.name.endswith(INDEX_SUFFIX):
        return read_sharded(file)
    return read_torch(file) if file.suffix.lower() in TORCH_SUFFIXES else read_safetensors(file)


def _file(path: Path) -> Path:
    """The file of a checkpoint; of a folder, its index or the only file of weights in it."""
    if not provenance.is_folder(path):
        return path
    names = sorted(file.name for file in path.iterdir())
    found = [name for name in names if name.endswith(INDEX_SUFFIX)] or [
        name for name in names if Path(name).suffix in (".safetensors", *TORCH_SUFFIXES)
    ]
    if len(found) != 1:
        raise InputError(
            str(path),
            expected="a file, or a folder with one checkpoint in it",
            got=listed(found) or "none in it",
        )
    return path / found[0]
