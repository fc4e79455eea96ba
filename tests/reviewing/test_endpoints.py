"""What the workbench answers: pages without a script of others, pictures, decisions, sentences."""

import csv
import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from implant_model.decode.prepare import decode
from implant_model.limits import Limits
from implant_model.storage.local_files import write_whole
from jobs.reviewing.endpoints import MAX_BODY
from jobs.reviewing.guard import HEADERS
from tests.reviewing.conftest import ADDRESS, Opened
from tests.support.pictures import encoded
from tests.support.workbench.review_samples import Reviewed, make_reviewed, png, radiograph

HOSTILE = "<script>alert(1)</script>\"'>\u202e\x1b[31m{{7*7}}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Reviewed:
    return make_reviewed(tmp_path_factory.mktemp("reviewed"), 12, hospital=HOSTILE)


@pytest.fixture
def opened(made: Reviewed, open_bench: Callable[..., Opened], tmp_path: Path) -> Opened:
    return open_bench(made, tmp_path)


def send(opened: Opened, of: str, judgement: str = "record_wrong", **more: Any) -> Any:
    body = {"id": uuid.uuid4().hex, "case": of, "queue": "worklist", "judgement": judgement}
    return opened.client.post("/decide", json={**body, **more}, headers=opened.secret)


def test_samples_of_a_radiograph_are_those_of_the_file(opened: Opened, made: Reviewed) -> None:
    case = opened.bench.audit.cases[opened.bench.audit.worklist[0]]
    for image in range(2):
        answer = opened.client.get(f"/pixels/{case.id}/{image}")
        shape = [int(answer.headers[f"x-{name}"]) for name in ("rows", "columns")]
        number = 2 * (case.row - 1) + image
        same = decode(radiograph(number, dicom=number % 2 == 1), Limits()).pixels_HW
        assert same is not None
        assert (answer.headers["x-bits"], answer.headers["x-reduced"]) == ("16", "1")
        np.testing.assert_array_equal(np.frombuffer(answer.content, "<u2").reshape(shape), same)
    assert opened.client.get(f"/pixels/{case.id}/2").status_code == 400
    assert opened.client.get("/pixels/none/0").json() == {"error": "The audit has no such case."}


def test_next_case_is_known_ahead_and_follows_a_decision(opened: Opened) -> None:
    cases = list(opened.bench.audit.worklist)
    first = opened.client.get("/next/worklist").json()
    assert first == {
        "case": cases[0],
        "then": cases[1],
        "left": 4,
        "done": 0,
        "total": 4,
        "rate": "",
    }
    assert send(opened, cases[0]).json()["case"] == cases[1]
    assert opened.client.get(f"/next/worklist?after={cases[1]}").json()["case"] == cases[2]
    assert opened.client.post("/undo", json={}, headers=opened.secret).json() == {"case": cases[0]}
    for case in cases:
        last = send(opened, case).json()
    assert (last["case"], last["then"], last["done"]) == (None, None, 4)


def test_what_others_chose_is_text(opened: Opened) -> None:
    audit = opened.bench.audit
    pages = ["/", "/list/worklist", "/read/worklist?q=%3Cscript%3E%22", "/list/second?q=%3Cscript"]
    pages += [f"/case/worklist/{case}" for case in audit.worklist]
    for page in pages:
        text = opened.client.get(page).text
        assert "<script>alert" not in text
        assert "\u202e" not in text
        assert "\x1b" not in text
    assert send(opened, audit.worklist[0], implant=HOSTILE).status_code == 400
    send(opened, audit.worklist[0], implant=HOSTILE.partition("\u202e")[0], note="=1+1")
    rows = list(csv.DictReader(io.StringIO(opened.client.get("/decisions.csv").text[1:])))
    assert rows[0]["note"] == "'=1+1"
    own = opened.client.get(f"/case/worklist/{audit.worklist[0]}").text
    assert "&lt;script&gt;" in own
    assert "<script>" not in own


