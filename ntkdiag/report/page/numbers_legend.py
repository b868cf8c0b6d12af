"""What the columns of the table of numbers mean, of those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ntkdiag.report.page.summary_sentences import one_untrained

if TYPE_CHECKING:
    from ntkdiag.diagnosis import Diagnosis

# First word of a heading → what stands below it.
_MEANINGS = {
    "trace": "trace: sum of the eigenvalues of the kernel divided by the number of samples",
    "effective": "effective rank: exponential of the entropy of these eigenvalues, a count of directions",
    "untrained": "untrained: the effective rank of {untrained}",
    "PR": "PR: participation ratio, the squared sum of the eigenvalues over the sum of their squares, estimated from pairs "
    "of samples so that few samples do not make it too small",
    "amplitude": "amplitude: size of the part of the target that the noisy input expresses, from schedule and target",
    "Bayes": "Bayes share: share of the target's variance that the input reveals (≥: lower 95% bound)",
    "GSNR": "GSNR: gradient signal-to-noise ratio of one sample; where its interval contains 0, no common direction of the "
    "gradients was found",
    "weight": "weight: of the loss, at mean 1 over the range measured",
    "loss": "loss: squared error of the target for each dimension, not weighted",
}


def legend(columns: Sequence[str], diagnosis: Diagnosis) -> str:
    """The caption of the table of numbers.

    Args:
        columns: Its headings.
        diagnosis: What it shows.
    """
    shown = {heading.split()[0] for heading in columns}
    meanings = [text[0].upper() + text[1:] for word, text in _MEANINGS.items() if word in shown]
    said = ". ".join(meanings).replace("{untrained}", one_untrained(diagnosis))
    return f"One row a noise level, noisiest first, with 90% intervals in brackets. {said}."
