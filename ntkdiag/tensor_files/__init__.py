"""Files of tensors from outside (.safetensors, sharded ones, torch.save), read as data and never as code."""

from __future__ import annotations

from ntkdiag.tensor_files.safetensors_file import read_safetensors
from ntkdiag.tensor_files.sharded import INDEX_SUFFIX, read_sharded
from ntkdiag.tensor_files.torch_file import TORCH_SUFFIXES, read_torch

__all__ = ["INDEX_SUFFIX", "TORCH_SUFFIXES", "read_safetensors", "read_sharded", "read_torch"]
