"""The constructors of `Denoiser` for networks from elsewhere, one for each family.

Each gives the network to its family's file for a `Reading`, checks that on data where there is any, and makes the denoiser.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from ntkdiag.adapters.diffusers import Folder, diffusers_reading
from ntkdiag.adapters.dit import dit
from ntkdiag.adapters.edm import edm
from ntkdiag.adapters.gaussian_diffusion import gaussian_diffusion
from ntkdiag.adapters.k_diffusion import k_diffusion
from ntkdiag.adapters.load_check import CheckDraws, LoadCheck, check_load
from ntkdiag.adapters.reading import Reading
from ntkdiag.adapters.score_sde import score_sde
from ntkdiag.adapters.sit import sit
from ntkdiag.adapters.uvit import uvit
from ntkdiag.data import as_data
from ntkdiag.data.given import DataLike
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.progress import Progress

Conditions = Mapping[str, Tensor]


class FromElsewhere:
    """The constructors `from_…` and the load check; `Denoiser` inherits them.

    All `from_…` take `data` and `cond`: with data the load check is run and its line printed on stderr, and a network that
    fits another statement clearly better is refused with that statement named.
    """

    @property
    def reading(self) -> Reading:
        """The network with everything that is stated of it."""
        raise NotImplementedError

    @classmethod
    def of_reading(cls, reading: Reading) -> Self:
        """The denoiser of a reading."""
        raise NotImplementedError

    def conditions_from(self, available: Conditions) -> dict[str, Tensor]:
        """What the network takes of the conditions that data has."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        scheduler: Path | str | None = None,
        *,
        target: str | None = None,
        timesteps: str = "continuous",
        guidance: float | None = None,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A network that diffusers' `save_pretrained` wrote, read by diffusers itself.

        Args:
            folder: A pipeline's folder (unet/ or transformer/, and scheduler/), a model's folder with its scheduler beside
                it, or a name such as "owner/model" of one in the local cache. Nothing is
                downloaded, and weights are .safetensors.
            scheduler: The scheduler's folder or config file, if it is not there.
            target, timesteps, guidance: As in `from_diffusers`.
            data: Samples for the load check, as `nd.measure` takes them; None skips it.
            cond: Conditions of these samples by name, [M, ...] each.

        Raises:
            InputError: a folder without a model or a scheduler, a config that names a class from elsewhere, weights that are
                missing, damaged or not finite, or as `from_diffusers`.

        Example:
            denoiser = nd.Denoiser.from_pretrained("my-pipeline", data=images)
            diag = nd.measure(denoiser, images, 10)
        """
        parts = Folder.find(folder, scheduler)
        reading = diffusers_reading(parts.read_model(), parts.read_scheduler(), target, timesteps, guidance)
        return cls._checked(reading, data, cond)

    @classmethod
    def from_diffusers(
        cls,
        model: Any,
        scheduler: Any,
        *,
        target: str | None = None,
        timesteps: str = "continuous",
        guidance: float | None = None,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A model of diffusers with its scheduler, which says path, target, time and scale of the input.

        Args:
            model: A model of diffusers, or any module with arguments of those names.
            scheduler: The scheduler that it was trained with.
            target: What it predicts, only if the scheduler's `prediction_type` does not say it.
            timesteps: "integer" rounds the times that the model is called with, as tables of embeddings need; "continuous".
            guidance: Scale that a guidance-distilled model is called with; None for 3.5.
            data, cond: As in `from_pretrained`.

        Conditions are passed under the model's own names (class_labels, encoder_hidden_states, pooled_projections,
        text_embeds, …). A DiT without labels gets the label of no class. Of 2C output channels the first C are taken.

        Raises:
            InputError: something that is no such model or scheduler, a target that contradicts the scheduler, or, with data,
                another statement that fits clearly better.

        Example:
            >>> from diffusers import DDPMScheduler, UNet2DModel
            >>> network = UNet2DModel(8, 1, 1, block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2,
            ...     up_block_types=("UpBlock2D",) * 2, layers_per_block=1)
            >>> denoiser = nd.Denoiser.from_diffusers(network, DDPMScheduler(prediction_type="v_prediction"))
            >>> denoiser.target, denoiser(torch.zeros(2, 1, 8, 8), 0.0).shape
            ('v', torch.Size([2, 1, 8, 8]))
        """
        return cls._checked(diffusers_reading(model, scheduler, target, timesteps, guidance), data, cond)

    @classmethod
    def from_edm(
        cls,
        network: Any,
        sigma_data: float | None = None,
        *,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A network of EDM or EDM2, D(x, σ, class_labels=None), with its preconditioning inside.

        The network F inside is measured: F = (D − c_skip x)/c_out (Karras et al. 2022, equation 7).

        Args:
            network: The preconditioned network.
            sigma_data: Standard deviation of its data; None for its attribute `sigma_data`.
            p_mean, p_std: Mean and standard deviation of ln σ in training: −1.2 and 1.2 of EDM, −0.4 and 1.0 of EDM2.
            data, cond: As in `from_pretrained`. "label" may be whole numbers.

        Raises:
            InputError: no σ_data, another than the network's own, or, with data, another statement that fits better.

        Example:
            denoiser = nd.Denoiser.from_edm(pickle_free_ema, data=images)
        """
        return cls._checked(edm(network, sigma_data, p_mean, p_std), data, cond)

    @classmethod
    def from_k_diffusion(
        cls,
        model: Any,
        sigma_data: float | None = None,
        *,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A wrapper of k-diffusion, D(x, σ, **conditions), around its `inner_model`.

        Args:
            model: With `sigma_data` the F inside is measured; with a list `sigmas` instead (wrappers of DDPM networks) the
                ε inside, on the schedule of that list.
            sigma_data, p_mean, p_std: As in `from_edm`.
            data, cond: As in `from_pretrained`.

        Raises:
            InputError: something that is no such wrapper, or as `from_edm`.

        Example:
            denoiser = nd.Denoiser.from_k_diffusion(model, data=images)
        """
        return cls._checked(k_diffusion(model, sigma_data, p_mean, p_std), data, cond)

    @classmethod
    def from_gaussian_diffusion(
        cls, process: Any, *, data: DataLike | None = None, cond: Conditions | None = None
    ) -> Self:
        """The network inside a GaussianDiffusion (denoising_diffusion_pytorch), whose buffers say everything else.

        Args:
            process: The GaussianDiffusion, with `model`, `objective` and `alphas_cumprod`. Its network works on pictures in
                [−1, 1], also where the process itself takes [0, 1].
            data, cond: As in `from_pretrained`.

        Raises:
            InputError: something else, an unknown objective, or, with data, another statement that fits better.

        Example:
            denoiser = nd.Denoiser.from_gaussian_diffusion(process, data=images)
        """
        return cls._checked(gaussian_diffusion(process), data, cond)

    @classmethod
    def from_score_sde(
        cls, network: Any, sde: Any, *, data: DataLike | None = None, cond: Conditions | None = None
    ) -> Self:
        """A network of score_sde (Song et al. 2021) in continuous time, with the SDE that it was trained on.

        Args:
            network: Called with 999 t on VP and sub-VP SDEs, where its output is −std · score, which is ε; with σ on VE
                SDEs, where it is the score.
            sde: Asked for `marginal_prob(x, t)` and `T`; of VPSDE the closed form in `beta_0` and `beta_1` is used.
            data, cond: As in `from_pretrained`.

        Raises:
            InputError: an object without `marginal_prob`, or, with data, another statement that fits better.

        Example:
            denoiser = nd.Denoiser.from_score_sde(network, sde, data=images)
        """
        return cls._checked(score_sde(network, sde), data, cond)

    @classmethod
    def from_dit(
        cls,
        network: Any,
        schedule: Schedule | None = None,
        null_label: int | None = None,
        *,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A DiT (Peebles & Xie 2023), network(x, step, y) → ε; a learned variance is cut.

        Args:
            network: The DiT.
            schedule: None for the linear betas of its paper.
            null_label: Label of no class; None for `y_embedder.num_classes`.
            data, cond: As in `from_pretrained`; "label" are its classes, and without them the null label is used.

        Raises:
            InputError: no label is known, or, with data, another statement that fits better.

        Example:
            denoiser = nd.Denoiser.from_dit(network, data=latents, cond={"label": labels})
        """
        return cls._checked(dit(network, schedule, null_label), data, cond)

    @classmethod
    def from_sit(
        cls,
        network: Any,
        null_label: int | None = None,
        *,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A SiT (Ma et al. 2024) with linear path and velocity prediction; its time runs from noise to data.

        Args:
            network: Called with the weight 1 − t of the data, and its output is x0 − ε.
            null_label, data, cond: As in `from_dit`.

        Raises:
            InputError: as `from_dit`.

        Example:
            denoiser = nd.Denoiser.from_sit(network, data=latents, cond={"label": labels})
        """
        return cls._checked(sit(network, null_label), data, cond)

    @classmethod
    def from_uvit(
        cls,
        network: Any,
        schedule: Schedule | None = None,
        null_label: int | None = None,
        *,
        data: DataLike | None = None,
        cond: Conditions | None = None,
    ) -> Self:
        """A U-ViT (Bao et al. 2023), network(x, n, y) → ε with steps n from 1.

        Args:
            network: The U-ViT.
            schedule: None for the betas of its latent diffusion (0.00085 to 0.012, `scaled_linear_beta`).
            null_label: Label of no class; None for the last row of `label_emb`, if there is one.
            data, cond: As in `from_pretrained`.

        Raises:
            InputError: with data, another statement that fits better.

        Example:
            denoiser = nd.Denoiser.from_uvit(network, data=latents)
        """
        return cls._checked(uvit(network, schedule, null_label), data, cond)

    def load_check(
        self,
        data: DataLike,
        cond: Conditions | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LoadCheck:
        """Does the network fit what is stated of it better than it fits neighbouring statements?

        On a few samples its error under the stated target, time and sign is compared with that under other targets (epsilon,
        x0, v, flow, score, F), the opposite sign, other units and directions of time, and other σ_data.

        Args:
            data: Samples, as `nd.measure` takes them.
            cond: Conditions of the training samples by name, [M, ...] each; those of the data by default.
            seed: Of the choice of samples and noise.
            progress: Called with (description, calls of the network done, calls in total).

        Returns:
            What was found; its text is one line.

        Raises:
            InputError: another statement fits clearly better, which is named.

        Example:
            >>> denoiser = nd.Denoiser(nd.models.build("mlp", (2,)), nd.schedules.cosine(), "v", call="log_snr")
            >>> denoiser.load_check(nd.data.load("mixture")).fits  # it was never trained
            False
        """
        samples = as_data(data)
        given = self.conditions_from(samples.conditions) if cond is None else cond
        draws = CheckDraws.draw(samples.train, self.reading.schedule, given or None, seed)
        return check_load(self.reading, draws, progress)

    @classmethod
    def _checked(cls, reading: Reading, data: DataLike | None, cond: Conditions | None) -> Self:
        made = cls.of_reading(reading)
        if data is not None:
            print(made.load_check(data, cond), file=sys.stderr)
        return made
