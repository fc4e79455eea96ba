"""The page of an audit: data stays text, nothing is loaded, the worklist sorts and filters."""

import base64
import hashlib
import math
import re
import subprocess
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.auditing.audit_page import render_audit
from jobs.auditing.counting import Group
from jobs.auditing.findings import AuditSource, Change, Findings, Pair, Row, to_json
from jobs.auditing.joining import USES, Use
from jobs.auditing.registry.claims import Unmatched
from jobs.auditing.registry.records import EXCLUSIONS, Exclusion
from jobs.auditing.safety import GAPS, Gap
from jobs.auditing.verdicts import DOUBTS, VERDICTS, Doubt, Verdict
from jobs.entry.command import DISCLAIMER
from tests.report.test_report import HOSTILE, RIGHT_TO_LEFT, Elements
from tests.support.browser import chromium, lay_out
from training.metrics import Figure, wilson

COUNTS = {
    Verdict.AGREES: 900_000,
    Verdict.CONTRADICTS: 52_000,
    Verdict.UNDECIDED: 20_000,
    Verdict.NOT_IN_CATALOGUE: 15_000,
    Verdict.NO_READABLE_IMAGE: 3_000,
    Verdict.NO_IMAGE: 9_000,
    Verdict.EXCLUDED: 1_000,
}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
ROWS = [
    Row(7, HOSTILE, "2019", "stem-a or stem-b", "knee-c", 0.98, 0.97, 2),
    Row(1_200_345, "St Elsewhere", "2020", "stem-b", RIGHT_TO_LEFT, 0.9, 0.75, 1),
    Row(12, "", "", "knee-c", "stem-a", 0.55, 0.08, 1),
]