@pytest.mark.parametrize(
    "change",
    [
        {"judgement": "nonsense"}, {"queue": "none"}, {"id": 5}, {"case": None}, {"note": ["x"]},
        {"seconds": "1"}, {"seconds": -1}, {"seconds": True}, {"seconds": 10**400},
        {"note": "x" * 3000},
        {"note": "x" * MAX_BODY},
    ],
)  # fmt: skip
def test_impossible_request_is_a_sentence(change: dict[str, Any], opened: Opened) -> None:
    answer = send(opened, opened.bench.audit.worklist[0], **change)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")
    assert list(opened.bench.decisions()) == []


def test_body_that_is_no_object_is_a_sentence(opened: Opened) -> None:
    for body in (b"", b"[]", b"\xff", b"{", b"[" * 60_000):
        answer = opened.client.post("/decide", content=body, headers=opened.secret)
        assert answer.status_code == 400


def test_a_fault_of_the_workbench_is_a_sentence_that_nobody_keeps(opened: Opened) -> None:
    calm = TestClient(opened.client.app, base_url=ADDRESS, raise_server_exceptions=False)
    calm.cookies = opened.client.cookies
    answer = calm.get(f"/pixels/{opened.bench.audit.worklist[0]}/{'9' * 5000}")
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("The workbench has failed (ValueError);")
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_an_audit_that_was_made_anew_is_stated(
    tmp_path: Path, open_bench: Callable[..., Opened]
) -> None:
    own = make_reviewed(tmp_path / "own", 3, 64)
    opened = open_bench(own, tmp_path / "table")
    sentence = "The audit was made anew: start the workbench again."
    assert sentence not in opened.client.get("/").text
    write_whole(own.folder / "summary.json", (own.folder / "summary.json").read_bytes())
    assert sentence in opened.client.get("/").text
    assert opened.client.get("/next/worklist").json()["rate"] == sentence


def test_a_table_or_folder_that_fails_is_a_sentence(
    tmp_path: Path, open_bench: Callable[..., Opened]
) -> None:
    own = make_reviewed(tmp_path / "own", 6)
    opened = open_bench(own, own.folder)
    (own.folder / "decisions.csv").mkdir()
    answer = opened.client.get("/decisions.csv")
    assert (answer.status_code, "cannot be written" in answer.json()["error"]) == (503, True)
    for file in (tmp_path / "own" / "out" / "predictions").rglob("*.parquet"):
        file.write_bytes(b"PAR1")
    case = opened.bench.audit.worklist[0]
    for answer in (opened.client.get(f"/case/worklist/{case}"), send(opened, case)):
        assert (answer.status_code, "cannot be read" in answer.json()["error"]) == (503, True)
    assert list(opened.bench.decisions()) == []


def test_saliency_on_demand(opened: Opened) -> None:
    case = opened.bench.audit.worklist[0]
    answer = opened.client.get(f"/saliency/worklist/{case}/1")
    assert answer.headers["content-type"] == "image/png"
    assert png(answer.content).size == (644, 320)
    assert opened.client.get(f"/saliency/worklist/{case}/7").status_code == 400


def test_sample_is_served_without_what_the_model_says(
    open_bench: Callable[..., Opened], tmp_path: Path
) -> None:
    own = make_reviewed(tmp_path / "own", 12, 64, more=("--sample", "12"))
    opened = open_bench(own, tmp_path / "table")
    home = opened.client.get("/").text
    assert "nobody has read any of its 12 records" in home
    assert "no such images" not in home
    for case in opened.bench.audit.sample:
        text = opened.client.get(f"/case/sample/{case}").text
        record = opened.bench.audit.cases[case].row - 1
        panel = text.partition("<datalist")[0]
        assert "candidate" not in panel
        assert "Seen" not in panel
        assert "novelty" not in panel
        assert "probability" not in panel
        if record in own.wrong:
            assert own.truths[record] not in panel, "what the model saw"
        refused = opened.client.get(f"/saliency/sample/{case}/0")
        assert refused.json() == {"error": "The sample is read without what the model says."}
        assert opened.client.get(f"/pixels/{case}/0").status_code == 200
    first = opened.bench.audit.sample[0]
    assert send(opened, first, queue="sample").json()["rate"] == ""
    assert "until each stratum has a verified record" in opened.client.get("/").text
    for case in opened.bench.audit.sample[1:]:
        answer = send(opened, case, "record_right", queue="sample").json()
    assert answer["rate"].startswith("Wrong: 8.3")
    assert "Verified, by the sample alone" in opened.client.get("/").text


