"""What becomes of a gradient: its form, and its contraction into the Gram matrix."""
