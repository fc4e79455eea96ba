"""The page of a run: what it states, that data cannot act in it, and that it loads nothing."""

import base64
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from implant_model import storage
from implant_model.errors import (
    ArchiveReason,
    ArchiveStatus,
    ImplantError,
    Outcome,
    Reason,
    UsageError,
)
from jobs import report as job
from jobs.auditing.output import open_output
from jobs.entry.command import DISCLAIMER
from jobs.pages import wording
from jobs.pages.comparison import NOT_IN_CATALOGUE, Comparison, Judged, compare
from jobs.pages.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, histogram
from jobs.pages.page import MAX_LISTED, called, percent, plain, render_run
from jobs.pages.run_facts import IncompleteArchive, RunFacts, read_facts
from jobs.pages.run_page import write_page
from jobs.pipeline.drift import Shift
from jobs.pipeline.health import Health
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.publish import Tables
from tests.support.browser import lay_out
from tests.support.sample_output import BEGUN, ENDED, MODEL, OTHER_MODEL, publish_sample

HOSTILE = "<script>alert('x')</script>\"><img src=http://127.0.0.1/x onerror=alert(1)>"
RIGHT_TO_LEFT = "bat\u202egpj.rat\x00\n\udcff"
CATALOGUE = ("stem-a", "stem-b", "knee-c")
NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
VOID = {"meta", "link", "br", "img", "input", "hr"}


def some_facts() -> RunFacts:
    rng = np.random.default_rng(0)
    return RunFacts(
        output="file:///data/out",
        model="phantom@0123456789ab",
        archives=Counter({ArchiveStatus.COMPLETE: 1200, ArchiveStatus.SALVAGED: 2}),
        num_bytes=4_321_000_000_000,
        incomplete=[
            IncompleteArchive(HOSTILE, ArchiveStatus.SALVAGED, ArchiveReason.TRUNCATED, 1234),
            IncompleteArchive(RIGHT_TO_LEFT, ArchiveStatus.SALVAGED, ArchiveReason.CORRUPT, 5),
        ],
        outcomes=Counter({Outcome.IDENTIFIED: 9000, Outcome.AMBIGUOUS: 700, Outcome.REJECTED: 40}),
        reasons=Counter({Reason.TRUNCATED: 30, Reason.NOT_A_RADIOGRAPH: 10}),
        implants={
            Outcome.IDENTIFIED: Counter({"stem-a": 6000, "stem-b": 2999, HOSTILE: 1}),
            Outcome.AMBIGUOUS: Counter({"knee-c": 700}),
        },
        probability={
            Outcome.IDENTIFIED: rng.beta(20, 1, 9000).astype(np.float32),
            Outcome.AMBIGUOUS: rng.beta(4, 4, 700).astype(np.float32),
            Outcome.UNKNOWN: np.empty(0, np.float32),
        },
        novelty={
            Outcome.IDENTIFIED: rng.normal(20, 8, 9000).astype(np.float32),
            Outcome.AMBIGUOUS: rng.normal(30, 9, 700).astype(np.float32),
            Outcome.UNKNOWN: np.empty(0, np.float32),
        },
        started_at=NOW,
        finished_at=NOW,
        software=["0.1.0"],
        configurations=["c0ffee"],
    )


def some_comparison() -> Comparison:
    judged = [
        Judged("stem-a", Outcome.IDENTIFIED, "stem-a", ("stem-a",)),
        Judged("stem-a", Outcome.AMBIGUOUS, "stem-b", ("stem-b", "stem-a")),
        Judged("stem-b", Outcome.UNKNOWN, "stem-b", ("stem-b",)),
        Judged("other-plate", Outcome.UNKNOWN, "stem-a", ()),
        Judged("other-nail", Outcome.IDENTIFIED, "knee-c", ("knee-c",)),
        Judged("stem-b", Outcome.REJECTED, None, ()),
    ]
    return compare(judged, CATALOGUE)


def some_page() -> str:
    return render_run(
        some_facts(),
        title=f"Run of {HOSTILE}",
        notes=["Phantoms are no evidence."],
        novelty_threshold=45.0,
        comparison=some_comparison(),
        verified="All whole.",
    )


