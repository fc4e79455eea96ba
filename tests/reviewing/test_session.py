"""A session as readers have it: Chromium, the keyboard alone, servers of their own on one audit."""

import csv
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import audit, gallery, review
from jobs.deciding.decisions import MAX_NAME, DecisionTable
from tests.reviewing.conftest import listening_to, serving
from tests.reviewing.test_exemplars import STATED, labelled
from tests.support.small_package import save_small_package
from tests.support.workbench.devtools import Browser
from tests.support.workbench.review_samples import (
    Reviewed,
    make_reviewed,
    radiograph,
    summary_of,
)

NUM_CASES = 30
SHOWN = "document.querySelector('#case').dataset.shown"
STATUS = "document.querySelector('#status').textContent"
ALERT = "document.querySelector('#alert').textContent"
FOCUS = (
    "document.activeElement.id || document.activeElement.value || document.activeElement.tagName"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as started:
        started.size(1400, 900)
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Reviewed:
    return make_reviewed(tmp_path_factory.mktemp("reviewed"), 3 * NUM_CASES, 64)


def tab_to(browser: Browser, script: str) -> None:
    """Presses Tab until what the script says has the focus."""
    for _ in range(40):
        browser.press("Tab")
        if browser.ask(script):
            return
    raise AssertionError(f"The keyboard does not come to {script}.")


def begin(browser: Browser, address: str, queue: str) -> None:
    browser.open(address)
    wanted = f"(document.activeElement.getAttribute('href') || '').startsWith('/read/{queue}')"
    tab_to(browser, wanted)
    browser.press("Enter")
    browser.wait(f"location.pathname === '/read/{queue}' && {SHOWN}")


def decide(browser: Browser, key: str, implant: str = "") -> None:
    before = browser.ask(SHOWN)
    browser.press(key)
    if implant:
        browser.type(implant)
    browser.press("Enter")
    browser.wait(f"{SHOWN} !== '{before}' || !document.querySelector('#over').hidden")
    assert browser.ask(STATUS).startswith("Kept: ")


@pytest.mark.long
def test_readers_read_disagree_and_are_arbitrated_by_keys_alone(
    made: Reviewed, browser: Browser, tmp_path: Path
) -> None:
    with serving(made, "Ann") as (ann, _), serving(made, "Ben") as (ben, _):
        begin(browser, ann, "worklist")
        for number in range(NUM_CASES):
            if number == 4:  # undone and decided again
                browser.press("u")
                browser.wait(f"{STATUS}.startsWith('Undone')")
                decide(browser, "1", "another stem")
            if number == 6:  # skipped, and served again at the end
                skipped = browser.ask(SHOWN)
                browser.press("s")
                browser.wait(f"{SHOWN} !== '{skipped}'")
            decide(browser, "1" if number % 2 else "2", "another stem" if number % 2 else "")
        assert browser.ask("document.querySelector('#progress').textContent") == (
            f"{NUM_CASES} of {NUM_CASES} read, 0 left"
        )
        assert browser.complaints() == []
        begin(browser, ben, "second")
        decide(browser, "5")
        decide(browser, "1", "another stem")
        browser.open("about:blank")  # it fetches nothing ahead of servers that end
    browser.ask("1")
    browser.events.clear()
    with serving(made, "Cy") as (cy, _):
        begin(browser, cy, "arbitration")
        found = browser.ask("document.querySelector('.panel').innerText")
        assert "What the readers found" in found
        assert "Cannot tell" in found
        assert "Ann" not in found
        assert "Ben" not in found
        decide(browser, "4")
        browser.open(cy)
        home = browser.ask("document.body.innerText")
        assert "Agreement of readers" in home
        assert "Ann, Ben" in home
        assert browser.complaints() == []
    export = tmp_path / "decisions.csv"

    assert review.main([*made.call, "--export", str(export)]) == 0
    with export.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("reading"), kinds.count("undo"), kinds.count("arbitration")) == (
        NUM_CASES + 3, 1, 1,
    )  # fmt: skip


