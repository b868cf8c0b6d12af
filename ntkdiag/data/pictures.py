"""From pixels to samples: channels first, a stated range of values, a stated size.

uint8 values are pixels from 0 to 255 and are scaled; floating-point values are samples already and stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_number, require_positive_int

ImageSize: TypeAlias = "int | Sequence[int]"
PixelRange: TypeAlias = "Sequence[float]"

DEFAULT_RANGE = (-1.0, 1.0)
PEAKS = {torch.uint8: 255.0, torch.uint16: 65535.0}
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class PictureForm:
    """What pictures become.

    Args:
        size: Height and width; None for the pictures' own.
        pixel_range: What the lowest and the highest value of a pixel become; None for −1 and 1.
    """

    size: tuple[int, int] | None = None
    pixel_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, image_size: ImageSize | None, pixel_range: PixelRange | None) -> PictureForm:
        """From what a caller passes: a side or (height, width), and (low, high).

        Raises:
            InputError: sizes that are not positive integers, or a range that does not increase.
        """
        size = None
        if image_size is not None:
            sides = list(image_size) if isinstance(image_size, Sequence) else [image_size, image_size]
            if len(sides) != 2:
                raise InputError("image_size", expected="a side, or height and width", got=repr(image_size))
            size = (
                require_positive_int("image_size", sides[0]),
                require_positive_int("image_size", sides[1]),
            )
        if pixel_range is None:
            return cls(size)
        ends = list(pixel_range) if isinstance(pixel_range, Sequence) else []
        if len(ends) != 2 or isinstance(pixel_range, str):
            raise InputError("pixel_range", expected="two numbers, low and high", got=repr(pixel_range))
        low, high = (require_number("pixel_range", end) for end in ends)
        if not low < high:
            raise InputError("pixel_range", expected="low below high", got=f"{low:g} and {high:g}")
        return cls(size, (low, high))

    def samples(self, values: Tensor) -> Tensor:
        """The samples of a batch.

        Args:
            values: [N, ...] uint8, uint16 or floating point. Pixels are [N, H, W], [N, C, H, W] or [N, H, W, C].

        Returns:
            [N, *shape], floating point: float32, or float64 if `values` are.

        Raises:
            InputError: a size for samples that are no pictures, or a range for values that are not scaled.
        """
        if values.dtype in PEAKS:
            floats = self.scaled(_channels_first(values).float(), PEAKS[values.dtype])
        else:
            if self.pixel_range is not None:
                raise InputError(
                    "pixel_range",
                    expected="pixels in uint8, since floating-point values are taken as they are",
                    got=str(values.dtype),
                )
            floats = values if values.dtype == torch.float64 else values.float()
        return floats if self.size is None else resized(floats, self.size)

    def scaled(self, pixels: Tensor, peak: float) -> Tensor:
        """Pixels from 0 to `peak` in the range of this form."""
        low, high = self.pixel_range or DEFAULT_RANGE
        return pixels / (peak / (high - low)) + low

    def describe(self, dtype: torch.dtype) -> str:
        """What is done to values of a type, in words."""
        if dtype in PEAKS:
            low, high = self.pixel_range or DEFAULT_RANGE
            scale = f"pixels 0 to {PEAKS[dtype]:g} scaled to [{low:g}, {high:g}]"
        else:
            scale = f"{str(dtype).removeprefix('torch.')} values as they are"
        if self.size is None:
            return scale
        height, width = self.size
        return f"{scale}, resized to {height} × {width} (bilinear, antialiased, the middle cut out)"


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures of a size: scaled until they cover it, and the middle cut out.

    Args:
        pictures: [N, C, H, W], floating point.
        size: Height and width.

    Raises:
        InputError: samples of another number of dimensions.
    """
    if pictures.ndim != 4:
        raise InputError(
            "image_size",
            expected="pictures [channels, height, width]",
            got=f"samples of shape {list(pictures.shape[1:])}",
        )
    height, width = pictures.shape[2:]
    scale = max(size[0] / height, size[1] / width)
    covering = [max(want, round(have * scale)) for want, have in zip(size, (height, width), strict=True)]
    if covering != [height, width]:
        pictures = torch.nn.functional.interpolate(
            pictures, covering, mode="bilinear", align_corners=False, antialias=True
        )
    top, left = (math.floor((have - want) / 2) for have, want in zip(covering, size, strict=True))
    return pictures[:, :, top : top + size[0], left : left + size[1]].contiguous()


def _channels_first(pixels: Tensor) -> Tensor:
    """[N, H, W] and [N, H, W, C] as [N, C, H, W]; others as they are."""
    shape = pixels.shape[1:]
    if len(shape) == 2:
        return pixels.unsqueeze(1)
    if len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS:
        return pixels.movedim(3, 1)
    return pixels
