"""Weights in the trainers of diffusers, EDM, k-diffusion, accelerate and Lightning, one small module each.

Each takes a weight table or a `Refresher`, accepts what its trainer passes and returns weights in the shape of the
trainer's loss. The docstring of each module shows the three lines that a user adds.
"""