@pytest.mark.slow
def test_a_sample_is_read_and_arbitrated_and_the_rate_follows(
    browser: Browser, tmp_path: Path
) -> None:
    """Thirty records drawn over all verdicts, by keys; the interval narrows while one works."""
    own = make_reviewed(tmp_path / "own", 90, 64, more=("--sample", "30"))
    rates = []
    with serving(own, "Ann") as (ann, _), serving(own, "Ben") as (ben, _):
        begin(browser, ann, "sample")
        for number in range(30):
            if number == 20:
                pictures(browser, tmp_path, "case")
            text = browser.ask("document.querySelector('#case').innerText")
            record = re.search(r"\bR(\d+)\b", text)
            assert record is not None
            is_wrong = int(record[1]) in own.wrong
            decide(browser, "1" if is_wrong else "2")
            rates.append(browser.ask("document.querySelector('#rate').textContent"))
        begin(browser, ben, "second")
        decide(browser, "5")
        browser.open("about:blank")
    browser.ask("1")
    browser.events.clear()
    found = [re.search(r"\(([\d.]+) to ([\d.]+)\D+ (\d+) verified", text) for text in rates]
    widths = [float(one[2]) - float(one[1]) for one in found if one is not None]
    assert len(widths) > 20
    assert widths[-1] < 0.5 * widths[0]
    assert rates[-1].endswith("30 verified")
    with serving(own, "Cy") as (cy, _):
        begin(browser, cy, "arbitration")
        decide(browser, "3")
        browser.open(cy)
        assert "from 29 of 30 records" in browser.ask("document.body.innerText")
        pictures(browser, tmp_path, "home")
        assert browser.complaints() == []
    export = tmp_path / "decisions.csv"
    assert review.main([*own.call, "--export", str(export)]) == 0
    with export.open(newline="", encoding="utf-8-sig") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    assert (kinds.count("reading"), kinds.count("arbitration")) == (31, 1)
    verified = summary_after(own)["error_rate_verified"]
    assert (verified["verified"], verified["not_judged"]) == (29, 1)
    assert verified["design"]["low"] <= len(own.wrong) / 90 <= verified["design"]["high"]


def pictures(browser: Browser, folder: Path, name: str) -> None:
    """Leaves the page as it is on a desktop and on a phone, to be looked at."""
    for width, is_phone in ((1400, False), (390, True)):
        browser.size(width, 844 if is_phone else 900, phone=is_phone)
        browser.wait("document.documentElement.scrollWidth <= innerWidth")
        browser.picture(folder / f"{name}-{width}.png")
    browser.size(1400, 900)


def summary_after(own: Reviewed) -> dict[str, Any]:
    """Audits again; returns the summary."""
    call = ["--predictions", own.output, "--registry", str(own.folder.parent / "records.csv")]
    audit.main([*call, "--report", str(own.folder), "--model", str(own.package)])
    return summary_of(own.folder)


def test_keys_show_the_picture_as_asked_and_keep_out_of_fields(
    tmp_path: Path, browser: Browser
) -> None:
    own = make_reviewed(tmp_path / "own", 6, 64)
    with serving(own, "Ann") as (address, _):
        begin(browser, address, "worklist")
        canvas = "document.querySelector('figure.active canvas')"
        looks = f"{canvas}.toDataURL()"
        for key in ("i", "r", "+", "ArrowLeft", "W", "l"):
            before = browser.ask(looks)
            browser.press(key)
            browser.wait(f"{looks} !== {before!r}")
        browser.press("0")
        first = browser.ask("document.querySelector('figure.active').dataset.image")
        browser.press("]")
        assert browser.ask("document.querySelector('figure.active').dataset.image") != first
        browser.press("g")
        assert browser.ask("document.querySelectorAll('.films.one').length") == 1
        browser.press("n", "u", "1", "s")
        assert browser.ask("document.querySelector('#note').value") == "u1s"
        browser.press("Escape")
        browser.press("Enter")
        assert "Choose a finding first" in browser.ask(ALERT)
        assert browser.ask(FOCUS) == "record_wrong"
        browser.press("1")
        assert browser.ask(FOCUS) == "implant"
        assert list(DecisionTable(own.folder).all()) == []
        browser.press("Escape", "?")
        assert browser.ask("document.querySelector('#keys').hidden") is False
        browser.press("h")
        browser.wait("document.querySelector('figure.active .heat').naturalWidth > 0")
        assert browser.complaints() == []


