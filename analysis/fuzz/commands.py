"""Random command lines, run through the entry point in this process and in processes of their own."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from analysis.fuzz.damage import TOKENS, Rng, damaged, refusal, unreadable_path
from ntkdiag.cli import main as command_line
from ntkdiag.weights import WeightTable

_TABLE = """# format: ntkdiag weight table 1
# name: mine
# target: v
log_snr,weight
0,1
1,2
"""
_FUNCTIONS = """import sys
def good(snr): return snr.clamp(max=5)
def bad(snr): return 1 / 0
def scalar(snr): return snr.mean()
constant = 3
"""
_SMALL_MODEL = (
    "--model",
    "mlp",
    "--model-option",
    "width=4",
    "--model-option",
    "depth=1",
    "--data",
    "mixture",
)
_SMALL_MEASUREMENT = ("--buckets", "4", "--samples", "8", "--probes", "1", "--controls", "1")

# (frequency, a valid command); options appended later may contradict it. Commands that draw are slow, and so are rare.
_COMMANDS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (4, ("weights", "--rule", "min_snr", "--target", "v")),
    (3, ("weights", "--rule", "erd", "--target", "epsilon")),
    (2, ("weights",)),
    (3, ("weights", "--from", "diagnosis")),
    (3, ("audit", "table.csv")),
    (2, ("audit", "broken.csv")),
    (3, ("audit", "fuzzed:good", "--target", "x0")),
    (1, ("audit", "fuzzed:bad", "--target", "v")),
    (1, ("audit", "fuzzed:scalar", "--target", "v")),
    (1, ("audit",)),
    (0.5, ("verify", "--from", "diagnosis")),
    (0.2, ("verify", *_SMALL_MODEL, *_SMALL_MEASUREMENT)),
    (0.2, ("measure", *_SMALL_MODEL, *_SMALL_MEASUREMENT)),
    (0.3, ("train", *_SMALL_MODEL, "--steps", "2", "--batch", "4", "--out", "run")),
    (0.2, ("train", "--resume", "--out", "run")),
    (0.2, ("sample", *_SMALL_MODEL, "--count", "4", "--steps", "1", "--out", "out.npy")),
    (0.2, ("plot", "diagnosis", "--what", "trace", "--out", "out.png")),
    (0.1, ("report", "diagnosis", "--out", "out.html")),
    (0.3, ("wieghts",)),
    (0.3, ()),
)  # fmt: skip
# Option → values to try. Valid sizes that would only take long are left out.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "--rule": ("min_snr", "erd", "sigmoid", "debias", "nonsense"),
    "--target": ("v", "epsilon", "x0", "F", "velocity"),
    "--option": ("gamma=5", "gamma=-5", "gamma", "clip=3", "=1", "bias=1e999", "target=v", "convention=vp", "gamma=1,2",
                 "normalise=0", "k=none"),
    "--clip": ("3", "nan", "-1"),
    "--schedule": ("cosine", "linear_beta", "edm", "flow", "from_table", "linear_log_snr"),
    "--schedule-option": ("steps=7", "steps=2000000000", "log_snr=3,1,-inf", "log_snr=1", "steps=1e9", "sigma_data=0",
                          "shift=-1", "name=x", "log_snr_min=20"),
    "--from": ("diagnosis", ".", "table.csv", "nowhere"),
    "--score": ("bayes", "gsnr*bayes", "bayes*bayes", "amplitude", "*", "contamination"),
    "--power": ("2", "nan", "-1", "1e300"),
    "--floor": ("0", "2", "0.5"),
    "--cap": ("1", "0.1", "inf"),
    "--bandwidth": ("1", "-1", "1e-300"),
    "--argument": ("snr", "timesteps", "sigma", "time"),
    "--out": ("out.csv", "out.json", "out.npy", "out.safetensors", "out.pkl", "a/b/c.csv", "table.csv", "table.csv/x.csv",
              "diagnosis", ".", "/proc/out.csv", "/dev/null", "odd.csv", "n" * 300 + ".csv"),
    "--table": ("table.csv", "a=table.csv", "=table.csv", "odd.csv", "a=b=c"),
    "--run": ("diagnosis", "x=.", "run"),
    "--weights": ("erd", "table.csv", "broken.csv", "refresh:1,samples=4,buckets=2,probes=1", "refresh:x", "refresh:",
                  "refresh:1,samples=0", "min_snr:gamma=", ":", "refresh:1,probes=none", "refresh:1,budget=2"),
    "--setting": ("ema_decay=2", "warmup=none", "log_every=1", "steps=x", "gradient_clip=0"),
    "--model": ("mlp", "dit", "fuzzed:good", "fuzzed:constant", "diagnosis", "os:getcwd"),
    "--model-option": ("width=x", "depth=0", "width=-3", "nonsense=1", "shape=3"),
    "--checkpoint": ("table.csv", "nowhere.safetensors", "diagnosis/grams.safetensors", "diagnosis"),
    "--data": ("digits", "nowhere.npy", "table.csv", "odd.csv", "diagnosis"),
    "--buckets": ("3", "-1,0,1", "1,1", "density:2", "density:", "0", "nan,1"),
    "--range": ("-1,1", "1,-1", "0", "nan,nan", "-inf,inf"),
    "--params": ("*", "nothing"),
    "--engine": ("exact", "streaming", "fast"),
    "--memory": ("1", "500M", "0", "-1G"),
    "--device": ("cpu", "cuda:99", "tpu", "meta"),
    "--call": ("time", "log_snr", "x"),
    "--seed": ("0", "-1", "1.5"),
    "--what": ("weights", "spectra", "nonsense", "loss"),
    "--theme": ("dark", "grey"),
    "--json": (), "--force": (), "--list": (), "--help": (), "--no-normalise": (), "--resume": (),
    "--controls": ("0", "1", "-1", "x"),
}  # fmt: skip
_HOSTILE = tuple(text for text in TOKENS if "\x00" not in text and not text.startswith("9" * 100))
_LONGEST_ARGUMENT = 30_000  # characters; Linux takes no more than 128 KiB
_CALL = "import sys; from ntkdiag.cli import main; sys.exit(main())"


def commands(rng: Rng, folder: Path) -> str:
    """A random command line exits with 0, 1 or 2; with 2 it prints one line and leaves no file behind."""
    arguments = _command_line(rng, folder)
    before = _contents(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line(arguments)
    return _outcome(arguments, code, out.getvalue(), err.getvalue(), folder, before)


def processes(rng: Rng, folder: Path) -> str:
    """The same in a process of its own, perhaps with an ASCII terminal, odd COLUMNS or a full disk."""
    arguments: list[str | bytes] = [text[:_LONGEST_ARGUMENT] for text in _command_line(rng, folder)]
    if rng.random() < 0.2:
        arguments.append(b"\xff\xfe.csv")  # not valid UTF-8
    changed = {"PYTHONIOENCODING": "ascii"} if rng.random() < 0.4 else {}
    changed |= {"COLUMNS": str(rng.choice(["1", "20", "x"]))} if rng.random() < 0.4 else {}
    full = rng.random() < 0.2
    before = _contents(folder)
    done = subprocess.run(
        [sys.executable, "-c", _CALL, *arguments],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", **changed},
        capture_output=True,
        preexec_fn=_limit_file_size if full else None,
        timeout=120,
    )
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    readable = [text if isinstance(text, str) else "bytes" for text in arguments]
    return _outcome(readable, done.returncode, out, err, folder, before)


def _limit_file_size() -> None:
    """Limit the files of this process to 300 bytes, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def _command_line(rng: Rng, folder: Path) -> list[str]:
    """Random arguments; the files that they name are written."""
    (folder / "table.csv").write_text(_TABLE)
    (folder / "broken.csv").write_bytes(damaged(rng, _TABLE.encode()))
    (folder / "fuzzed.py").write_text(_FUNCTIONS)
    unreadable_path(rng, folder / "odd.csv")
    chances = [chance for chance, _ in _COMMANDS]
    start = _COMMANDS[int(rng.choice(len(_COMMANDS), p=[chance / sum(chances) for chance in chances]))][1]
    arguments = list(start)
    for _ in range(rng.integers(0, 4)):
        option = str(rng.choice(list(_OPTIONS)))
        arguments.append(option)
        values = _OPTIONS[option] if rng.random() < 0.85 else _HOSTILE
        if values and (_OPTIONS[option] or rng.random() < 0.2):
            arguments.append(values[int(rng.integers(len(values)))])
    if rng.random() < 0.05:
        arguments.insert(int(rng.integers(len(arguments) + 1)), _HOSTILE[int(rng.integers(len(_HOSTILE)))])
    if "diagnosis" in " ".join(arguments):
        _write_diagnosis(rng, folder / "diagnosis")
    return arguments