class Elements(HTMLParser):
    """All elements of a page, and whether each that is opened is closed in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def attributes(self, name: str) -> Iterator[str]:
        for _, attributes in self.tags:
            if (value := attributes.get(name)) is not None:
                yield value


def test_data_stays_text() -> None:
    page = some_page()
    elements = Elements(page)
    tags = {tag for tag, _ in elements.tags}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "form", "base"}
    assert not [n for _, attributes in elements.tags for n in attributes if n.startswith("on")]
    assert any(HOSTILE in text for text in elements.texts)
    assert "\u202e" not in page
    assert r"bat\u202egpj.rat\x00\n\udcff" in page


def test_page_loads_nothing() -> None:
    page = some_page()
    elements = Elements(page)
    for name in ("src", "srcset", "data", "poster", "action", "xlink:href", "background", "style"):
        assert list(elements.attributes(name)) == []
    anchors = set(elements.attributes("id"))
    for link in elements.attributes("href"):
        assert link.startswith("#")
        assert link[1:] in anchors
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(
        a["content"] for t, a in elements.tags if t == "meta" and "http-equiv" in a and a["content"]
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy


def test_page_says_what_it_may_not_be_used_for() -> None:
    page = some_page()
    assert page.count(DISCLAIMER) == 2
    assert page.index(DISCLAIMER) < page.index("<main")
    assert "Phantoms are no evidence." in page


def test_page_can_be_read_by_keyboard_and_by_ear() -> None:
    elements = Elements(some_page())
    assert ("html", {"lang": "en"}) in elements.tags
    for _, attributes in elements.tags:
        if attributes.get("role") == "region":
            assert attributes.get("tabindex") == "0"
            assert attributes.keys() & {"aria-label", "aria-labelledby"}
    ids = list(elements.attributes("id"))
    assert len(ids) == len(set(ids))
    assert set(elements.attributes("aria-labelledby")) <= set(ids)
    levels = [int(tag[1]) for tag, _ in elements.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert all("scope" in attributes for tag, attributes in elements.tags if tag == "th")


def test_counts_are_on_the_page() -> None:
    texts = " ".join(Elements(some_page()).texts)
    assert "1,200 complete, 2 salvaged." in " ".join(texts.split())
    for count in ("9,740", "9,700", "9,000", "6,000", "30", "1,234"):
        assert count in texts
    assert "4.3\u00a0TB" in texts or "4.3 TB" in texts
    assert "75.0\u00a0%" in texts  # 30 of 40 rejected members are truncated


def test_long_lists_are_cut_and_say_so() -> None:
    failed = ArchiveStatus.FAILED
    many = [IncompleteArchive(f"{i:04}.tar", failed, None, 0) for i in range(MAX_LISTED + 7)]
    page = render_run(replace(some_facts(), incomplete=many), title="Run")
    assert "7 more are in the table archives" in page
    assert f"{MAX_LISTED - 1:04}.tar" in page
    assert f"{MAX_LISTED:04}.tar" not in page


def test_output_without_any_image_has_a_page() -> None:
    none = {outcome: np.empty(0, np.float32) for outcome in some_facts().probability}
    empty = replace(
        some_facts(),
        archives={},
        incomplete=(),
        outcomes={},
        reasons={},
        implants={Outcome.IDENTIFIED: {}, Outcome.AMBIGUOUS: {}},
        probability=none,
        novelty=none,
        started_at=None,
        finished_at=None,
    )
    page = render_run(empty, title="Run")
    Elements(page)
    assert "No image was identified." in page
    assert "None was read." in page


def test_every_value_of_the_closed_sets_is_explained() -> None:
    assert set(wording.OUTCOMES) == set(Outcome)
    assert set(wording.REASONS) == set(Reason)
    assert set(wording.STATUSES) == set(ArchiveStatus)
    assert set(wording.ARCHIVE_REASONS) == set(ArchiveReason)


def test_facts_are_those_of_the_tables(tmp_path: Path) -> None:
    output = publish_sample(tmp_path)
    publish_sample(tmp_path, OTHER_MODEL)  # rows of another model do not count
    facts = read_facts(output, MODEL)
    assert facts.archives == {ArchiveStatus.COMPLETE: 1, ArchiveStatus.SALVAGED: 1}
    assert facts.incomplete == [
        IncompleteArchive("cut.tar", ArchiveStatus.SALVAGED, ArchiveReason.TRUNCATED, 2)
    ]
    assert facts.num_bytes == len("01.tar") + len("cut.tar")
    assert facts.outcomes == {
        Outcome.IDENTIFIED: 7,
        Outcome.AMBIGUOUS: 1,
        Outcome.UNKNOWN: 1,
        Outcome.REJECTED: 2,
        Outcome.IGNORED: 1,
    }
    assert (facts.members, facts.classified) == (12, 9)
    assert facts.reasons == {Reason.NOT_AN_IMAGE: 1, Reason.TRUNCATED: 1}
    assert facts.implants[Outcome.IDENTIFIED] == {"stem-a": 5, "stem-b": 2}
    assert facts.implants[Outcome.AMBIGUOUS] == {"stem-b": 1}
    assert facts.probability[Outcome.UNKNOWN].tolist() == pytest.approx([0.4])
    assert sorted(facts.novelty[Outcome.IDENTIFIED]) == [10, 11, 12, 13, 14, 15, 20]
    assert (facts.started_at, facts.finished_at) == (BEGUN, ENDED)
    Elements(render_run(facts, title="Run"))


def test_place_without_tables_has_no_facts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no tables; name the --output of classify"):
        read_facts(storage.normalise(str(tmp_path)), MODEL)


def test_output_of_which_nothing_is_finished_has_no_predictions_yet(tmp_path: Path) -> None:
    output = storage.normalise(str(tmp_path / "out"))
    Tables(output, RunIdentity(MODEL, "c0ffee", "0.1.0", "run-1")).create()
    for model in ([], ["--model", MODEL]):
        with pytest.raises(UsageError, match="there are no predictions yet"):
            job.main([output, "--report", str(tmp_path / "report"), *model])
    with pytest.raises(UsageError, match="has no predictions yet"):
        open_output(output, None)


@pytest.mark.parametrize(
    ("novelty", "threshold", "words"),
    [
        (11342.0, 24177.6, "47 % of the threshold, not above it"),
        (2000.0, 1000.0, "200 % of the threshold, above it"),
        (0.0, 1000.0, "0 % of the threshold, not above it"),
        (-1234.5, 1000.0, "-1,234.5 against a threshold of 1,000.0, not above it"),
        (-700.0, -800.0, "-700.0 against a threshold of -800.0, above it"),
        (3.0, 0.0, "3.0 against a threshold of 0.0, above it"),
    ],
)
def test_novelty_is_put_on_the_scale_of_its_threshold(
    novelty: float, threshold: float, words: str
) -> None:
    said = wording.novelty_sentence(novelty, threshold, 0.98)
    assert said.startswith(f"Novelty: {words}: ")
    assert said.endswith("98 % of radiographs of known implants are not above it.")
    assert ("looks like none" in said) == (novelty > threshold)


def test_histogram_of_novelty_is_in_shares_of_the_threshold() -> None:
    facts = some_facts()
    with_scale = render_run(facts, title="t", novelty_threshold=200.0)
    assert "Novelty, as a share of the threshold" in with_scale
    without = render_run(facts, title="t")
    assert "as a share" not in without
    assert "has no scale of its own" in without


def test_comparison_counts_each_image_once() -> None:
    comparison = some_comparison()
    assert comparison.rows == [*CATALOGUE, NOT_IN_CATALOGUE]
    assert comparison.columns == [*CATALOGUE, "unknown", "rejected"]
    assert comparison.counts == [
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0],
    ]
    assert (comparison.top_1.value, comparison.top_1.count) == (0.5, 4)
    assert (comparison.coverage.value, comparison.coverage.count) == (0.75, 4)
    assert (comparison.unknown_found.value, comparison.unknown_found.count) == (0.5, 2)
    assert (comparison.called_unknown.value, comparison.called_unknown.count) == (0.25, 4)


def test_histogram_stacks_all_values_inside_its_axes() -> None:
    values = {
        Outcome.IDENTIFIED: np.array([0.0, 0.99, 1.0, 1.0], np.float32),
        Outcome.UNKNOWN: np.array([1.0], np.float32),
    }
    figure = histogram(values, limits=(0.0, 1.0))
    assert figure is not None
    assert [sum(bin.counts[k] for bin in figure.bins) for k in (0, 1)] == [4, 1]
    assert figure.bins[-1].counts == [3, 1]
    last = [bar for bar in figure.bars if bar.x > WIDTH / 2]
    assert last[1].y + last[1].height == pytest.approx(last[0].y)  # one is there on the other
    for bar in figure.bars:
        assert bar.x >= LEFT
        assert bar.x + bar.width <= WIDTH - RIGHT
        assert bar.y >= TOP
        assert bar.y + bar.height <= HEIGHT - BOTTOM + 1e-9


def test_histogram_without_ends_holds_outliers_and_the_threshold() -> None:
    values = {Outcome.IDENTIFIED: np.array([*range(1000), 1e9], np.float32)}
    figure = histogram(values, mark=2000.0)
    assert figure is not None
    assert sum(bin.counts[0] for bin in figure.bins) == 1001
    assert figure.mark is not None
    assert figure.mark.at == pytest.approx(WIDTH - RIGHT)
    assert figure.mark.label == "2,000"
    assert figure.bins[-1].label.endswith("and over")


@pytest.mark.parametrize("value", [0.0, 7.5, 1e9])
def test_histogram_of_one_value_has_a_width(value: float) -> None:
    figure = histogram({Outcome.UNKNOWN: np.full(3, value, np.float32)})
    assert figure is not None
    assert sum(bin.counts[0] for bin in figure.bins) == 3


def test_histogram_of_nothing_is_none() -> None:
    assert histogram({Outcome.IDENTIFIED: np.empty(0, np.float32)}) is None


def test_text_of_foreign_origin_is_made_plain() -> None:
    assert plain("Röntgen 2026.tar") == "Röntgen 2026.tar"
    assert plain("a\u202eb\x00\udcff") == r"a\u202eb\x00\udcff"
    assert len(plain("x" * 10_000)) == 160
    assert percent(math.nan) == "\u2013"


@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_its_window_in_chromium(tmp_path: Path, width: int) -> None:
    """The content is no wider than the window; hostile names do nothing."""
    layout = lay_out(some_page(), width, tmp_path)
    assert layout.given == width
    assert layout.needed <= width
    assert layout.rules > 50  # the policy lets the page's own style in
    assert layout.scripts == 0


def test_own_page_of_an_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = publish_sample(tmp_path)
    assert job.main([output, "--report", str(tmp_path / "report")]) == 0
    page = tmp_path / "report" / "report.html"
    assert f"Report: {page}" in capsys.readouterr().out
    text = page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    assert "A maker Stem-A" in text
    assert "Copy the archive again from its source." in text, "a rejection has its remedy"
    poor = text[text.index("Archives with the most rejected members") :]
    assert poor.index("01.tar") < poor.index("cut.tar")
    assert "too few runs or images" in text


def test_page_names_what_moved_in_the_last_run(tmp_path: Path) -> None:
    shift = Shift(psi=0.4321, chance=0.01)
    last = Health(
        *("run", MODEL, "0.1.0", "2026-01-31T06:00:00Z", 9.0, {}, {}, {}, {}, {}, {}, 30),
        {"novelty": shift},
        ("The novelty of this run moved.",),
    )
    page = render_run(replace(some_facts(), last_run=last), title="A run")
    assert "0.432" in page
    assert "the 30 runs of the weeks before it" in page
    assert "The novelty of this run moved." in page


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (None, f"are of {MODEL}, {OTHER_MODEL}; name one by --model"),
        ("none@000000000000", "name one by --model, which is none@000000000000"),
        ("models/none", "models/none"),
    ],
)
def test_model_of_the_page_is_chosen(tmp_path: Path, model: str | None, words: str) -> None:
    output = publish_sample(tmp_path)
    publish_sample(tmp_path, OTHER_MODEL)
    with pytest.raises(ImplantError, match=re.escape(words)):
        write_page(output, model, tmp_path)
    assert write_page(output, OTHER_MODEL, tmp_path).exists()
    with pytest.raises(UsageError, match="holds no tables"):
        write_page(storage.normalise(str(tmp_path / "none")), None, tmp_path)


def test_implants_are_called_by_maker_and_product() -> None:
    assert called("depuy-corail", "DePuy", "Corail") == "DePuy Corail"
    assert called("Cofield", "Cofield", None) == "Cofield"
    assert called("x", None, None) == "x"