def some_findings() -> Findings:
    of_group = {verdict: count // 1000 for verdict, count in COUNTS.items()}
    group = Group(HOSTILE, 1000, of_group, wilson(52, 952), 48.5, 960)
    return Findings(
        source=AuditSource(
            "file:///out", f"file:///{HOSTILE}.csv", "hips@0123456789ab", "patient",
            {"record": "Case", "product": HOSTILE}, "360 images", 0.95, 360, True, 3,
        ),
        made_at=datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
        verdicts=COUNTS,
        doubts={Doubt.LOOKS_UNKNOWN: 12_000, Doubt.SEVERAL_LEFT: 8_000, Doubt.NONE_LEFT: 0},
        exclusions={Exclusion.MALFORMED: 900, Exclusion.DUPLICATE: 100},
        uses={use: 1000 + use for use in Use},
        image_reasons={"truncated": 7, "corrupt": 2},
        rate=Figure(0.049, 0.031, 0.068, 952_000),
        sampling=Figure(0.049, 0.0485, 0.0495, 952_000),
        num_same_joint=321,
        contradicted=wilson(52_000, 952_000),
        likely_wrong=45_000,
        expected_wrong=46_648.0,
        groups={"hospital": [group] * 60, "year": [replace(group, name="2020")]},
        pairs=[Pair("stem-a or stem-b", HOSTILE, 120, 100.5)] * 50,
        unmatched=[
            Unmatched("product", HOSTILE, 12, "The catalogue has no such name.", HOSTILE, 0.875)
        ],
        worklist=ROWS,
        notes=[f"{HOSTILE}: I and D are read as left and right."],
        cause=f"None of the 9 records has an image; the column {HOSTILE!r} is the cause.",
        site_parts=Counter({"THIGH": 12, HOSTILE: 3}),
        safety_notes=[("conditional, 3 T", f"Leaflet {HOSTILE}", 500)],
        gaps={Gap.NO_NOTE: 10, Gap.NO_AGREEMENT: 20},
        drift=[Change("Rate of errors", wilson(10, 1000), wilson(50, 1000), True)],
        previous_at="2026-01-30T12:30:00+00:00",
    )  # fmt: skip


def test_every_code_has_its_words() -> None:
    for codes, words in (
        (Verdict, VERDICTS),
        (Doubt, DOUBTS),
        (Exclusion, EXCLUSIONS),
        (Use, USES),
        (Gap, GAPS),
    ):
        assert {code for code in codes if code.name != "NONE"} == set(words)


def test_data_stays_text_and_nothing_is_loaded() -> None:
    page = render_audit(some_findings())
    elements = Elements(page)
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("script") == 1
    assert not {"iframe", "object", "embed", "link", "form", "base", "img"} & set(tags)
    assert not [n for _, attributes in elements.tags for n in attributes if n.startswith("on")]
    for name in ("src", "srcset", "data", "action", "xlink:href", "background", "style"):
        assert list(elements.attributes(name)) == []
    anchors = set(elements.attributes("id"))
    assert all(link[1:] in anchors for link in elements.attributes("href"))
    assert any(HOSTILE in text for text in elements.texts)
    assert "\u202e" not in page


def test_the_policy_lets_in_this_style_and_this_script_alone() -> None:
    page = render_audit(some_findings())
    policy = re.search(r'content="(default-src[^"]*)"', page)
    assert policy is not None
    for kind in ("style", "script"):
        text = page[page.index(f"<{kind}>") + len(kind) + 2 : page.index(f"</{kind}>")]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy[1]
    assert "img-src" not in policy[1]
    assert "unsafe" not in policy[1]


def test_the_page_says_what_it_is_for_and_adds_up() -> None:
    page = render_audit(some_findings())
    plain = " ".join("".join(Elements(page).texts).split())
    assert page.count(DISCLAIMER) == 2
    for text in (
        "1,000,000 records",
        "4.9 %",
        "3.1 to 6.8",
        "no proof that the record is wrong",
        "not known",
        "Not for diagnosis, not for planning an operation",
        "Against the audit of 2026-01-30 12:30 UTC",
        "the interval spans correlations from 0 to 1",
        "321 records name the same implant of the same images",
        "3 archives were not read to their ends",
        "20 more, each with fewer records",
        "The first 300 are here",
    ):
        assert text in plain, text
    for verdict in Verdict:
        assert f"{COUNTS[verdict]:,}" in plain


def test_pictures_only_where_there_are_some() -> None:
    found = some_findings()
    page = render_audit(replace(found, worklist=[replace(ROWS[0], picture=PNG), *ROWS[1:]]))
    assert page.count("<img ") == 1
    assert "img-src data:" in page
    assert "This page holds radiographs" in page


def test_no_interval_is_shown_of_a_rate_that_is_not_known() -> None:
    unknown = Figure(math.nan, math.nan, math.nan, 952_000)
    source = replace(some_findings().source, num_measured=0, accuracy=math.nan)
    line = Change("Rate of errors", unknown, wilson(50, 1000), None)
    found = replace(some_findings(), source=source, rate=unknown, drift=[line])
    page = render_audit(found)
    plain = " ".join("".join(Elements(page).texts).split())
    assert plain.count("The model's package has no measured accuracy.") == 2
    assert "4.9 to" not in plain
    assert "95 %:" not in plain.partition("Records contradicted")[0]
    drift = page.partition('id="drift"')[2].partition("</section>")[0]
    assert "<td>not known</td>" in drift
    assert "no more than chance" not in drift


def test_an_audit_of_nothing_has_a_page() -> None:
    nothing = Figure(math.nan, 0.0, 1.0, 0)
    none = replace(
        some_findings(),
        rate=nothing,
        sampling=nothing,
        contradicted=nothing,
        worklist=[],
        pairs=[],
        groups={},
        drift=[],
        previous_at=None,
        unmatched=[],
        notes=[],
        verdicts={verdict: 0 for verdict in Verdict},
    )
    page = render_audit(none)
    Elements(page)
    assert "No record is contradicted." in page
    assert "nan" not in page.replace("name", "")
    assert b"NaN" not in to_json(none)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_in_chromium(tmp_path: Path, width: int) -> None:
    layout = lay_out(render_audit(some_findings()), width, tmp_path)
    assert layout.given == width
    assert layout.needed <= width
    assert layout.rules > 100, "the policy lets the page's own style in"
    assert layout.scripts == 1


def test_the_page_is_printed_to_pdf_by_chromium(tmp_path: Path) -> None:
    browser = chromium("the page is not printed")
    (tmp_path / "report.html").write_text(render_audit(some_findings()), encoding="utf-8")
    printed = tmp_path / "audit.pdf"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += [f"--print-to-pdf={printed}", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [(tmp_path / "report.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    data = printed.read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 1, "more than fits one page"


DRIVE = """<!doctype html><title>none</title><iframe src="report.html" width="1000"></iframe>
<script>
document.querySelector('iframe').addEventListener('load', event => {
  const page = event.target.contentDocument, said = [];
  const rows = () => Array.from(page.querySelectorAll('#worklist-table tbody tr'))
    .filter(row => !row.hidden).map(row => row.cells[1].textContent).join('/');
  const buttons = page.querySelectorAll('#worklist-table th button');
  const filter = page.getElementById('filter'), likely = page.getElementById('likely');
  said.push(rows());
  buttons[1].click(); said.push(rows());
  buttons[1].click(); said.push(rows());
  buttons[7].click(); said.push(rows());
  filter.value = 'ELSEWHERE 2020'; filter.dispatchEvent(new Event('input')); said.push(rows());
  filter.value = ''; filter.dispatchEvent(new Event('input'));
  likely.click(); said.push(rows());
  said.push(page.getElementById('shown').textContent);
  said.push(page.querySelector('th[aria-sort]').textContent);
  buttons[0].focus(); said.push(String(page.activeElement === buttons[0]));
  document.title = said.join('; ');
});
</script>
"""


def test_the_worklist_sorts_and_filters_in_chromium(tmp_path: Path) -> None:
    browser = chromium("the page's script is not run")
    (tmp_path / "report.html").write_text(render_audit(some_findings()), encoding="utf-8")
    (tmp_path / "drive.html").write_text(DRIVE, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=3000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "drive.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None
    assert found[1].split("; ") == [
        "8/1,200,346/13",
        "8/13/1,200,346",
        "1,200,346/13/8",
        "13/8/1,200,346",
        "1,200,346",
        "8/1,200,346",
        "2 of 3 shown",
        "Hospital",
        "true",
    ]