def test_sample_of_which_nothing_could_be_judged_is_not_an_unread_one(
    open_bench: Callable[..., Opened], tmp_path: Path
) -> None:
    own = make_reviewed(tmp_path / "own", 12, 64, more=("--sample", "12"))
    opened = open_bench(own, tmp_path / "table")
    send(opened, opened.bench.audit.sample[0], "cannot_tell", queue="sample")
    home = opened.client.get("/").text
    assert "1 of 12 records were read, and none could be judged" in home
    other = open_bench(own, tmp_path / "table", "Ben")
    send(other, opened.bench.audit.sample[0], "record_right", queue="second")
    assert "of its 12 records 1 read, and none settled" in other.client.get("/").text


def test_static_files_are_a_list(opened: Opened) -> None:
    assert "class Film" in opened.client.get("/static/viewer.js").text
    for name in ("base.html.j2", "..%2fserve.py", "%2e%2e%2f%2e%2e%2freview.py"):
        assert opened.client.get(f"/static/{name}").status_code in (400, 404)


def test_picture_that_was_replaced_or_is_damaged_has_its_word(
    open_bench: Callable[..., Opened], tmp_path: Path
) -> None:
    own = make_reviewed(tmp_path / "own", 3)
    opened = open_bench(own, tmp_path / "table")
    case = opened.bench.audit.worklist[0]
    assert opened.client.get(f"/pixels/{case}/0").status_code == 200
    own.archive.write_bytes(own.archive.read_bytes() + bytes(512))
    answer = opened.client.get(f"/pixels/{case}/0")
    assert answer.status_code == 410
    assert "was replaced since it was classified" in answer.json()["trouble"]
    own.archive.unlink()
    answer = opened.client.get(f"/pixels/{case}/0")
    assert answer.status_code == 409
    assert "not there any more" in answer.json()["trouble"]
    assert send(opened, case, "bad_image").status_code == 200, "it can be decided all the same"


def test_exports_hold_all_and_nobody_else_may_read_them(opened: Opened, made: Reviewed) -> None:
    send(opened, opened.bench.audit.worklist[0], note="seen")
    table = pq.read_table(io.BytesIO(opened.client.get("/decisions.parquet").content))
    assert table.select(["reader", "note"]).to_pylist() == [{"reader": "Ann", "note": "seen"}]
    for name in ("decisions.csv", "decisions.parquet"):
        opened.client.get(f"/{name}")
        assert (made.folder / name).stat().st_mode & 0o77 == 0


def test_list_has_its_cases_and_filter(opened: Opened) -> None:
    text = opened.client.get("/list/worklist").text
    assert all(f">R{n}<" in text for n in (0, 3, 6, 9))
    assert "1 case<" in opened.client.get("/list/worklist?q=r9").text
    assert opened.client.get("/list/worklist?start=99999999999").status_code == 200
    assert opened.client.get("/list/none").json() == {"error": "There is no such queue."}


def test_eight_bits_are_sent_as_eight(opened: Opened) -> None:
    found = opened.bench.originals.decode(encoded(np.eye(40, dtype=np.uint8) * 9))
    assert found.pixels_HW is not None
    assert found.pixels_HW.dtype == np.uint8
