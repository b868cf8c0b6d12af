"""The paper's claims as tests that can fail, on any model: one file a claim, one verdict a claim."""

from ntkdiag.claims.verdict import judge, verify

__all__ = ["judge", "verify"]
