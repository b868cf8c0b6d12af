"""Pictures of Pillow as samples: gray ones with one channel, all others with three, transparent parts in white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ntkdiag.data.pictures import PictureForm, resized
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B"}
_GRAY = {"1", "L", "LA", "La", *_SIXTEEN_BITS}
_COLOUR = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr"}


def is_picture(value: Any) -> bool:
    """Whether a value is a picture of Pillow; Pillow is not imported for it."""
    return all(hasattr(value, name) for name in ("getbands", "convert", "mode", "size"))


def is_gray(picture: Image, what: str) -> bool:
    """Whether a picture has no colours.

    Raises:
        InputError: its pixels are neither 8 nor 16 bits.
    """
    if picture.mode not in _GRAY | _COLOUR:
        raise InputError(
            what, expected="a picture of 8 or 16 bits a channel", got=f"Pillow's mode {picture.mode}"
        )
    return picture.mode in _GRAY


def sample_of(picture: Image, gray: bool, form: PictureForm) -> Tensor:
    """A picture as [1, height, width] or [3, height, width], float32.

    Args:
        picture: Of a mode that `is_gray` knows.
        gray: Whether one channel is wanted.
        form: Range of values, and size.
    """
    if picture.mode in _SIXTEEN_BITS:
        pixels, peak = torch.from_numpy(np.asarray(picture).astype(np.float32))[None], 65535.0
        pixels = pixels if gray else pixels.expand(3, -1, -1)
    else:
        values = np.array(_opaque(picture).convert("L" if gray else "RGB"))
        pixels, peak = torch.from_numpy(values).float().reshape(*values.shape[:2], -1).movedim(2, 0), 255.0
    sample = form.scaled(pixels, peak)
    return sample if form.size is None else resized(sample[None], form.size)[0]


def _opaque(picture: Image) -> Image:
    """The picture over white, where parts of it are transparent."""
    if "A" not in picture.getbands() and "a" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    from PIL import Image

    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
