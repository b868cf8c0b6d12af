"""Output paths, checked before any work; existing results are replaced only with --force."""

from __future__ import annotations

from pathlib import Path

from ntkdiag import provenance
from ntkdiag.errors import InputError, require_one_of


def check_folder(path: Path | None, force: bool) -> None:
    """Refuse an output folder that is in use or cannot be made; None stands for no output.

    Raises:
        InputError: see `ntkdiag.provenance.check_free`.
    """
    if path is not None:
        provenance.check_free(path, force)
        _require_folder_above(path)


def check_file(path: Path | None, force: bool, suffixes: tuple[str, ...]) -> None:
    """Refuse an output file of another type, one that exists, or one that cannot be made.

    Args:
        path: The file; None stands for no output.
        force: Whether a file of that name may be replaced.
        suffixes: The file types that can be written.

    Raises:
        InputError: the file cannot or must not be written.
    """
    if path is None:
        return
    require_one_of(f"file type of {path}", path.suffix.lower(), suffixes)
    if path.is_dir():
        raise InputError(str(path), expected="a file", got="a folder of that name")
    if path.exists() and not force:
        raise InputError(
            str(path),
            expected="a new file",
            got="one that exists",
            fix="Choose another --out, or replace it with --force.",
        )
    _require_folder_above(path)


def _require_folder_above(path: Path) -> None:
    """Require that the nearest existing path above is a folder."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(str(path), expected="a path inside a folder", got=f"a file at {above}")
