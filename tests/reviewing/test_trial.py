"""A radiograph dropped on the page: the job's answer, and nothing that stays."""

import contextlib
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from implant_model.decode.prepare import decode
from implant_model.errors import UsageError
from implant_model.identification import identify
from implant_model.limits import Limits
from implant_model.package.load import load_package
from jobs import review
from jobs.pages.wording import novelty_sentence
from jobs.reviewing.guard import CSRF_HEADER, Guard
from jobs.reviewing.heat import Heat
from jobs.reviewing.originals import Originals
from jobs.reviewing.trial import Trial
from tests.reviewing.conftest import ADDRESS
from tests.support.archive_samples import tar_of
from tests.support.workbench.review_samples import png, radiograph


@pytest.fixture(scope="module")
def client(small_package: Path) -> Iterator[TestClient]:
    package = load_package(str(small_package), weights=False)
    with contextlib.ExitStack() as stack:
        originals = stack.enter_context(Originals(package.preprocessing))
        guard = Guard()
        trial = Trial(str(small_package), package, originals, guard, Heat(package))
        client = TestClient(trial.application(), base_url=ADDRESS)
        client.get(f"/?token={guard.token}")
        client.headers[CSRF_HEADER] = guard.csrf
        yield client


def test_answer_is_that_of_the_job(client: TestClient, small_package: Path) -> None:
    data = radiograph(1, dicom=True)
    answer = identify(data, str(small_package))
    text = client.post("/identify", content=data).text
    assert str(answer.outcome).capitalize() in text
    for _, share in answer.top:
        assert f"{100 * share:.1f}" in text
    assert answer.novelty is not None
    scale = load_package(str(small_package)).novelty
    said = novelty_sentence(answer.novelty, scale.threshold, scale.known_pass_rate)
    assert html.escape(said, quote=True).replace("&#x27;", "&#39;") in text
    assert answer.header.patient
    assert answer.header.patient not in text
    samples = client.post("/samples", content=data)
    same = decode(data, Limits()).pixels_HW
    assert same is not None
    assert samples.content == same.astype("<u2").tobytes()
    assert png(client.post("/saliency", content=data).content).size == (644, 320)


def test_rejection_has_its_reason(client: TestClient) -> None:
    cut = radiograph(0)[:900]
    text = client.post("/identify", content=cut).text
    assert "It ends too early." in text
    assert "truncated" in text
    assert "(truncated)" in client.post("/samples", content=cut).json()["trouble"]
    assert client.post("/saliency", content=cut).status_code == 409
    assert "neither DICOM nor PNG nor JPEG" in client.post("/identify", content=b"text" * 99).text
    several = tar_of({"a": radiograph(0), "b": radiograph(1)})
    assert "archive of several members" in client.post("/identify", content=several).json()["error"]
    assert client.post("/identify", content=b"").json() == {"error": "The file is empty."}
    assert client.post("/samples", content=b"7z\xbc\xaf\x27\x1c" + bytes(99)).status_code == 409


def test_nothing_is_written(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    large = io.BytesIO()
    np.save(large, np.zeros(3_000_000, np.uint8))
    for data in (radiograph(0), radiograph(1, dicom=True), large.getvalue()):
        client.post("/identify", content=data)
        client.post("/samples", content=data)
    assert list(tmp_path.iterdir()) == []


def test_other_pages_get_no_answer(client: TestClient) -> None:
    stranger = TestClient(client.app, base_url=ADDRESS)
    assert stranger.post("/identify", content=radiograph(0)).status_code == 403
    headers = {"origin": "http://evil.example"}
    assert client.post("/identify", content=radiograph(0), headers=headers).status_code == 403


@pytest.mark.parametrize(
    "words",
    [[], ["--port", "80"], ["--model", "m", "--merge", "x"], ["--model", "m", "--labels", "x"]],
)
def test_call_without_audit_and_model_is_a_sentence(words: list[str]) -> None:
    with pytest.raises(UsageError, match="Name an --audit, or a --model alone"):
        review.main(words)
    with pytest.raises(UsageError, match="--port is 70000"):
        review.main(["--audit", "x", "--port", "70000"])


def test_several_are_answered_together(client: TestClient) -> None:
    pages = [client.post("/identify", content=radiograph(n)).text for n in (0, 1)]
    kept = [re.search(r'data-answer="([^"]*)"', page) for page in pages]
    said = [json.loads(html.unescape(match[1])) for match in kept if match]
    text = client.post("/joint", json=said).text
    assert "Together, as one joint" in text
    assert "of 2 radiographs speak for an implant" in text
    wrong = client.post("/joint", json=[{"top": "<script>"}])
    assert wrong.json() == {"error": "An answer of the joint is none."}
    assert client.post("/joint", content=b"{").json() == {"error": "The request is no JSON."}
    assert "MiB" in client.post("/joint", content=bytes(70_000)).json()["error"]
