"""What `torch.save` wrote, read without running code: only tensors and plain containers come in.

Whatever needs a class of another package is refused, with the two lines of Python by which its owner, who trusts it,
converts it.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ntkdiag import provenance
from ntkdiag.errors import InputError, first_line

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
# Settings of a training script, which many checkpoints hold beside the weights: restoring one only sets its attributes.
_HARMLESS: list[Any] = [argparse.Namespace]
# How every pickle since Python 2.3 begins, and how files of torch before 1.6 do: with a pickled number of their own.
_PICKLE, _OLD_TORCH = b"\x80", pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def read_torch(path: Path | str) -> Any:
    """The content of a file of `torch.save`, on the CPU.

    Files of torch 1.6 or newer are mapped into memory, so that what is not used is not read from the disk.

    Raises:
        InputError: the file is missing or damaged, or it cannot be read without running code.
    """
    path = Path(path)
    if not provenance.is_file(path):
        raise InputError(str(path), expected="an existing file of torch.save", got="no such file")
    with path.open("rb") as stream:
        start = stream.read(len(_OLD_TORCH))
    mapped = zipfile.is_zipfile(path)
    if not mapped and not start.startswith(_OLD_TORCH):
        if start.startswith(_PICKLE):
            raise _needs_code(path, "a bare pickle", "pickle.load(open({path}, 'rb'))")
        got = "other bytes" if start else "an empty file"
        raise InputError(str(path), expected="a whole file of torch.save", got=got)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")  # on old formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # for a damaged file torch raises whatever its readers raise
        if needed := _needed(error):
            load = "torch.load({path}, map_location='cpu', weights_only=False)"
            raise _needs_code(path, needed, load) from error
        raise InputError(str(path), expected="a whole file of torch.save", got=first_line(error)) from error


def _needed(error: Exception) -> str:
    """What a file needs beyond tensors and plain containers, from torch's error; empty if it is damaged instead."""
    if "TorchScript" in str(error):
        return "a TorchScript program"
    if not isinstance(error, pickle.UnpicklingError):
        return ""
    named = re.search(r"GLOBAL ([\w.]+) was", str(error))  # of a damaged file the name may be anything
    return f"an object of {named[1]}" if named else "a pickle of other things"


def _needs_code(path: Path, got: str, load: str) -> InputError:
    """The refusal, with two lines that keep the tensors of a file and drop the rest; networks become state dicts."""
    target = str(path.with_name(f"{path.stem}-weights.pt"))
    read = f"import pickle, torch; found = {load.format(path=repr(str(path)))}"
    write = (
        "torch.save({name: state for name, part in (found if isinstance(found, dict) else {'model': found}).items() "
        "for state in [part.state_dict() if hasattr(part, 'state_dict') else part] if torch.is_tensor(state) or "
        f"isinstance(state, dict) and all(map(torch.is_tensor, state.values()))}}, {target!r})"
    )
    return InputError(
        str(path),
        expected="tensors in plain containers, which can be read without running code",
        got=got,
        fix=f"If you trust the file, two lines of Python convert it: {read}; {write}",
    )
