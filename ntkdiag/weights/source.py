"""WeightSource: the weights that training uses, a function of log-SNR that may change between steps.

A `WeightTable` never changes; a `Refresher` measures again every few hundred steps; a `LearnsFromLosses` follows the losses.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ntkdiag.errors import InputError, kind_of


@runtime_checkable
class WeightSource(Protocol):
    """Loss weights for one target.

    Example:
        >>> isinstance(nd.weights.rule("erd", "v"), nd.weights.WeightSource)
        True
    """

    target: str

    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights ≥ 0 for log-SNR of any shape, in its dtype and on its device."""

    def after_step(self, step: int) -> None:
        """Called once after every optimiser step with the number of steps done so far (1, 2, …)."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to continue identically, as JSON can hold it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; a state of other weights is refused."""


@runtime_checkable
class LearnsFromLosses(Protocol):
    """A `WeightSource` that the trainer shows the losses of every step, such as `LearnedUncertainty`.

    Example:
        >>> isinstance(nd.weights.rule("erd", "v"), nd.weights.LearnsFromLosses)  # a table does not change
        False
    """

    def observe(self, log_snr: Tensor, losses: Tensor) -> None:
        """Called after every optimiser step, before `after_step`, with log-SNR and unweighted losses of the batch, [N]."""


def require_weight_source(weights: object, target: str) -> None:
    """Refuse what is no `WeightSource` for a target.

    Args:
        weights: What is to be used as weights.
        target: What the denoiser predicts.

    Raises:
        InputError: see above.
    """
    if not isinstance(weights, WeightSource):
        raise InputError(
            "weights",
            expected="a WeightTable or a Refresher, or None for 1 everywhere",
            got=repr(weights) if isinstance(weights, str) else kind_of(weights),
            fix="Make a table of a rule with nd.weights.rule(name, target), or read one with nd.WeightTable.load(path).",
        )
    if weights.target != target:
        raise InputError(
            "weights",
            expected=f"weights for the target the denoiser predicts, {target}",
            got=f"weights for {weights.target}",
        )
