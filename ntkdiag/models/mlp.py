"""A multilayer perceptron for vectors: the reference network of the two-dimensional mixture.

Every hidden layer adds a shift, computed from the log-SNR, before its SiLU, so the noise level enters every layer.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from ntkdiag.errors import require_positive_int
from ntkdiag.models.embedding import Condition, check_input


class MLP(nn.Module):
    """Denoising MLP for samples of any shape, which are flattened.

    Args:
        shape: Shape of one sample, without the batch dimension.
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        frequencies: Number of sine/cosine pairs in which the log-SNR is expanded.
        classes: Number of class labels; None for none.

    Raises:
        InputError: a size is not a positive integer.

    Example:
        >>> MLP((2,), width=32)(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        frequencies: int = 16,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        require_positive_int("width", width)
        require_positive_int("depth", depth)
        self.shape = tuple(shape)
        size = math.prod(self.shape)
        self.condition = Condition(width, frequencies, classes)
        self.conditions, self.null_conditions = self.condition.conditions, self.condition.null_conditions
        self.layers = nn.ModuleList(nn.Linear(width if i else size, width) for i in range(depth))
        self.shifts = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.out = nn.Linear(width, size)

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """Predict the target.

        Args:
            x: Noised samples [N, *shape].
            log_snr: Natural log of the signal-to-noise ratio, [N]; ±inf is allowed.
            cond: Class labels [N] in [0, classes]; `classes` or None for "no label".

        Returns:
            The prediction, shaped like `x`.
        """
        check_input(x, log_snr, self.shape)
        condition = nn.functional.silu(self.condition(log_snr, cond))  # [N, width]
        hidden = x.flatten(1)
        for layer, shift in zip(self.layers, self.shifts, strict=True):
            hidden = nn.functional.silu(layer(hidden) + shift(condition))
        prediction: Tensor = self.out(hidden).reshape(x.shape)
        return prediction