def _write_diagnosis(rng: Rng, folder: Path) -> None:
    """A measured network; one of its files may be damaged or gone."""
    files = _diagnosis()
    damaged_file = sorted(files)[int(rng.integers(len(files)))] if rng.random() < 0.5 else ""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != damaged_file:
            path.write_bytes(content)
        elif rng.random() < 0.8:
            path.write_bytes(damaged(rng, content))


@functools.cache
def _diagnosis() -> dict[str, bytes]:
    """The files of a small diagnosis by name, made once."""
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        folder = Path(name) / "diagnosis"
        code = command_line(
            ["measure", *_SMALL_MODEL, *_SMALL_MEASUREMENT, "--controls", "0", "--out", str(folder), "--json"]
        )
        assert code == 0, "the measurement for the study failed"
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }


def _contents(folder: Path) -> dict[str, int]:
    """Every path in the folder with its modification time, without compiled Python."""
    return {
        str(path.relative_to(folder)): path.lstat().st_mtime_ns
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def _outcome(
    arguments: list[str], code: int, out: str, err: str, folder: Path, before: dict[str, int]
) -> str:
    """The outcome of a command.

    Raises:
        AssertionError: an exit code, output or file that no command may leave.
    """
    report = f"{arguments}\n{code}\n{out[-2000:]}\n{err[-4000:]}"
    assert code in (0, 1, 2), f"exit code of {report}"
    assert "Traceback" not in err, report
    after = _contents(folder)
    made = set(after) - set(before)
    scraps = [name for name in made if Path(name).name.startswith(".") or name.endswith((".tmp", ".old"))]
    assert not scraps, f"{scraps} left by {report}"
    if code == 2:
        assert before == after, f"{sorted(made)} left, or a file changed, by {report}"
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1, report
        return refusal(err.strip())
    if code == 0 and "--json" in arguments and not {"--help", "--version"} & set(arguments):
        json.loads(out)
    for name in made:
        _require_whole_file(folder / name, arguments[0])
    return "done" if code == 0 else "done, found wrong" if arguments[0] == "audit" else "failed in one line"


def _require_whole_file(path: Path, command: str) -> None:
    if not path.is_file():
        return
    assert path.stat().st_size > 0, f"{path.name} is empty"
    if command == "weights" and path.suffix in (".csv", ".json"):
        WeightTable.load(path)
