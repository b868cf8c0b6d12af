"""Hooks for other people's trainers, each a few lines thick: diffusers, EDM, k-diffusion, accelerate, Lightning.

A weight table or a `Refresher` goes in; what comes out has the shape of the argument that the trainer hands over
and of the result it multiplies its loss with. The three lines that a user adds stand in each module.
"""
