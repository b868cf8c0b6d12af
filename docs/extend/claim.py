"""A claim of your own: one decorated function, which `nd.verify`, `ntkdiag verify` and the page show beside the paper's.

Put the function in a file of your own and import it, or add the file to ntkdiag/claims/paper/. Run this one with
`python docs/extend/claim.py`.
"""

from __future__ import annotations

from ntkdiag.claims import ClaimResult, Evidence, claim, falls


@claim("C4", "The stable rank falls where the target is less recoverable.", reads=["stable_rank"])
def stable_rank_falls(evidence: Evidence) -> ClaimResult:
    """Compare the most with the least recoverable third of the buckets, relative to the untrained control."""
    return falls("stable_rank", evidence)


def main() -> None:
    import ntkdiag as nd

    def denoiser(seed: int) -> nd.Denoiser:
        network = nd.models.build("mlp", (2,), seed=seed, width=16, depth=1)
        return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")

    data, buckets = nd.data.mixture(train=256, held_out=8), nd.Buckets.uniform(-8, 8, count=6)
    verdicts = nd.verify(denoiser(0), data, buckets, samples=24, probes=4, refs={"untrained": denoiser(1)})
    print(verdicts[["claim", "verdict", "effect", "low", "high", "p_holm"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
