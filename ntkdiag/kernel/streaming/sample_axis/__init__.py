"""Where the samples are in a tensor."""
