"""The register of claims: `@claim` adds one, and `judge`, the command line and the page show every claim in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ntkdiag.claims.evidence import Evidence
from ntkdiag.claims.verdict import ClaimResult
from ntkdiag.errors import InputError

Examine = Callable[[Evidence], ClaimResult]


@dataclass(frozen=True)
class Claim:
    """One claim and the test of it.

    Attributes:
        name: C1, C2, ...; one word that tables show.
        statement: What is claimed, one sentence.
        reads: Kernel statistics that the test needs, names of `ntkdiag.spectra.STATISTICS`.
        examine: The test: evidence of one diagnosis → `ClaimResult`.
    """

    name: str
    statement: str
    reads: tuple[str, ...]
    examine: Examine


CLAIMS: dict[str, Claim] = {}


def claim(name: str, statement: str, *, reads: Sequence[str]) -> Callable[[Examine], Examine]:
    """Decorator that registers a function as the test of a claim.

    Args:
        name, statement, reads: See `Claim`.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        InputError: the name is taken.

    Example:
        @claim("C4", "The stable rank falls where the target is less recoverable.", reads=["stable_rank"])
        def stable_rank_falls(evidence):
            return falls("stable_rank", evidence)
    """
    if name in CLAIMS:
        raise InputError(
            f"claim '{name}'",
            expected="a name that no other claim has",
            got=f"the name of: {CLAIMS[name].statement}",
            fix=f"Choose another name than {', '.join(CLAIMS)}.",
        )

    def register(examine: Examine) -> Examine:
        CLAIMS[name] = Claim(name, statement, tuple(reads), examine)
        return examine

    return register
