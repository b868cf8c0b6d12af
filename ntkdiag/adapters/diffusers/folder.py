"""Folders that diffusers' `save_pretrained` writes: a pipeline, or a model beside a scheduler; a VAE where there is one.

They are data: configs name only classes of diffusers itself, weights are .safetensors, nothing is downloaded and nothing in
the folder is run.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ntkdiag import provenance
from ntkdiag.errors import InputError, first_line, listed
from ntkdiag.tensor_files import INDEX_SUFFIX, read_safetensors, read_sharded

_PIPELINE = "model_index.json"
_MODEL = "config.json"
_SCHEDULER = "scheduler_config.json"
_WEIGHTS = "diffusion_pytorch_model"
_PARTS = ("unet", "transformer")
_VAES = ("vae", "vqvae")
# A thousand times the usual number: more would only exhaust memory.
_MOST_STEPS = 1_000_000
# Entries of a config by which a library loads code or quantised weights from elsewhere.
_FOREIGN = ("auto_map", "quantization_config", "custom_code", "trust_remote_code")


@dataclass(frozen=True)
class Folder:
    """A model and its scheduler on disk.

    Attributes:
        model: The folder with the model's config.json.
        scheduler: The scheduler's config file; None where it was not needed and is not there.
        vae: The folder of the VAE that makes the network's latents; None for a network of pictures.
    """

    model: Path
    scheduler: Path | None
    vae: Path | None = None

    @classmethod
    def find(
        cls, path: Path | str, scheduler: Path | str | None = None, scheduler_needed: bool = True
    ) -> Folder:
        """The parts of a folder.

        Args:
            path: A pipeline's folder, a model's folder with its scheduler beside or in it, or a name such as "owner/model"
                of one in the local cache of the hub.
            scheduler: A folder with a scheduler's config, or that file, if it is not there.
            scheduler_needed: Whether its absence is an error.

        Raises:
            InputError: one of the two is missing.
        """
        top = root(path)
        model = next((top / part for part in _PARTS if (top / part / _MODEL).is_file()), top)
        if not (model / _MODEL).is_file():
            raise InputError(
                str(path),
                expected=f"a folder of save_pretrained, with {_MODEL}, or with unet/ or transformer/",
                got=_content(top),
            )
        vae = next((top / part for part in _VAES if (top / part / _MODEL).is_file()), None)
        if (top / _PIPELINE).is_file():
            _check_index(top / _PIPELINE, *(part.name for part in (model, vae) if part is not None))
        return cls(model, _scheduler_file(top, scheduler) if scheduler_needed else None, vae)

    def model_config(self) -> dict[str, Any]:
        """What the model's config says.

        Raises:
            InputError: a config that is none.
        """
        return _config(self.model / _MODEL)

    def read_scheduler(self) -> Any:
        """The scheduler, made by diffusers from its config.

        Raises:
            InputError: there is none, a config that is none, or names a class that is no scheduler of diffusers.
        """
        if self.scheduler is None:
            raise InputError(str(self.model), expected="a scheduler", got="none was looked for")
        config = _config(self.scheduler)
        kind = _class(self.scheduler, config, "SchedulerMixin", "a scheduler")
        steps = config.get("num_train_timesteps", 1000)
        if not isinstance(steps, int | float) or not 1 <= steps <= _MOST_STEPS:
            raise InputError(
                str(self.scheduler), expected=f"1 to {_MOST_STEPS:,} num_train_timesteps", got=steps
            )
        return _made(self.scheduler, lambda: kind.from_config(config))

    def read_model(self, seed: int | None = None) -> nn.Module:
        """The model, made by diffusers.

        Args:
            seed: None for its weights; else it has fresh ones from this seed.

        Raises:
            InputError: a config that is none or names another class; weights that are missing, damaged, not finite, not
                .safetensors, or of other names and shapes.
        """
        return _read(self.model, seed)

    def write_with(self, weights: Path, out: Path) -> None:
        """Write a model's folder with the same configs and other weights, and its scheduler in it.

        Args:
            weights: A .safetensors file of the model's own names, which is copied.
            out: The folder; one that was written before gets the new weights.

        Raises:
            InputError: it cannot be written to.
        """
        (out / "scheduler").mkdir(parents=True, exist_ok=True)
        provenance.write_bytes(out / f"{_WEIGHTS}.safetensors", weights.read_bytes())
        provenance.write_text(out / _MODEL, provenance.read_text(self.model / _MODEL))
        if self.scheduler is not None:
            provenance.write_text(out / "scheduler" / _SCHEDULER, provenance.read_text(self.scheduler))

    def read_vae(self) -> nn.Module:
        """The VAE with its weights, made by diffusers.

        Raises:
            InputError: there is none, or as `read_model`.
        """
        if self.vae is None:
            raise InputError(str(self.model), expected="a VAE beside it", got="none")
        return _read(self.vae)


def _read(folder: Path, seed: int | None = None) -> nn.Module:
    """A model of diffusers; see `Folder.read_model`."""
    path = folder / _MODEL
    config = _config(path)
    kind = _class(path, config, "ModelMixin", "a model")
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            fresh: nn.Module = _made(path, lambda: kind.from_config(config))
        return fresh.eval()
    _check_weights(folder, lambda: kind.from_config(config))
    model, info = _made(
        path,
        lambda: kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        ),
    )
    left = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if left:
        raise InputError(
            str(folder), expected="weights of the model's own names", got=listed(map(str, left), 3)
        )
    return _finite(folder, model)


def _check_weights(folder: Path, make: Any) -> None:
    """Read the header of the weights before anything is allocated, and compare the number of values with the config."""
    file = folder / f"{_WEIGHTS}.safetensors"
    index = folder / f"{_WEIGHTS}.safetensors{INDEX_SUFFIX}"
    if not file.is_file() and not index.is_file():
        raise InputError(
            str(folder),
            expected=f"weights in {file.name}",
            got=_content(folder),
            fix="Weights in a pickle are not read: load them where you trust them, and save_pretrained again.",
        )
    stored = read_safetensors(file) if file.is_file() else read_sharded(index)
    with torch.device("meta"):
        meta: nn.Module = _made(folder / _MODEL, make)
    here = sum(value.numel() for value in stored.values())
    wanted = sum(value.numel() for value in meta.state_dict().values())
    if here != wanted:
        raise InputError(
            str(folder),
            expected=f"weights with {wanted:,} numbers, as {_MODEL} says",
            got=f"{here:,}",
        )


def is_folder(path: Path) -> bool:
    """Whether a folder looks like one of save_pretrained."""
    places = (_PIPELINE, _MODEL, *(f"{part}/{_MODEL}" for part in _PARTS))
    return any((path / name).is_file() for name in places)


def root(path: Path | str) -> Path:
    """A folder; of a name such as "owner/model", its newest snapshot in the local cache.

    Raises:
        InputError: neither.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    name = str(path)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name, local_files_only=True))
        except Exception as error:
            raise InputError(
                name, expected="a folder, or a model in the local cache of the hub", got=type(error).__name__
            ) from error
    raise InputError(name, expected="a folder of save_pretrained", got="no such folder")


