"""What the study of killed runs compares: every byte but times and events."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.durability.folders import content, is_writing


def written(folder: Path, seconds: float, loss: str = "0.5", weight: bytes = b"\x00") -> Path:
    folder.mkdir()
    history = [{"step": 1, "seconds": seconds}, [seconds > 0]]
    (folder / "training.json").write_text(json.dumps({"history": history, "seconds": seconds}))
    (folder / "history.csv").write_text(f"step,loss,seconds\n1,{loss},{seconds}\n")
    (folder / "average.safetensors").write_bytes(weight)
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events").write_text(str(seconds))
    return folder


def test_content_is_all_but_times(tmp_path: Path) -> None:
    one = content(written(tmp_path / "one", 1.0))
    assert len(one) == 3 and one == content(written(tmp_path / "two", 2.0))
    assert one != content(written(tmp_path / "three", 1.0, loss="0.50"))
    assert one != content(written(tmp_path / "four", 1.0, weight=b"\x01"))
    (tmp_path / "two" / ".hidden").mkdir()
    assert is_writing(tmp_path / "two") and not is_writing(tmp_path / "one")