def test_references_are_shown_by_a_key_under_the_policy(tmp_path: Path, browser: Browser) -> None:
    own = make_reviewed(tmp_path / "own", 6, 64)
    call = ["--model", str(own.package), *labelled(tmp_path / "set"), *STATED]
    assert gallery.main(call) == 0
    with serving(own, "Ann") as (address, _):
        begin(browser, address, "worklist")
        browser.press("e")
        near = "document.querySelectorAll('figure.active .compared img')"
        browser.wait(f"{near}.length >= 9")
        browser.ask(f"{near}.forEach(image => image.loading = 'eager')")
        browser.wait(f"[...{near}].every(image => image.naturalWidth === 64)")
        browser.press("e")
        assert browser.ask("document.querySelector('figure.active .compared').hidden") is True
        assert browser.complaints() == []


def test_two_radiographs_that_are_dropped_are_answered_side_by_side_and_together(
    tmp_path: Path, browser: Browser
) -> None:
    save_small_package(tmp_path / "package")
    assert (
        gallery.main(["--model", str(tmp_path / "package"), *labelled(tmp_path / "set"), *STATED])
        == 0
    )
    files = [tmp_path / f"{n}.dcm" for n in (0, 1)]
    for number, file in enumerate(files):
        file.write_bytes(radiograph(number, 64, dicom=True))
    with listening_to(["--model", str(tmp_path / "package")]) as (address, _):
        browser.open(address)
        choose = browser.call("Runtime.evaluate", expression="document.querySelector('#files')")
        place = choose["result"]["objectId"]
        browser.call("DOM.setFileInputFiles", files=[*map(str, files)], objectId=place)
        browser.wait("document.querySelector('#joint .joint') !== null")
        assert "of 2 radiographs speak" in browser.ask(
            "document.querySelector('#joint').textContent"
        )
        tops = "[...document.querySelectorAll('#answers .case')].map(c => c.offsetTop)"
        assert len({*browser.ask(tops)}) == 1, "side by side"
        browser.size(390, 844, phone=True)
        browser.wait("document.documentElement.scrollWidth <= 390")
        assert len({*browser.ask(tops)}) == 2
        assert browser.complaints() == []


def test_killed_server_costs_no_decision_and_the_next_one_goes_on(
    tmp_path: Path, browser: Browser
) -> None:
    own = make_reviewed(tmp_path / "own", 9, 64)
    with serving(own, "Ann") as (address, process):
        begin(browser, address, "worklist")
        decide(browser, "2")
        second = browser.ask(SHOWN)
        browser.press("5")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        browser.press("Enter")
        browser.wait(f"{ALERT}.includes('does not answer')")
        assert (
            browser.ask("document.querySelector('fieldset input:checked').value") == "cannot_tell"
        )
    with serving(own, "Ann") as (address, _):
        begin(browser, address, "worklist")
        assert browser.ask(SHOWN) == second
        decide(browser, "5")
    assert [str(d.judgement) for d in DecisionTable(own.folder).all()] == [
        "record_right", "cannot_tell",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "is_phone"),
    [
        (1400, False),
        pytest.param(820, True, marks=pytest.mark.slow),
        pytest.param(390, True, marks=pytest.mark.slow),
        (320, True),
    ],
)
def test_pages_fit_and_controls_have_names(
    width: int, is_phone: bool, made: Reviewed, browser: Browser
) -> None:
    browser.size(width, 844, phone=is_phone)
    with serving(made, "D" * MAX_NAME) as (address, _):
        browser.open(address)
        token = browser.ask("location.href")
        for page in ("", "list/second", "read/second"):
            browser.open(f"{token.rstrip('/')}/{page}")
            if page.startswith("read"):
                browser.wait(f"{SHOWN} || !document.querySelector('#over').hidden")
            assert browser.ask("document.documentElement.scrollWidth <= innerWidth"), page
            unnamed = browser.ask(
                "[...document.querySelectorAll('button, a[href], input, textarea')].filter(e =>"
                " !(e.innerText || e.getAttribute('aria-label') || (e.labels && e.labels.length)))"
                ".map(e => e.outerHTML)"
            )
            assert unnamed == []
