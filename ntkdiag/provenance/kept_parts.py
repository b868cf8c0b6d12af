"""Finished parts of a long computation, kept in a folder so that an interrupted one goes on instead of starting again.

A part is a dictionary of tensors and plain values. It is written whole or not at all, and read as data, never as code. Its
file is named after a key that stands for everything that determines the result: parts of another key are never used.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ntkdiag.provenance.files import write_bytes
from ntkdiag.provenance.unfinished import made_parent

Part = dict[str, Any]
_SUFFIX = ".part"


class KeptParts:
    """A folder of finished parts.

    Args:
        folder: It is made when the first part is written.
        found: Called once, when the first part of an earlier run is used.

    Attributes:
        finished: How many parts were made or taken from there.
    """

    def __init__(self, folder: Path | str, found: Callable[[], None] | None = None) -> None:
        self.folder = Path(folder)
        self.finished = 0
        self._found = found

    def __len__(self) -> int:
        return len(self._files())

    def of(self, key: str) -> KeyedParts:
        """The parts of one computation; `key` names everything that determines their values."""
        return KeyedParts(self, key)

    def remove(self) -> None:
        """Remove all parts, and the folder if nothing else is in it."""
        self._remove(self._files())

    def take(
        self, key: str, name: str, make: Callable[[], Part], fits: Callable[[Part], bool] | None
    ) -> Part:
        """As `KeyedParts.take`."""
        file = self.folder / f"{_short(key)}-{_short(name)[:12]}{_SUFFIX}"
        stored = _read(file, key, name)
        if stored is not None and fits is not None and not fits(stored):
            self._remove(list(self.folder.glob(f"{_short(key)}-*{_SUFFIX}")))
            stored = None
        if stored is not None:
            if self._found is not None:
                self._found()
                self._found = None
            self.finished += 1
            return stored
        made = make()
        try:
            with made_parent(file):
                write_bytes(file, _written(key, name, made))
        except BaseException:
            self._remove([])
            raise
        finally:  # a signal may come when the file is there already
            self.finished += file.exists()
        return made

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def _remove(self, files: list[Path]) -> None:
        with suppress(OSError):  # another process may have removed them, or has put its own there
            for file in files:
                file.unlink(missing_ok=True)
            self.folder.rmdir()


class KeyedParts:
    """The parts of one computation. Without a folder nothing is kept, and every part is made."""

    def __init__(self, kept: KeptParts | None = None, key: str = "") -> None:
        self._kept, self._key = kept, key

    def take(self, name: str, make: Callable[[], Part], fits: Callable[[Part], bool] | None = None) -> Part:
        """A part: that of an earlier run, or else made and kept.

        Args:
            name: Unique within the computation.
            make: Makes it.
            fits: Whether the part of an earlier run is still right. If not, all parts of this computation are removed.

        Raises:
            InputError: the folder cannot be written to, or has no room.
        """
        return make() if self._kept is None else self._kept.take(self._key, name, make, fits)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _written(key: str, name: str, part: Part) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"key": key, "name": name, "part": part}, buffer)
    return hashlib.sha256(buffer.getbuffer()).digest() + buffer.getvalue()


def _read(file: Path, key: str, name: str) -> Part | None:
    """The part in a file; None where there is none, or another, or one that is damaged."""
    import torch

    try:
        content = file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    try:
        stored = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    except Exception:  # whatever stands there, it is no part
        return None
    if not isinstance(stored, dict) or (stored.get("key"), stored.get("name")) != (key, name):
        return None
    part: Part = stored["part"]
    return part
