"""Intervals of the statistics of a Gram matrix (effective rank, trace, …): jackknife, rarefaction."""
