"""How a valid file is damaged, which text a hostile user types, and what a readable refusal is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator
# A case draws from the generator, works in the empty current folder, and returns its outcome; a bug raises.
Case = Callable[[Rng, Path], str]

# Characters; an error message that is longer is not readable.
_LONGEST_LINE = 4000

TOKENS = (
    "nan", "inf", "-inf", "1e999", "-1", "0", "-0.0", "1e-320", "9" * 400, "9" * 5000, "0x10", "1_000", "٣", "", " ", ",",
    ",,", '"', "'", "\x00", "\ufeff", "\r", "\n", "\u2028", "\x85", "#", "# target: v", "# rule: {}", "# meta: [", "null",
    "true", "[]", "{}", "[" * 2000, '{"a":' * 500, "[" * 900 + "]" * 900, "NaN", "Infinity", "log_snr,weight", "low,high",
    "\U0001f600", "../..", "%s", "\\u0000", "\\ud800", "x" * 140_000,
)  # fmt: skip


def damaged(rng: Rng, data: bytes) -> bytes:
    """The file after one random change: bytes removed, inserted, repeated, replaced or cut off, or lines shuffled."""
    start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    stop = min(stop, start + int(rng.integers(0, 40)))
    token = TOKENS[int(rng.integers(len(TOKENS)))].encode()
    match int(rng.integers(0, 7)):
        case 0:
            return data[:start] + data[stop:]
        case 1:
            return data[:start] + token + data[stop:]
        case 2:
            return data[:stop] + data[start:]
        case 3:
            return data[:start]
        case 4:
            return data[:start] + noise(rng, 3) + data[stop:]
        case 5:
            return noise(rng, int(rng.integers(0, 300)))
        case _:
            lines = data.splitlines(keepends=True)
            rng.shuffle(lines)
            return b"".join(lines)


def noise(rng: Rng, count: int) -> bytes:
    """Random bytes."""
    return rng.integers(0, 256, count, dtype=np.uint8).tobytes()


def unreadable_path(rng: Rng, path: Path) -> Path:
    """A path with the suffix of `path` where no file can be read: a folder, a loop of links, a pipe, an impossible name.

    Permissions are not among them, because root, who runs containers, is allowed everything.
    """
    match int(rng.integers(0, 8)):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path)
        case 2:
            os.mkfifo(path)  # opening it waits for a writer
        case 3:
            path.symlink_to("/dev/zero")  # reading it never ends
        case 4:
            return path.with_name("n" * 300 + path.suffix)
        case 5:
            return path.with_name(f"nul\x00{path.suffix}")
        case 6:
            path.write_bytes(b"")
            return path / f"below{path.suffix}"
        case _:
            return path.with_name(f"\ud800{path.suffix}")
    return path


def refusal(text: str) -> str:
    """The outcome "refused", if the message is one line of readable length.

    Raises:
        AssertionError: it is not.
    """
    assert "\n" not in text, "an error of several lines"
    assert len(text) <= _LONGEST_LINE, f"an error of {len(text)} characters: {text[:300]}"
    return "refused"
