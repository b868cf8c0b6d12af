"""Weights in the training loops of EDM and EDM2, as a loss class.

Both loops build their loss from a class name and its arguments, call it as loss(net=, images=, labels=), and get
back one number an element, which they sum:

    c.loss_kwargs.update(class_name="ntkdiag.integrations.edm.WeightedEDM2Loss")
    c.loss_kwargs.update(weights="weights.csv", P_mean=-0.4, P_std=1.0, sigma_data=0.5)

in train_edm2.py, or WeightedEDMLoss in train.py of EDM. With a `Refresher` in place of a path, a third line in the
loop: `loss_fn.after_step(state.cur_nimg // batch_size)` after the optimiser's step. EDM2's checkpoints then carry
the state of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.integrations.wrapped import Wrapped
from ntkdiag.process import schedules
from ntkdiag.process.target import convert_weight
from ntkdiag.weights import WeightSource

_TARGETS = ("F", "x0")


class _EDMWeights(Wrapped):
    """Noise levels, and weights of the squared error of x0; see `WeightedEDMLoss`."""

    def __init__(
        self,
        weights: WeightSource | Path | str,
        P_mean: float,
        P_std: float,
        sigma_data: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__(weights)
        if self.target not in _TARGETS:
            raise InputError(
                "weights",
                expected="weights for F or x0, which EDM networks predict",
                got=f"weights for {self.target}",
            )
        self._schedule = schedules.edm(sigma_data, P_mean, P_std)
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data
        self._generator = generator

    def weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error of x0 at noise levels of any shape, in their dtype."""
        log_snr = -2 * sigma.to(torch.float64).log()
        return convert_weight(self.source(log_snr), log_snr, self._schedule, self.target, "x0").to(sigma)

    def _draw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels [N, 1, 1, 1] and noise [N, C, H, W], in the order in which these loops draw them."""
        shape = (len(images), *(1,) * (images.ndim - 1))
        level = torch.randn(shape, device=images.device, generator=self._generator)
        sigma = (level * self.P_std + self.P_mean).exp()
        unit = torch.randn(images.shape, device=images.device, dtype=images.dtype, generator=self._generator)
        return sigma, unit * sigma


class WeightedEDMLoss(_EDMWeights):
    """The loss of EDM (Karras et al. 2022, arXiv 2206.00364, equation 2) with given weights.

    Args:
        weights: Weights for F, what the raw network predicts, or for x0, what `net` returns; or the path
            of a table. A weight on F is written on x0 with 1/c_out², so that 1 on F is EDM's own loss.
        P_mean, P_std: ln of the noise level is drawn from N(P_mean, P_std²).
        sigma_data: Standard deviation of the data that the network's preconditioning assumes.
        generator: Source of randomness; None is torch's own, which these loops seed.

    Raises:
        InputError: weights for another target.

    Example:
        >>> loss = WeightedEDMLoss(nd.weights.rule("constant_epsilon", "F", nd.schedules.edm()))
        >>> loss(lambda x, sigma, labels, augment_labels: x, torch.zeros(4, 3, 8, 8)).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        weights: WeightSource | Path | str,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        sigma_data: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(weights, P_mean, P_std, sigma_data, generator)

    def __call__(
        self,
        net: Callable[..., Any],
        images: Tensor,
        labels: Tensor | None = None,
        augment_pipe: Callable[[Tensor], tuple[Tensor, Any]] | None = None,
    ) -> Tensor:
        """The weighted squared error of every element.

        Args:
            net: Called as net(noisy, sigma, labels, augment_labels=) → x0.
            images: [N, C, H, W].
            labels: [N, ...] or None.
            augment_pipe: images → (images, labels of the augmentation).

        Returns:
            [N, C, H, W].
        """
        clean, augment_labels = (images, None) if augment_pipe is None else augment_pipe(images)
        sigma, noise = self._draw(clean)
        denoised = net(clean + noise, sigma, labels, augment_labels=augment_labels)
        losses: Tensor = self.weight(sigma) * (denoised - clean) ** 2
        return losses


class WeightedEDM2Loss(_EDMWeights):
    """The loss of EDM2 (Karras et al. 2024, arXiv 2312.02696, equation 16) with given weights.

    EDM2 divides each noise level's loss by e^u and adds u, which is learned. At its optimum e^u = E[w‖D − x‖²], so
    a learned u cancels any weight w: weights have a lasting effect only without it.

    Args:
        uncertainty: Whether u is used nevertheless; False makes the loss the weighted squared error alone.
        weights, P_mean, P_std, sigma_data, generator: As in `WeightedEDMLoss`; defaults are EDM2's own.

    Example:
        >>> loss = WeightedEDM2Loss(nd.weights.rule("constant_epsilon", "F", nd.schedules.edm()))
        >>> loss.weight(torch.tensor([0.5])).shape
        torch.Size([1])
    """

    def __init__(
        self,
        weights: WeightSource | Path | str,
        P_mean: float = -0.4,
        P_std: float = 1.0,
        sigma_data: float = 0.5,
        uncertainty: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(weights, P_mean, P_std, sigma_data, generator)
        self.uncertainty = uncertainty

    def __call__(self, net: Callable[..., Any], images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The weighted squared error of every element.

        Args:
            net: Called as net(noisy, sigma, labels, return_logvar=True) → (x0, u [N, 1, 1, 1]).
            images: [N, C, H, W].
            labels: [N, ...] or None.

        Returns:
            [N, C, H, W].
        """
        sigma, noise = self._draw(images)
        denoised, u = net(images + noise, sigma, labels, return_logvar=True)
        loss = self.weight(sigma) * (denoised - images) ** 2
        # 0·u keeps the parameters of u in the autograd graph, which data-parallel training requires.
        losses: Tensor = loss / u.exp() + u if self.uncertainty else loss + 0 * u
        return losses
