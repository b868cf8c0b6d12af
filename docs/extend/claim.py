"""A claim of your own: one decorated function, which `nd.verify`, `ntkdiag verify` and the page show beside the paper's.

Put the function in a file of your own and import it, or add the file to ntkdiag/claims/paper/. Run this one with
`python docs/extend/claim.py`.
"""

from __future__ import annotations

from ntkdiag.claims import Answer, Evidence, claim, falls


@claim("C8", "The stable rank falls where the target is less recoverable.", reads=["stable_rank"])
def stable_rank_falls(evidence: Evidence) -> Answer:
    """At which ends of the log-SNR range it falls, with the numbers, beside those of fresh networks."""
    return falls("stable_rank", evidence)


def main() -> None:
    import ntkdiag as nd

    def fresh(seed: int) -> nd.Denoiser:
        network = nd.models.build("mlp", (2,), seed=seed, width=16, depth=1)
        return nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")

    data, buckets = nd.data.mixture(train=256, held_out=8), nd.Buckets.uniform(-8, 8, count=6)
    found = nd.verify(fresh(0), data, buckets, samples=24, probes=4, fresh=fresh, controls=2)
    print(found.answers[["claim", "noisy", "clean"]].to_string(index=False))


if __name__ == "__main__":
    main()
