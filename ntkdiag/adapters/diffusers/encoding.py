"""Pictures as the latents that a pipeline's network takes, by the VAE in its folder.

A picture is encoded when it is drawn, and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.adapters.diffusers.folder import Folder
from ntkdiag.adapters.diffusers.latent_scale import LatentScale
from ntkdiag.conditions import rows_of
from ntkdiag.data import Data, LazySamples, as_data
from ntkdiag.data.given import DataLike
from ntkdiag.data.samples import Samples
from ntkdiag.errors import InputError, first_line, require_positive_int

# Most pictures that the data has, if not stated.
MOST = 2048


def latents(
    folder: Path | str, data: DataLike, *, most: int = MOST, seed: int = 0, device: str | torch.device = "cpu"
) -> Data:
    """Pictures encoded by the VAE of a pipeline's folder: data for the network in it.

    A latent is (z − shift_factor) · scaling_factor, or (z − latents_mean) · scaling_factor / latents_std, by the VAE's
    config, or with batch norm (Flux 2) (z − running_mean) / √(running_var + ε), of patches as channels; z is the mean of
    the VAE's posterior, where it has one, so that a picture has one latent.

    Args:
        folder: A pipeline's folder with vae/, or a name in the local cache, as `nd.Denoiser.from_pretrained` takes it.
        data: Pictures [N, C, H, W] in [−1, 1], as `nd.measure` takes them. Labels and conditions stay with them.
        most: Most pictures of each part; of more, a random choice is taken.
        seed: Of that choice.
        device: Where the VAE runs.

    Returns:
        Data of latents [N, c, h, w], float32, each encoded when it is first drawn.

    Raises:
        InputError: no VAE in the folder, one that cannot be read or whose scale is not known, or pictures that it does not
            take.

    Example:
        >>> data = nd.latents("my-pipeline", images)  # doctest: +SKIP
        >>> denoiser = nd.Denoiser.from_pretrained("my-pipeline", data=data)  # doctest: +SKIP
        >>> diagnosis = nd.measure(denoiser, data, 10)  # doctest: +SKIP
    """
    parts = Folder.find(folder, scheduler_needed=False)
    if parts.vae is None:
        raise InputError(str(folder), expected="a pipeline's folder with vae/", got="one without")
    network = str(parts.model_config().get("_class_name"))
    encoder = _Encoder(parts.read_vae().to(device), parts.vae, network)
    given = as_data(data)
    require_positive_int("most", most)
    some = _chosen(len(given.train), most, seed)
    rest = None if given.held_out is None else _chosen(len(given.held_out), most, seed + 1)
    return Data(
        given.name,
        encoder.samples(given.train, some),
        None if rest is None or given.held_out is None else encoder.samples(given.held_out, rest),
        labels=None if given.labels is None else given.labels[some],
        held_out_labels=None
        if given.held_out_labels is None or rest is None
        else given.held_out_labels[rest],
        description="; ".join(
            filter(None, [given.description, encoder.text, _share(some, len(given.train))])
        ),
        cond=rows_of(given.cond, some),
        held_out_cond={} if rest is None else rows_of(given.held_out_cond, rest),
    )


class _Encoder:
    """A VAE with the scale of its latents."""

    def __init__(self, vae: nn.Module, path: Path, network: str) -> None:
        self.vae, self.path = vae.requires_grad_(False), path
        self.channels = getattr(vae, "config", {}).get("in_channels")
        self.scale = LatentScale.of(vae, path, network)
        self.text = f"encoded by {type(vae).__name__} ({self.scale.text})"

    def samples(self, pictures: Samples, rows: Tensor) -> LazySamples:
        """The latents of some pictures."""
        return LazySamples(_Latents(self, pictures, rows), what="latents")

    def __call__(self, pictures: Tensor) -> Tensor:
        """Latents [N, c, h, w] of pictures [N, C, H, W].

        Raises:
            InputError: the VAE does not take them.
        """
        if self.channels is not None and pictures.shape[1] != self.channels:
            raise InputError(
                "data",
                expected=f"pictures with {self.channels} channels, which {self.path.name}/ encodes",
                got=f"samples of shape {list(pictures.shape[1:])}",
                fix="Samples that are latents already need no encoding: {latents} says so.",
                arguments={"latents": True},
            )
        place = next(self.vae.parameters())
        try:
            with torch.no_grad():
                found = _mean(self.vae.encode(pictures.to(place)))  # type: ignore[operator]
        except Exception as error:
            raise InputError(
                "data",
                expected=f"pictures that {self.path.name}/ encodes",
                got=f"shape {list(pictures.shape[1:])}: {first_line(error)}",
            ) from error
        return self.scale(found).cpu()


class _Latents:
    """Reads latents: those of pictures that were drawn before are kept."""

    def __init__(self, encoder: _Encoder, pictures: Samples, rows: Tensor) -> None:
        self.encoder, self.pictures, self.rows = encoder, pictures, rows
        self.kept: dict[int, Tensor] = {}
        self.dtype = torch.float32
        self.shape = tuple(self.read([0]).shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Sequence[int]) -> Tensor:
        """The latents [len(rows), *shape], in that order."""
        for row in dict.fromkeys(rows):
            if row not in self.kept:  # one at a time, so that its last digits do not depend on the others
                self.kept[row] = self.encoder(self.pictures[self.rows[[row]]])[0]
        return torch.stack([self.kept[row] for row in rows])

    def origin(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """The pictures, and what encodes them."""
        encoder = self.encoder
        return (
            self.pictures[self.rows[rows]],
            encoder.scale.shift,
            encoder.scale.factor,
            *encoder.vae.state_dict().values(),
        )

    def where(self, row: int) -> str:
        """A picture as an error names it."""
        return f"the latent of picture {int(self.rows[row])}"


def _mean(output: Any) -> Tensor:
    """What a VAE's `encode` returns, as one tensor: the mean of a posterior."""
    posterior = getattr(output, "latent_dist", None)
    if posterior is not None:
        return posterior.mode()  # type: ignore[no-any-return]
    found = next((getattr(output, name) for name in ("latent", "latents") if hasattr(output, name)), None)
    if not isinstance(found, Tensor):
        raise TypeError(f"encode returns {type(output).__name__}, without latents")
    return found


def _chosen(count: int, most: int, seed: int) -> Tensor:
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def _share(some: Tensor, count: int) -> str:
    return "" if len(some) == count else f"a random choice of {len(some):,}"
