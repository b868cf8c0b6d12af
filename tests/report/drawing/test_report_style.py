"""The palette under simulated colour blindness, contrast, names to lines, and rc that is put back."""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ntkdiag.errors import InputError
from ntkdiag.report.drawing import style
from ntkdiag.report.drawing import theme as themes

# Linear-RGB matrices of full dichromacy: Machado, Oliveira & Fernandes 2009, table of severity 1.0.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
THEMES = list(themes.THEMES.values())


def linear(colour: str) -> np.ndarray:
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    ratio = TO_XYZ @ np.clip(light, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio."""
    high, low = sorted((float(TO_XYZ[1] @ linear(a)), float(TO_XYZ[1] @ linear(b))), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_colours_of_a_group_differ_for_every_vision(theme: themes.Theme, vision: str) -> None:
    roles = [theme.colours[name] for name in themes.ROLES] + list(theme.others[:2])
    targets = [theme.colours[name] for name in themes.TARGET_COLOURS]
    for group in (roles, targets):
        seen = [lab(np.array(VISION[vision]) @ linear(colour)) for colour in group]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 18


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_lines_stand_out_from_the_background_and_text_is_readable(theme: themes.Theme) -> None:
    assert min(contrast(colour, theme.surface) for colour in (*theme.colours.values(), *theme.others)) > 2.9
    assert contrast(theme.ink, theme.surface) > 7
    assert contrast(theme.muted, theme.surface) > 4.5


@pytest.mark.parametrize("name", themes.THEMES)
def test_log_snr_map_gets_steadily_brighter_from_noisy_to_clean(name: str) -> None:
    with themes.applied(name):
        colours = style.log_snr_map(np.array([-10.0, 10.0])).to_rgba(np.linspace(-10, 10, 50))
    lightness = [lab(linear(tuple(colour[:3])))[0] for colour in colours]
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.mean()


def test_one_log_snr_alone_sits_in_the_middle_of_the_map() -> None:
    mappable = style.log_snr_map(np.array([3.0]))
    assert mappable.norm(3.0) == 0.5


def test_rc_is_set_inside_the_block_and_restored_after_an_error() -> None:
    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError), themes.applied("dark"):
        assert matplotlib.rcParams["figure.facecolor"] == themes.DARK.surface
        assert matplotlib.rcParams["text.parse_math"] is False  # a name may hold a dollar sign
        assert themes.current() is themes.DARK
        raise RuntimeError
    assert dict(matplotlib.rcParams) == before
    assert themes.current() is themes.LIGHT


def test_blocks_nest() -> None:
    with themes.applied("dark"):
        with themes.applied("light"):
            assert style.colour("erd") == themes.LIGHT.colours["erd"]
        assert style.colour("erd") == themes.DARK.colours["erd"]


def test_unknown_theme_and_thing_are_refused_with_the_names_that_exist() -> None:
    with pytest.raises(InputError, match="light, dark"), themes.applied("drak"):
        pass
    with pytest.raises(InputError, match="Did you mean 'untrained'"):
        style.colour("untraind")


@pytest.mark.parametrize(
    ("name", "thing"),
    [
        ("erd", "erd"),
        ("ERD seed 0", "erd"),
        ("min-SNR γ=5", "min_snr"),
        ("constant_epsilon", "constant"),
        ("baseline", "constant"),
        ("untrained", "untrained"),
        ("v", "v"),
        ("soft_min_snr", None),
        ("herd", None),
        ("<script>", None),
    ],
)
def test_names_from_outside_find_their_thing(name: str, thing: str | None) -> None:
    assert style.known_thing(name) == thing


def test_the_same_thing_looks_the_same_in_any_company() -> None:
    alone = style.lines(["erd"])["erd"]
    crowd = style.lines(["zebra", "constant", "erd", "other"])
    assert crowd["erd"] == alone == style.line("erd")
    assert crowd["constant"] == style.line("constant")


def test_many_lines_are_all_different() -> None:
    names = ["erd", "erd again", "constant", *(f"run {place}" for place in range(9))]
    looks = style.lines(names)
    assert len({(look.colour, str(look.dashes)) for look in looks.values()}) == len(names)
    assert looks["erd again"].colour != looks["erd"].colour


def test_untrained_is_dashed_so_that_it_is_told_apart_without_colour() -> None:
    assert style.line("untrained").dashes != "-"
    assert style.line("trained").dashes == "-"
