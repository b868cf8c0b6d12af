"""Networks of the diffusers library: a model with its scheduler, in memory or in a folder of `save_pretrained`."""

from __future__ import annotations

from ntkdiag.adapters.diffusers.encoding import MOST, latents
from ntkdiag.adapters.diffusers.folder import Folder, is_folder
from ntkdiag.adapters.diffusers.reading import diffusers_reading

__all__ = ["MOST", "Folder", "diffusers_reading", "is_folder", "latents"]
