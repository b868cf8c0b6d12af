"""A preset: what a TOML file says of a run, read as data and checked."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.provenance import read_text

# The files of this folder.
PRESETS = ("digits", "fashion", "fashion_small", "fine_tuning", "images", "latents", "mixture")
# In place of a value that TOML does not have.
_NONE = "none"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: None if one == _NONE else one for name, one in value.items()}
        return None if value == _NONE else value


class Network(_Part):
    """The network: its name, as `nd.models.build` takes it or as MODULE:FUNCTION, and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class DataPart(_Part):
    """The data: a name or a path, absent where it must be given, and how it is read (see `nd.data.load`)."""

    name: str | None = None
    data_key: str | None = None
    labels: str | None = None
    cond: dict[str, str] = Field(default_factory=dict)
    image_size: list[int] | None = None
    pixel_range: list[float] | None = None


class Process(_Part):
    """The noise schedule with its options, what the network predicts, and what it is called with ("time" or "log_snr")."""

    schedule: str | None = None
    schedule_options: dict[str, Any] = Field(default_factory=dict)
    target: str | None = None
    call: str | None = None


class Preset(_Part):
    """Everything that a run is made of.

    Attributes:
        weights: The loss weights, as the command line takes them: "constant", a rule, a file, or "refresh:STEPS".
        network, data, process: See their classes; without a network the preset is for one that is given.
        training: Settings of `TrainConfig`, by name.

    Example:
        >>> preset = nd.train.Preset.named("fashion")
        >>> preset.network, preset.training["batch"]
        (Network(name='unet', options={'channels': 32, 'multipliers': [1, 2, 2], ...}), 128)
    """

    weights: str = "constant"
    network: Network | None = None
    data: DataPart = Field(default_factory=DataPart)
    process: Process = Field(default_factory=Process)
    training: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def named(cls, name: str, what: str = "preset") -> Preset:
        """A preset of this package, or of a file.

        Args:
            name: One of `PRESETS`, or the path of a .toml file of the same form.
            what: What an error calls the name.

        Raises:
            InputError: no such preset, or a file that is missing, is no TOML, or says something else.
        """
        if name.lower().endswith(".toml"):
            return cls._parsed(name, read_text(Path(name)))
        file = resources.files(__package__) / f"{require_one_of(what, name, PRESETS)}.toml"
        return cls._parsed(f"preset {name}", file.read_text(encoding="utf-8"))

    @classmethod
    def _parsed(cls, what: str, text: str) -> Preset:
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InputError(what, expected="TOML", got=str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{what}, {place}", expected="a preset", got=first["msg"]) from None

    def text(self) -> str:
        """The preset as TOML, which `named` reads back to the same preset."""
        content = self.model_dump()
        lines = [f"weights = {_toml(content.pop('weights'))}"]
        for name, table in content.items():
            lines += [] if table is None else _table(name, table)
        return "\n".join(lines) + "\n"


def _table(name: str, content: dict[str, Any]) -> list[str]:
    """The lines of a table: its own values, then the tables in it."""
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    lines = ["", f"[{name}]", *(f"{_key(key)} = {_toml(value)}" for key, value in values.items())]
    for key, value in content.items():
        if isinstance(value, dict) and value:
            lines += _table(f"{name}.{_key(key)}", value)
    return lines


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _toml(value: Any) -> str:
    """A value of TOML; a text of JSON is one too, but for the character DEL."""
    if value is None:
        return json.dumps(_NONE)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
