"""The page: order, escaping, self-containment, missing parts, and that it is written whole or not at all."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from ntkdiag.errors import InputError
from ntkdiag.report import FIGURES, write_page
from ntkdiag.report.inputs import QUALITY, RUNS, SAMPLES, ReportInputs
from ntkdiag.report.page import page
from ntkdiag.report.page.markup import Html, element, join, table
from ntkdiag.report.tables import Table

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=\"alert(1)\">&amp;$\\frac{$"
TAGS = """
html head meta title style body main header section h1 h2 h3 h4 p ul li b code dl dt dd div article span
figure figcaption picture source img table caption thead tbody tr th td
"""
ALLOWED = set(TAGS.split())


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """A page with everything in it, every name from outside being an attack."""
    import report_cases as cases

    diagnosis = cases.make_diagnosis(buckets=3, samples=8)
    diagnosis.meta["network"]["name"] = diagnosis.meta["network"]["class"] = HOSTILE
    diagnosis.meta["data"]["name"] = diagnosis.meta["bayes_source"] = HOSTILE
    diagnosis.meta["config"]["target"] = HOSTILE
    diagnosis.meta["config"]["schedule"] = {"name": HOSTILE, HOSTILE: HOSTILE}
    diagnosis.meta["coverage"] = {HOSTILE: HOSTILE}
    diagnosis.meta[HOSTILE] = [HOSTILE]
    diagnosis.refs[HOSTILE] = diagnosis.refs["untrained"]
    verdicts = cases.make_verdicts()
    verdicts.text = HOSTILE
    verdicts.answers = verdicts.answers.assign(statement=HOSTILE, text=HOSTILE)
    verdicts.answers.loc[0, ["claim", "noisy"]] = HOSTILE
    runs = {HOSTILE: cases.make_runs(diagnosis.summary["log_snr"].to_numpy())["erd"]}
    quality = cases.make_quality().assign(metric=HOSTILE)
    quality.loc[0, "run"] = HOSTILE
    path = tmp_path_factory.mktemp("page") / "page.html"
    trust = cases.make_trust()
    trust.said["drift"] = HOSTILE
    trust.tables["features"] = trust.tables["features"].replace("blocks.0", HOSTILE)
    write_page(
        path,
        diagnosis,
        verdicts=verdicts,
        tables={HOSTILE: lambda log_snr: log_snr.exp()},
        runs=runs,
        trust=trust,
        samples={HOSTILE: cases.make_points()["erd"]},
        quality=quality,
    )
    return path.read_text()


def test_no_name_from_outside_becomes_markup(hostile_page: str) -> None:
    reader = Reader(hostile_page)
    assert set(reader.tags) <= ALLOWED
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    shown = "".join(reader.text)
    assert shown.count("<script>") > 10  # the attack is there, as text


def test_nothing_is_loaded_from_anywhere(hostile_page: str) -> None:
    reader = Reader(hostile_page)
    for tag, name, value in reader.attributes:
        if name in ("src", "srcset"):
            assert value.startswith("data:image/svg+xml;base64,"), (tag, name)
        assert name not in ("href", "action", "poster", "background")
    (style,) = re.findall(r"<style>(.*?)</style>", hostile_page, flags=re.S)
    assert "url(" not in style
    assert "@import" not in style
    policy = [value for _, name, value in reader.attributes if name == "content"]
    assert any("default-src 'none'" in value and "script" not in value for value in policy)


def test_pictures_hold_no_script_and_no_link(hostile_page: str) -> None:
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", hostile_page)
    assert len(pictures) >= 2 * 15
    for picture in pictures:
        svg = base64.b64decode(picture).decode()
        tags = set(re.findall(r"<([A-Za-z]+)", re.sub(r"<!--.*?-->", "", svg, flags=re.S)))
        assert not tags & {"script", "foreignObject", "a"}
        assert not re.search(r'href="(?!#|data:image/png;base64,)', svg)


def test_the_page_answers_first(hostile_page: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", hostile_page)
    assert headings == [
        "What it says",
        "What was measured",
        "On what",
        "Results",
        "Appendix: where this comes from",
    ]
    says, measured = hostile_page.index("What it says"), hostile_page.index("What was measured")
    first_verdict, first_figure = hostile_page.index('class="verdict '), hostile_page.index("<figure")
    assert says < first_verdict < measured < first_figure


def test_each_figure_has_a_caption_and_a_dark_and_a_light_picture(hostile_page: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", hostile_page, flags=re.S)
    # Weights can do without the schedule's density, effective weights cannot; the ratio needs two runs, and
    # results by class need eight samples of each.
    assert len(figures) == len(FIGURES) - 3
    for figure in figures:
        assert re.search(r"<figcaption><h4>.+?</h4><p>.+?</p></figcaption>", figure, flags=re.S)
        assert "screen and (prefers-color-scheme: dark)" in figure
        assert re.search(r'<img src="data:.+? alt="[^"]{20,}', figure, flags=re.S)
    for name in ("loss_ratio", "effective_weights"):
        assert f"<b>{FIGURES[name].title}</b>: " in hostile_page


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with one figure only, for tests that are not about figures."""
    monkeypatch.setattr(page, "FIGURES", {"excess": FIGURES["excess"], "trace": FIGURES["trace"]})


def shown(text: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Reader(text).text))


