"""A weight rule of your own: one decorated function, which tables, training, the audit and the figures know by name.

Put the function in a file of your own and import it, or add it to ntkdiag/weights/rules/formulas.py. Run this one with
`python docs/extend/weight_rule.py`.
"""

from __future__ import annotations

from torch import Tensor

from ntkdiag.weights import Parameter, register_rule


@register_rule(
    "bell",
    "epsilon",
    text="exp(−(λ − center)²/(2·width²)) on ε",
    reference="this example",
    parameters={"center": Parameter(0.0), "width": Parameter(2.0, above=0.0)},
)
def bell(log_snr: Tensor, *, center: float, width: float) -> Tensor:
    """ln of a normal curve over log-SNR: training effort goes to the noise levels around `center`."""
    return -(((log_snr - center) / width) ** 2) / 2


def main() -> None:
    import ntkdiag as nd

    table = nd.weights.rule("bell", "v", nd.schedules.cosine(), center=1.0)
    print(table, "weight at log-SNR 1:", round(table(1.0).item(), 3))
    print(nd.audit(lambda snr: (-((snr.log() - 1) ** 2) / 8).exp(), "epsilon"))


if __name__ == "__main__":
    main()