def _scheduler_file(top: Path, given: Path | str | None) -> Path:
    if given is not None:
        path = Path(given)
        file = path / _SCHEDULER if path.is_dir() else path
        if not file.is_file() and path.is_dir() and (path / "scheduler" / _SCHEDULER).is_file():
            file = path / "scheduler" / _SCHEDULER
        if not file.is_file():
            raise InputError("scheduler", expected=f"a {_SCHEDULER} or its folder", got=str(given))
        return file
    places = (top / "scheduler", top, top.parent / "scheduler")
    found = next((place / _SCHEDULER for place in places if (place / _SCHEDULER).is_file()), None)
    if found is None:
        raise InputError(
            str(top),
            expected=f"a scheduler beside the model, in scheduler/{_SCHEDULER}",
            got=_content(top),
            fix="Give {scheduler}.",
            arguments={"scheduler": None},
        )
    return found


def _check_index(path: Path, *parts: str) -> None:
    """Refuse a pipeline whose model, VAE or scheduler is of another library."""
    index = _config(path)
    for name in (*parts, "scheduler"):
        entry = index.get(name)
        if entry is not None and (not isinstance(entry, list) or entry[:1] != ["diffusers"]):
            raise InputError(str(path), expected=f"a {name} of diffusers", got=str(entry))


def _config(path: Path) -> dict[str, Any]:
    """A config as a mapping.

    Raises:
        InputError: it is none, or names code from elsewhere.
    """
    try:
        content: Any = json.loads(provenance.read_text(path))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            str(path), expected="a config in JSON", got=f"no JSON: {type(error).__name__}"
        ) from error
    if not isinstance(content, dict):
        raise InputError(str(path), expected="a config: names and values", got=type(content).__name__)
    for name in _FOREIGN:
        if content.get(name):
            raise InputError(
                str(path), expected="a config that names no code from elsewhere", got=f"{name} in it"
            )
    return content


def _class(path: Path, config: dict[str, Any], base: str, what: str) -> Any:
    """The class of diffusers that a config names."""
    name = config.get("_class_name")
    diffusers = _library()
    plain = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    try:
        found = getattr(diffusers, name, None) if plain and isinstance(name, str) else None
    except (ImportError, RuntimeError) as error:  # a class whose own extra is not installed
        raise InputError(str(path), expected=f"{what} that can be imported", got=first_line(error)) from error
    if not isinstance(found, type) or not issubclass(found, getattr(diffusers, base)):
        raise InputError(str(path), expected=f"{what} of diffusers in _class_name", got=repr(name))
    return found


def _library() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import diffusers
    except ImportError as error:
        raise InputError(
            "diffusers",
            expected="the library that reads its folders",
            got="it is not installed",
            fix="Install it: pip install 'ntkdiag[diffusers]'.",
        ) from error
    return diffusers


def _made(path: Path, make: Any) -> Any:
    """What diffusers makes of a config, its complaints in one line."""
    try:
        return make()
    except Exception as error:
        raise InputError(
            str(path), expected="a config that diffusers can read", got=first_line(error)
        ) from error


def _finite(folder: Path, model: nn.Module) -> nn.Module:
    bad = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
    if bad:
        raise InputError(str(folder), expected="finite weights", got=f"a NaN or infinity in {listed(bad, 3)}")
    return model.eval()


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return listed(names) or "an empty folder"
