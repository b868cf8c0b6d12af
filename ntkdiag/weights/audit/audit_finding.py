"""AuditFinding: one result of an audit, with a fixed name and a severity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ntkdiag.errors import require_one_of

SEVERITIES = ("mistake", "warning", "note")

# All names and their meaning.
NAMES = {
    "another_rule": "the weights are those of another rule than the one named",
    "other_parameters": "the rule is the one named, its parameters are not",
    "formula_of_another_target": "the rule as written for another target than the one trained on",
    "max_for_min": "a maximum where min-SNR takes the minimum",
    "snr_not_squared": "α/σ taken for α²/σ²",
    "snr_squared_twice": "α⁴/σ⁴ taken for α²/σ²",
    "snr_inverted": "σ²/α² taken for α²/σ²",
    "snr_plus_one": "1 added to SNR before the minimum is taken",
    "weight_plus_one": "1 added to the weight of the ε formula, to make it one for v",
    "snr_before_rescale": "SNR of the betas before they were rescaled to zero terminal SNR",
    "debias_without_root": "1/(1 + SNR) for debias on v, which is √SNR/(1 + SNR)",
    "differs": "the weights are those of no rule, or not those of the rule named",
    "equals": "the weights are those of a rule",
    "table_for_another_target": "the table was made for another target",
    "one_scalar_for_batch": "one weight for a whole batch",
    "depends_on_batch": "the weight of a sample depends on the rest of its batch",
    "wrong_shape": "weights of another shape than the batch",
    "not_repeatable": "two calls give two answers",
    "fails": "the function fails on some input",
    "not_finite": "NaN or infinite weights at noise levels of training",
    "negative": "weights below zero",
    "not_finite_at_zero_snr": "NaN or infinite weights where the input is pure noise",
    "wrong_at_zero_snr": "another weight than the rule's limit where the input is pure noise",
    "not_finite_at_infinite_snr": "NaN or infinite weights where the input has no noise",
    "half_precision": "wrong, NaN or infinite weights for an argument in half precision",
    "mean_not_one": "a mean other than 1, which changes the learning rate",
    "mean_unbounded": "a mean carried by noise levels that are hardly ever drawn",
}


@dataclass(frozen=True)
class AuditFinding:
    """One thing an audit found.

    Attributes:
        name: A key of `NAMES`.
        severity: "mistake" (the audit fails), "warning" (harmless under conditions that the text names), "note".
        text: One line for people.
        log_snr: Where, or None.

    Example:
        >>> found = nd.audit(lambda snr: snr.clamp(max=5), "v", rule="min_snr", gamma=5)
        >>> found.findings[0].severity
        'mistake'
    """

    name: str
    severity: str
    text: str
    log_snr: float | None = None

    def __post_init__(self) -> None:
        require_one_of("finding", self.name, NAMES)
        require_one_of("severity", self.severity, SEVERITIES)

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.text}"
