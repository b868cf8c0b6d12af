"""The names that options accept, for help texts.

They are repeated here because `--help` must not wait for torch; `tests/cli/test_cli_help.py` compares each list with
the room that owns it.
"""

from __future__ import annotations

from collections.abc import Iterable

MODELS = ("mlp", "dit", "unet", "uvit")
DATASETS = ("digits", "mixture")
SCHEDULES = ("cosine", "linear_beta", "scaled_linear_beta", "linear_log_snr", "flow", "edm", "from_table")
TARGETS = ("epsilon", "x0", "v", "score", "flow", "F")
CALLS = ("time", "log_snr")
TIMESTEPS = ("continuous", "integer")
ENGINES = ("auto", "streaming", "exact", "autograd", "sketch")
KERNELS = ("trace", "full")
LEVELS = ("quick", "standard", "thorough")
RULES = (
    "constant_epsilon", "constant_x0", "constant_v", "min_snr", "soft_min_snr", "p2", "debias", "truncated_snr", "edm",
    "sigmoid", "erd", "uniform", "cosmap",
)  # fmt: skip
SCORES = ("amplitude", "bayes", "learnability", "gsnr", "gain", "contamination")
PRESETS = ("digits", "fashion", "fashion_small", "fine_tuning", "images", "latents", "mixture")
OPTIMIZERS = ("adamw", "sgd", "muon")
SETTINGS = (
    "weight_decay", "beta1", "beta2", "gradient_clip", "warmup", "ema_decay", "ema_width", "log_every", "checkpoint_every",
    "keep_checkpoints", "keep_every", "sample_every", "condition_dropout", "stratified", "sampling", "align_module",
    "accumulate", "mixed_precision",
)  # fmt: skip
SAMPLERS = ("heun", "ddim", "ancestral")
ARGUMENTS = ("snr", "log_snr", "sigma", "timesteps")
THEMES = ("light", "dark")


def one_of(names: Iterable[str]) -> str:
    """The sentence that lists the choices."""
    return "One of: " + ", ".join(names) + "."
