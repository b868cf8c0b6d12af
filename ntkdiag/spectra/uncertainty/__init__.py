"""How sure a statistic of a Gram matrix is: resampling, intervals, rarefaction."""
