"""In which precision a tensor's numbers were computed: on a card, products and convolutions of float32 may be in TF32."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

# Not a dtype of torch's: the range of float32 and the ten-bit mantissa of float16.
TF32: Final = "TF32"

Precision = torch.dtype | str


def computed_in(tensor: Tensor) -> Precision:
    """TF32 for float32 on a CUDA card that is allowed to use it (by default in convolutions), else the tensor's dtype."""
    return TF32 if tensor.dtype == torch.float32 and _on_card(tensor) and tf32_is_allowed() else tensor.dtype


def tf32_is_allowed() -> bool:
    """Whether products or convolutions of float32 may be rounded to TF32 on a card."""
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if not hasattr(products, "fp32_precision"):  # torch before 2.9
        return bool(products.allow_tf32 or cudnn.allow_tf32)
    settings: tuple[Any, ...] = (
        torch.backends,
        products,
        *(getattr(cudnn, part) for part in ("conv", "rnn")),
    )
    return any(each.fp32_precision == "tf32" for each in settings)


def _on_card(tensor: Tensor) -> bool:
    return tensor.is_cuda
