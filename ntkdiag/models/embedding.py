"""The condition vector of a reference network, from the log-SNR and, if it has classes, the label.

The log-SNR is first bounded, so that an infinite one (no noise, or noise alone) is an ordinary input. Then it
is expanded in sines and cosines, and a small MLP turns these into the condition vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, require_positive_int

# tanh(log_snr / 8) uses two thirds of its range for |log_snr| < 6.5, where images lose their structure, and
# still separates 10 from 12. On [-1, 1], the slowest wave has a period of 4 and the fastest one of 1/8 (32 and
# 1 units of log-SNR at the centre). Both tuned here.
_LOG_SNR_SCALE = 8.0
_SLOWEST, _FASTEST = 0.5, 16.0


def bounded_log_snr(log_snr: Tensor) -> Tensor:
    """The log-SNR squeezed into [-1, 1]: tanh(log_snr / 8), odd, increasing and exact at ±inf."""
    return torch.tanh(log_snr / _LOG_SNR_SCALE)


class Condition(nn.Module):
    """Log-SNR and optional class label to one vector per sample.

    Args:
        width: Length of the condition vector.
        frequencies: Number of sine/cosine pairs in which the log-SNR is expanded.
        classes: Number of classes; None for a network without labels. The embedding has one more row, for "no label".

    Raises:
        InputError: a size is not a positive integer.
    """

    waves: Tensor

    def __init__(self, width: int, frequencies: int, classes: int | None) -> None:
        super().__init__()
        require_positive_int("width", width)
        require_positive_int("frequencies", frequencies)
        self.classes = None if classes is None else require_positive_int("classes", classes)
        steps = torch.linspace(math.log(_SLOWEST), math.log(_FASTEST), frequencies)
        self.register_buffer("waves", math.pi * steps.exp(), persistent=False)
        self.hidden = nn.Linear(2 * frequencies, width)
        self.out = nn.Linear(width, width)
        self.label = None if self.classes is None else nn.Embedding(self.classes + 1, width)
        # What a Denoiser reads of the network: condition → argument, and the label that stands for "no label".
        self.conditions = {} if self.classes is None else {"label": "cond"}
        self.null_conditions = {} if self.classes is None else {"label": self.classes}

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Condition:
        """Convert the module, but keep the waves in float32 or wider: half precision is off by 0.1 radian at the fastest."""
        waves = self.waves
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self.waves = waves.to(self.waves.device, torch.promote_types(self.waves.dtype, torch.float32))
        return self

    def forward(self, log_snr: Tensor, cond: Tensor | None) -> Tensor:
        """log_snr [N] and labels [N] (or None: no label) → [N, width]."""
        level, label = self.of_level(log_snr), self.of_label(log_snr, cond)
        return level if label is None else level + label

    def of_level(self, log_snr: Tensor) -> Tensor:
        """The part that the log-SNR [N] gives, [N, width]."""
        angles = bounded_log_snr(log_snr.to(self.waves.dtype))[:, None] * self.waves  # [N, frequencies]
        features = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.hidden.weight.dtype)
        vector: Tensor = self.out(nn.functional.silu(self.hidden(features)))
        return vector

    def of_label(self, log_snr: Tensor, cond: Tensor | None) -> Tensor | None:
        """The part that labels [N] give, [N, width]; None for a network without classes.

        Args:
            log_snr: [N], for the number of samples where `cond` is None.
            cond: Labels [N], or None for "no label".

        Raises:
            InputError: labels for a network without classes.
        """
        if self.label is None or self.classes is None:
            if cond is not None:
                raise InputError(
                    "cond",
                    expected="None for a network built without classes",
                    got="class labels",
                    fix="Build the network with {classes}.",
                    arguments={"classes": "K"},
                )
            return None
        labels = torch.full_like(log_snr, self.classes, dtype=torch.long) if cond is None else cond
        labelled: Tensor = self.label(labels)
        return labelled


def check_input(x: Tensor, log_snr: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse inputs of another shape than the network was built for, with a clear message.

    Raises:
        InputError: `x` is not [N, *shape] or `log_snr` is not [N].
    """
    if tuple(x.shape[1:]) != shape or x.ndim != len(shape) + 1:
        sizes = ", ".join(map(str, shape))
        raise InputError("network input x", expected=f"shape [N, {sizes}]", got=list(x.shape))
    if tuple(log_snr.shape) != (x.shape[0],):
        raise InputError("network input log_snr", expected=f"shape [{x.shape[0]}]", got=list(log_snr.shape))