@pytest.mark.usefixtures("quick")
def test_the_answer_comes_first_and_then_a_card_a_claim(
    diagnosis: SimpleNamespace, cases: SimpleNamespace
) -> None:
    text = shown(page.build_page(ReportInputs(diagnosis, verdicts=cases.verdicts())))
    assert (
        "What it says In this network the kernel collapses at the noisy end. Claims C1 to C6 are those"
        in text
    )
    assert "hold together (max-t over 18 effects: 90% together); in C4" in text
    assert "95% of them would show. falls C1" in text
    assert (
        "falls C1 The kernel weakens where the target is less recoverable. Trace: ×0.41 [0.30, 0.55]." in text
    )
    assert "falls at the noisy end, cannot say at the clean end C2" in text
    assert "not testable C3" in text
    assert not re.search(r"\bnan\b", text.lower())


@pytest.mark.usefixtures("quick")
def test_facts_of_the_measurement_are_on_the_page(diagnosis: SimpleNamespace) -> None:
    text = shown(page.build_page(ReportInputs(diagnosis)))
    for fact in (
        "At which noise levels can digits-dit still learn?",
        "10 noise levels from log-SNR −9 (noisiest) to 9, on 48 samples each",
        "digits-dit, DiT, 213,504 parameters",
        "the clean data x0",
        "digits, samples of shape 1×8×8",
        "torch 2.13.0",
        "seed 1234",
        "9f2c" * 16,
        "coverage: linear 2 parameters: blocks.0.attention.qkv, blocks.0.mlp.0",
        "No claims were answered",
    ):
        assert fact in text, fact


@pytest.mark.usefixtures("quick")
def test_which_weights_and_how_data_was_read_are_on_the_page(diagnosis: SimpleNamespace) -> None:
    weights = {"file": "<script>.pt", "key": "ema.module", "ema": True, "others": ["model"]}
    diagnosis.meta = {
        **diagnosis.meta,
        "network": {**diagnosis.meta["network"], "weights": weights},
        "data": {
            **diagnosis.meta["data"],
            "description": "20 samples; gray pictures, labels by folder: <b>a</b>",
        },
    }
    made = page.build_page(ReportInputs(diagnosis))
    assert "<script>.pt" not in made and "<b>a</b>" not in made
    assert "'ema.module' of <script>.pt, a moving average" in shown(made)
    assert "20 samples; gray pictures, labels by folder: <b>a</b>" in shown(made)


def test_a_bare_diagnosis_still_gives_a_page(cases: SimpleNamespace, tmp_path: Path) -> None:
    bare = cases.diagnosis(buckets=1, oracle=False, untrained=False, samples=2, full=False)
    bare.meta = {}
    bare.summary = bare.summary[["bucket", "log_snr", "effective_rank"]]
    bare.coupling, bare.rarefaction = bare.coupling.iloc[:0], bare.rarefaction.iloc[:0]
    path = write_page(tmp_path / "bare.html", bare)
    text = shown(path.read_text())
    assert "At which noise levels can this network still learn?" in text
    assert "one noise level, log-SNR 0" in text
    assert "Figures left out" in text
    assert not re.search(r"\bnan\b", text.lower())


def test_empty_parts_count_as_missing(diagnosis: SimpleNamespace) -> None:
    inputs = ReportInputs(diagnosis, pd.DataFrame(), {}, {}, {}, pd.DataFrame())
    assert not any(part.is_given(inputs) for part in (RUNS, SAMPLES, QUALITY))
    with pytest.raises(InputError, match="runs to draw"):
        RUNS.take(inputs)


@pytest.mark.usefixtures("quick")
def test_a_failure_half_way_leaves_the_old_page(
    diagnosis: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def broken(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(InputError, match="disk full"):
        write_page(path, diagnosis)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.usefixtures("quick")
def test_a_missing_folder_is_bad_input_and_the_same_page_comes_twice(
    diagnosis: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="writable folder"):
        write_page(tmp_path / "nowhere" / "page.html", diagnosis)
    first = write_page(tmp_path / "a.html", diagnosis).read_bytes()
    assert first == write_page(tmp_path / "b.html", diagnosis).read_bytes()


def test_markup_escapes_all_but_its_own() -> None:
    assert element("p", "<b>", element("b", '"&')) == "<p>&lt;b&gt;<b>&quot;&amp;</b></p>"
    assert element("img", alt='"><script>') == '<img alt="&quot;&gt;&lt;script&gt;">'
    assert element("div", class_="x", http_equiv="y") == '<div class="x" http-equiv="y"></div>'
    assert isinstance(join(["<", Html("<br>")]), Html)
    assert join(["<", Html("<br>")]) == "&lt;<br>"


def test_table_cells_and_headings_are_escaped() -> None:
    text = table(Table(("<a>", "b"), (("<c>", "d"),)), "<caption>", ("<a>",))
    assert set(Reader(text).tags) == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert text.count('class="words"') == 2


def test_trust_and_content_have_sections_only_where_a_run_was_examined(
    diagnosis: SimpleNamespace, cases: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "FIGURES", {"drift": FIGURES["drift"], "output_rank": FIGURES["output_rank"]})
    text = shown(page.build_page(ReportInputs(diagnosis, trust=cases.trust())))
    assert (
        "How far to trust this This kernel describes about the next 4 steps. The rank at the noisy end falls"
        in text
    )
    assert (
        "What the features and outputs do At the noisy end 1 of 2 modules loses rank. At the noisy end the"
        in text
    )
    without = shown(page.build_page(ReportInputs(diagnosis)))
    assert "How far to trust this" not in without and "What the features" not in without
