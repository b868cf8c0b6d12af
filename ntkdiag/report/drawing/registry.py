"""The list of figures: name, what it needs, who draws it, and the sentence that says how to read it.

Only names live here, so that listing the figures costs no import of matplotlib. To add a figure: a
function that draws on given axes, and an entry in `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ntkdiag.report.drawing.figure_spec import FigureSpec

GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "rank": "How many directions are left to learn in",
        "strength": "How strongly the loss can be contracted",
        "recoverability": "Whether that follows what the input still tells about the target",
        "coupling": "Whether noise levels help or disturb each other",
        "full": "What the full kernel adds: every output by itself",
        "weights": "How effort is spent over noise levels",
        "training": "What training with these weights gave",
    }
)

_ALL = (
    FigureSpec(
        "effective_rank",
        "Effective rank",
        "Lower means fewer directions in which the network can still learn at that noise level; bands are "
        "90% intervals over samples, and where the trained curve falls below the untrained one, training lost rank.",
        "rank",
        "rank",
        "draw_effective_rank",
    ),
    FigureSpec(
        "spectra",
        "Eigenvalue spectra",
        "One line a noise level: a line that falls steeply has few strong directions, a line that lies low "
        "learns slowly in all of them.",
        "rank",
        "spectra",
        "draw_spectra",
    ),
    FigureSpec(
        "spectrum_map",
        "Where the kernel's energy sits",
        "Each column is one noise level's spectrum, largest eigenvalue at the bottom: the higher the bright "
        "part reaches, the more directions share the energy.",
        "rank",
        "spectra",
        "draw_spectrum_map",
    ),
    FigureSpec(
        "rarefaction",
        "Were there enough samples?",
        "A curve that has flattened has enough samples; one that still rises gives a rank that is too low, "
        "so compare noise levels only at the same number of samples.",
        "rank",
        "rank",
        "draw_rarefaction",
    ),
    FigureSpec(
        "trace",
        "Trace of the kernel",
        "The rate at which gradient descent lowers the loss, summed over all directions: a low value is a "
        "noise level that learns slowly.",
        "strength",
        "rank",
        "draw_trace",
    ),
    FigureSpec(
        "top_eigenvalue",
        "Top eigenvalue",
        "The same rate in the single best direction: where it is low even the easiest part is learned slowly.",
        "strength",
        "rank",
        "draw_top_eigenvalue",
    ),
    FigureSpec(
        "profile",
        "Recoverability and rank over noise",
        "Thin lines say how much of the target the noisy input still tells; if the thick one, the measured "
        "rank, rises and falls with them, degradation follows recoverability rather than noise as such.",
        "recoverability",
        "recoverability",
        "draw_profile",
    ),
    FigureSpec(
        "recoverability",
        "Recoverability against measured rank",
        "One point a noise level, labelled by its log-SNR: points that climb from left to right mean that "
        "rank is lost where the target is hard to recover.",
        "recoverability",
        "recoverability",
        "draw_against_rank",
        panels="scores_present",
    ),
    FigureSpec(
        "loss",
        "Loss and what can be removed of it",
        "The grey line is the floor that no training removes, or where the exact one is not known a bound from "
        "above; only the gap between it and the trained curve is left to learn.",
        "recoverability",
        "recoverability",
        "draw_loss",
    ),
    FigureSpec(
        "excess",
        "What is left to learn",
        "Loss above the floor, where the floor is known exactly: effort is well spent where this is large and the "
        "rank is not small.",
        "recoverability",
        "rank",
        "draw_excess",
    ),
    FigureSpec(
        "gsnr",
        "Gradient signal-to-noise",
        "How far the gradients of single samples agree: at 0.1 a batch needs about ten samples before the common "
        "direction outweighs the noise, and a band that reaches zero means that none was found.",
        "recoverability",
        "rank",
        "draw_gsnr",
    ),
    FigureSpec(
        "kernel_coupling",
        "Shared kernel between noise levels",
        "1 (dark blue): a step at one level changes the output at the other just as much; 0 (white): not at all.",
        "coupling",
        "coupling",
        "draw_kernel_coupling",
        size=(5.6, 4.5),
    ),
    FigureSpec(
        "gradient_coupling",
        "Gradients between noise levels",
        "Blue pairs pull the weights the same way, red pairs pull against each other, and a red block is a "
        "conflict; a dash is a level whose mean gradient is lost in noise.",
        "coupling",
        "coupling",
        "draw_gradient_coupling",
        size=(5.6, 4.5),
    ),
    FigureSpec(
        "full_rank",
        "Effective rank of the full kernel",
        "Directions in samples and outputs together, of which there are many more than samples; bands are 90% intervals "
        "over random vectors for these very samples, not over new ones.",
        "full",
        "full",
        "draw_full_rank",
        subject="full",
    ),
    FigureSpec(
        "full_density",
        "Spectral density of the full kernel",
        "How many of its eigenvalues lie around each size, with 90% bands over random vectors: the right end is the few "
        "strong directions, the hill on the left the many in which almost nothing is learned; ripples there are no peaks.",
        "full",
        "full",
        "draw_density",
        subject="full",
    ),
    FigureSpec(
        "alignment",
        "What lies in the strongest directions",
        "A curve that climbs at once is a signal that the network can learn fast; the residual is what it still gets wrong, "
        "and a flat curve says that its error lies where it hardly learns.",
        "full",
        "full",
        "draw_alignment",
        subject="full",
        panels="signals_present",
    ),
    FigureSpec(
        "contraction",
        "How fast the residual would shrink",
        "Under gradient flow with the kernel as it is now. What is left lies in the band, whose upper edge is the line; it "
        "opens at late times, where the smallest eigenvalues decide.",
        "full",
        "full",
        "draw_contraction",
        subject="full",
    ),
    FigureSpec(
        "eigenfunctions",
        "What is learned fastest",
        "The strongest eigenfunctions on single samples, each scaled to its own largest value: red and blue change the "
        "output in opposite senses (which is which means nothing), white not at all.",
        "full",
        "eigenfunctions",
        "draw_eigenfunctions",
        subject="full",
        panels="samples_shown",
        size=(5.6, 6.6),
    ),
    FigureSpec(
        "weights",
        "Loss weights",
        "How many times its fair share each noise level counts in the loss, every curve brought to mean 1 "
        "over the levels shown as training samples them; curves with several names are one objective.",
        "weights",
        "weights",
        "draw_weights_of",
        subject="weights",
        size=(5.6, 4.2),
    ),
    FigureSpec(
        "effective_weights",
        "What weights and sampling amount to",
        "Where the objective lies once noise levels are sampled, on one scale whatever the loss is written on, every curve "
        "at area 1: trainings whose curves agree minimise the same thing.",
        "weights",
        "effective",
        "draw_effective_weights_of",
        subject="weights",
        size=(5.6, 4.2),
    ),
    FigureSpec(
        "loss_ratio",
        "Loss relative to the baseline, level by level",
        "Below the line a run is better than the baseline at that noise level, above it worse: a gain on "
        "average can hide a loss at one end.",
        "training",
        "training",
        "draw_loss_ratio",
        subject="runs",
    ),
    FigureSpec(
        "bucket_loss",
        "Loss at each noise level",
        "Unweighted test loss of each run, so that runs trained with different weights compare.",
        "training",
        "training",
        "draw_bucket_loss",
        subject="runs",
    ),
    FigureSpec(
        "history",
        "Training curves",
        "Unweighted loss averaged over noise levels as training samples them: thin is what was logged, thick its "
        "running mean. For what each level gained see the figures by noise level.",
        "training",
        "training",
        "draw_history",
        subject="runs",
    ),
    FigureSpec(
        "quality",
        "Quality of the samples",
        "One point a run with its interval, one axis a metric: bars that do not overlap are a difference, "
        "bars that do leave it open.",
        "training",
        "quality",
        "draw_metric",
        subject="quality",
        panels="metrics_present",
        size=(5.6, 2.2),
    ),
    FigureSpec(
        "samples",
        "Samples",
        "Real data first, then what each run generates.",
        "training",
        "samples",
        "draw_samples",
        subject="samples",
        panels="sample_names",
        size=(3.6, 3.8),
    ),
    FigureSpec(
        "participation_ratio",
        "Participation ratio",
        "A second count of directions, free of the bias of few samples: it should tell the same story as the "
        "effective rank.",
        "more",
        "rank",
        "draw_participation_ratio",
    ),
    FigureSpec(
        "trace_x0",
        "Trace in units of x0",
        "The trace with the target's own scale taken out, to be compared between networks that predict "
        "different targets.",
        "more",
        "rank",
        "draw_trace_x0",
    ),
)

FIGURES: Mapping[str, FigureSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
