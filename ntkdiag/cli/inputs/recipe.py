"""Recipe: how to build a network from nothing, as plain values that a run folder stores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.inputs.functions import from_function, with_absolute_path
from ntkdiag.cli.inputs.said import Said, said_by, settled
from ntkdiag.cli.options.choices import MODELS
from ntkdiag.cli.options.parsing import checked
from ntkdiag.errors import InputError, did_you_mean, require_one_of

if TYPE_CHECKING:
    from ntkdiag.data import Data
    from ntkdiag.denoiser import Denoiser
    from ntkdiag.process.schedules.base import Schedule


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is made.

    Attributes:
        model: The name of a reference network, "module:function", "/path/of/file.py:function", or the absolute path of a
            folder of save_pretrained.
        model_options: Arguments of the network's class or of the function.
        schedule, schedule_options: The noise schedule and its arguments; None for cosine with a reference network, and for
            what the network of a function says itself (see `said_by`).
        target: What the network predicts; None for v with a reference network, and for what the network of a function says.
        call: "time" or "log_snr"; None for log_snr with a reference network, and for time with a function.
        data: The name of a data set, or the absolute path of a file or folder.
        data_options: How it is read: data_key, image_size, pixel_range, and the files of labels and conditions.
        seed: Seed of the initial weights.
        scheduler: The absolute path of a folder's scheduler, where it is not beside the model.
        timesteps: "continuous" or "integer"; None for continuous.
        latents: Whether the data are latents already, where a folder has a VAE.
        assumed: Whether a network of a function that says nothing is taken for v on cosine, as runs of earlier versions
            were.
    """

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    schedule_options: dict[str, Any] = field(default_factory=dict)
    target: str | None = None
    call: str | None = None
    data: str = "digits"
    data_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    scheduler: str | None = None
    timesteps: str | None = None
    latents: bool = False
    assumed: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether the network is in a folder of save_pretrained, with its weights."""
        return self.model not in MODELS and ":" not in self.model

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any], where: str) -> Recipe:
        """The recipe that `to_dict` returned.

        Raises:
            InputError: `stored` is something else, as in a run that was not started by `ntkdiag train`.
        """
        names = {one.name for one in fields(cls)}
        if not isinstance(stored, dict) or "model" not in stored or not set(stored) <= names:
            raise InputError(
                where,
                expected="a run of 'ntkdiag train', which stores how its network is built",
                got="a run without that note",
                fix="Give --model MODULE:FUNCTION and --checkpoint FOLDER/average.safetensors.",
            )
        return cls(**{"assumed": True, **stored})

    def build(self, shape: tuple[int, ...], seed: int | None = None) -> Denoiser:
        """The denoiser with initial weights.

        Args:
            shape: Shape of one sample.
            seed: Seed of the initial weights, if not the recipe's own; of a folder None means its weights.

        Raises:
            InputError: an unknown name, a function that does not exist or that fails, or options that do not fit.
        """
        from ntkdiag.denoiser import Denoiser
        from ntkdiag.models import build
        from ntkdiag.process import schedules
        from ntkdiag.process.target import target_name

        if self.is_folder:
            return self._from_folder(seed)
        self._refuse("scheduler", self.scheduler, "beside a network that is in no folder of save_pretrained")
        chosen = self.seed if seed is None else seed
        if self.model in MODELS:
            network = checked(
                "--model-option", lambda: build(self.model, shape, chosen, **self.model_options)
            )
            self._refuse("timesteps", self.timesteps, "beside a reference network")
            return Denoiser(network, self._schedule(), self.target or "v", call=self.call or "log_snr")
        network = from_function(self.model, shape, chosen, self.model_options)
        if isinstance(network, Denoiser):
            self._refuse_beside_denoiser()
            return network
        own = said_by(network)
        if self.assumed:
            own = Said(own.schedule or schedules.cosine(), own.target or "v")
        given = self._schedule() if self.schedule or self.schedule_options else None
        wanted = None if self.target is None else target_name(self.target)
        path, target = settled(given, wanted, own)
        if self._whole_times():
            from ntkdiag.adapters.reading import whole_times

            return Denoiser(network, path, target, call=whole_times(path.time))
        named = [] if getattr(network, "conditions", None) else list(self.data_options.get("cond", {}))
        return Denoiser(network, path, target, call=self.call or "time", conditions=named or None)

    def encoded(self, data: Data, samples: int | None, device: Any) -> Data:
        """The data as the network takes it: latents of pictures where its folder has a VAE.

        Args:
            data: What was loaded.
            samples: How many samples are needed at least; None for all.
            device: Where the VAE runs.

        Raises:
            InputError: pictures that the VAE does not take, or --latents beside a network in no folder.
        """
        if not self.is_folder:
            self._refuse("latents", self.latents, "beside a network that is in no folder of save_pretrained")
            return data
        from ntkdiag.adapters.diffusers import MOST, Folder, latents

        if self.latents or Folder.find(self.model, self.scheduler).vae is None:
            return data
        parts = [len(part) for part in (data.train, data.held_out) if part is not None]
        most = max(parts) if samples is None else max(MOST, samples)
        return latents(self.model, data, most=most, device=device)

    def _whole_times(self) -> bool:
        from ntkdiag.cli.options.choices import TIMESTEPS

        whole = require_one_of("--timesteps", self.timesteps or "continuous", TIMESTEPS) == "integer"
        if whole:
            self._refuse("call", self.call, "beside --timesteps integer")
        return whole

    def _from_folder(self, seed: int | None) -> Denoiser:
        """The network of a folder of save_pretrained, with its weights or with fresh ones."""
        from ntkdiag.adapters.diffusers import Folder, diffusers_reading
        from ntkdiag.denoiser import Denoiser

        for name in ("schedule", "schedule_options", "call"):
            self._refuse(
                name.removesuffix("s"), getattr(self, name), "beside a folder, whose scheduler says it"
            )
        parts = Folder.find(self.model, self.scheduler)
        reading = checked(
            "--model-option",
            lambda: diffusers_reading(
                parts.read_model(seed),
                parts.read_scheduler(),
                self.target,
                self.timesteps or "continuous",
                **self.model_options,
            ),
        )
        return Denoiser.of_reading(reading)

    @staticmethod
    def _refuse(name: str, value: object, why: str) -> None:
        if value:
            raise InputError("--" + name.replace("_", "-"), expected=f"nothing {why}", got=str(value))

    def _schedule(self) -> Schedule:
        """The schedule of the options; cosine where none is named."""
        from ntkdiag.process import schedules

        return checked(
            "--schedule-option", lambda: schedules.named(self.schedule or "cosine", **self.schedule_options)
        )

    def _refuse_beside_denoiser(self) -> None:
        for name in ("schedule", "schedule_options", "target", "call", "timesteps"):
            if getattr(self, name):
                raise InputError(
                    "--" + name.replace("_", "-").removesuffix("s"),
                    expected="nothing, since the function returns a Denoiser that has its own",
                    got=repr(getattr(self, name)),
                )


def require_one_meaning(model: str | None, runs: bool = True) -> None:
    """Refuse the name of a reference network beside a folder of that name that could be meant too.

    Args:
        model: What the user typed.
        runs: Whether a folder of 'ntkdiag train' could be meant, or one of save_pretrained alone.

    Raises:
        InputError: both could be meant.
    """
    from ntkdiag import provenance
    from ntkdiag.adapters.diffusers import is_folder

    if model in MODELS and ((runs and provenance.is_run(Path(model))) or is_folder(Path(model))):
        raise InputError(
            "--model",
            expected="one network",
            got=f"{model}, the name of a reference network and of a folder here",
            fix=f"Write ./{model} for the folder; for the reference network rename it, or call this from elsewhere.",
        )


def require_model(text: str | None) -> str:
    """The model as a recipe names it, if the text has the form of one: the path of a file becomes absolute.

    Raises:
        InputError: it is None, or neither a reference network nor a function.
    """
    kinds = (
        f"{', '.join(MODELS)}, package.module:function, file.py:function, or a folder of 'ntkdiag train' or of diffusers' "
        "save_pretrained"
    )
    if text is None:
        raise InputError("--model", expected=kinds, got="nothing")
    if text in MODELS:
        return text
    module, _, function = text.rpartition(":")
    if module and function:
        return with_absolute_path(text)
    if Path(text).is_dir():
        return str(Path(text).resolve())
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):  # a name in the cache of the hub
        from ntkdiag.adapters.diffusers.folder import root

        return str(root(text))
    raise InputError("--model", expected=kinds, got=repr(text), fix=did_you_mean(text, MODELS))
