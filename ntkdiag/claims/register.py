"""The register of claims: `@claim` adds one, and `verify`, the command line and the page show every claim in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ntkdiag.claims.answer import Answer
from ntkdiag.claims.evidence import Evidence
from ntkdiag.errors import InputError

Examine = Callable[[Evidence], Answer]


@dataclass(frozen=True)
class Claim:
    """One claim and how it is answered.

    Attributes:
        name: C1, C2, ...; one word that tables show.
        statement: What is claimed, one sentence.
        reads: Kernel statistics that the answer needs, names of `ntkdiag.spectra.STATISTICS`. Each adds two effects to those
            whose limits hold together.
        examine: Evidence of one diagnosis → `Answer`.

    Example:
        >>> from ntkdiag.claims import CLAIMS
        >>> CLAIMS["C2"].name, "effective_rank" in CLAIMS["C2"].reads
        ('C2', True)
    """

    name: str
    statement: str
    reads: tuple[str, ...]
    examine: Examine


CLAIMS: dict[str, Claim] = {}


def claim(name: str, statement: str, *, reads: Sequence[str] = ()) -> Callable[[Examine], Examine]:
    """Decorator that registers a function as the answer to a claim.

    Args:
        name, statement, reads: See `Claim`.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        InputError: the name is taken.

    Example:
        >>> from ntkdiag.claims import CLAIMS, claim, falls
        >>> @claim("C8", "The stable rank falls towards both ends.", reads=["stable_rank"])
        ... def stable_rank_falls(evidence):
        ...     return falls("stable_rank", evidence)
        >>> CLAIMS.pop("C8").statement
        'The stable rank falls towards both ends.'
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
