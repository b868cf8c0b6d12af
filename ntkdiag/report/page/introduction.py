"""The opening of the page: which network was measured, what was measured of it, and on which data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ntkdiag.report.columns import column, ordered
from ntkdiag.report.formatting import MISSING, level, one_line
from ntkdiag.report.page.markup import Html, element

if TYPE_CHECKING:
    from ntkdiag.diagnosis import Diagnosis

_TARGETS = {
    "epsilon": "the noise ε",
    "x0": "the clean data x0",
    "v": "the velocity v = αε − σx0",
    "score": "the score",
    "flow": "the flow velocity dx/dt",
    "F": "EDM's preconditioned target F",
}


def title(diagnosis: Diagnosis) -> str:
    """Title of the page, one line."""
    network, data = _names(diagnosis)
    return f"Where can {network} still learn? Kernel diagnosis on {data}"


def header(diagnosis: Diagnosis) -> Html:
    """Heading and the question that the page answers."""
    network, data = _names(diagnosis)
    return element(
        "header",
        element("h1", f"At which noise levels can {network} still learn?"),
        element("p", f"A diagnosis of its neural tangent kernel on {data}, level by level.", class_="lead"),
    )


def measured(diagnosis: Diagnosis) -> Html:
    """What was measured, for a reader who has not seen a tangent kernel before."""
    config = _part(diagnosis, "config")
    summary = ordered(diagnosis.summary)
    log_snr = column(summary, "log_snr")
    kernel = one_line(config.get("kernel", "trace"))
    levels = f"{len(log_snr)} noise levels from log-SNR {level(log_snr.min())} (noisiest) to {level(log_snr.max())}"
    if len(log_snr) == 1:
        levels = f"one noise level, log-SNR {level(log_snr[0])}"
    first = (
        "The neural tangent kernel says how a small training step on one input changes the network's output on another. "
        f"This is the {kernel} kernel, averaged over {one_line(config.get('probes', MISSING))} random probes of the "
        f"outputs. It was measured at {levels}, on {one_line(config.get('samples', MISSING))} samples each. Every level "
        "uses the same data and the same noise in different proportions, so that levels can be compared sample by sample."
    )
    second = (
        "Its eigenvalues are the rates at which gradient descent removes error, one for each direction. The effective rank "
        "counts those that matter: in how many directions the network can learn. Their sum, the trace, says how fast. "
        "Log-SNR is ln(α²/σ²) of the noisy input αx0 + σε: negative values mean mostly noise, positive values mostly data."
    )
    parts = [element("p", text) for text in (first, second, _full(diagnosis)) if text]
    return element("section", element("h2", "What was measured"), *parts)


def _full(diagnosis: Diagnosis) -> str:
    if diagnosis.full is None:
        return ""
    count, samples = diagnosis.full.eigenfunctions.shape[1:3]
    rows = diagnosis.full.eigenfunctions[0, 0].numel()
    return (
        f"The trace kernel sums over outputs. The full kernel, in which each of the {rows:,} outputs of the {samples} "
        f"samples has a row of its own, was measured as well: its {count} strongest eigenfunctions at each level, "
        "and estimates of its trace, rank and spectral density from random vectors."
    )


def on_what(diagnosis: Diagnosis) -> Html:
    """Network, target, schedule, data and controls as a list."""
    config, data, network = (_part(diagnosis, name) for name in ("config", "data", "network"))
    kind = one_line(network.get("class", ""))
    parameters = network.get("parameters")
    size = f"{parameters:,} parameters" if isinstance(parameters, int) else ""
    target = str(config.get("target", MISSING))
    facts = {
        "Network": ", ".join(filter(None, (one_line(network.get("name", MISSING)), kind, size))),
        "Weights": _weights(network.get("weights")),
        "Predicts": _TARGETS.get(target, one_line(target)),
        "Noise schedule": _described(config.get("schedule")),
        "Data": f"{one_line(data.get('name', MISSING))}, samples of shape {_shape(data.get('shape'))}",
        "How it was read": one_line(data.get("description", ""), 300),
        "Compared with": ", ".join(map(one_line, diagnosis.refs))
        or "nothing, because no other network was measured",
        "Source of the loss floor": one_line(diagnosis.meta.get("bayes_source", "not known"), 120),
    }
    known = {name: fact for name, fact in facts.items() if fact}
    rows = [item for name, fact in known.items() for item in (element("dt", name), element("dd", fact))]
    return element("section", element("h2", "On what"), element("dl", *rows))


def _weights(taken: Any) -> str:
    """Which weights of a checkpoint were loaded; empty where that is not known."""
    if not isinstance(taken, Mapping):
        return ""
    key = "" if taken.get("key") == "." else f"'{taken.get('key', MISSING)}' of "
    average = ", a moving average" if taken.get("ema") else ""
    return one_line(f"{key}{taken.get('file', MISSING)}{average}", 200)


def _names(diagnosis: Diagnosis) -> tuple[str, str]:
    network, data = _part(diagnosis, "network"), _part(diagnosis, "data")
    name = one_line(network.get("name", ""))
    kind = one_line(network.get("class", ""))
    # "trained" is what `measure` calls a network that was given no name.
    if name in ("", "trained"):
        name = f"this {kind}" if kind else "this network"
    return name, one_line(data.get("name", "data without a name"))


def _part(diagnosis: Diagnosis, name: str) -> Mapping[str, Any]:
    part = diagnosis.meta.get(name)
    return part if isinstance(part, Mapping) else {}


def _described(schedule: Any) -> str:
    if not isinstance(schedule, Mapping):
        return MISSING
    rest = [f"{key} {value}" for key, value in schedule.items() if key != "name" and value is not None]
    return one_line(", ".join([str(schedule.get("name", MISSING)), *rest]), 120)


def _shape(shape: Any) -> str:
    return "×".join(map(one_line, shape)) if isinstance(shape, list | tuple) else MISSING
