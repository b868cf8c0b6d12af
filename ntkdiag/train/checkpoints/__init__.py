"""Checkpoints of a training run, and safetensors files of a network's weights."""
