"""The nearest references: of the right implant, the nearest first, and never in a blind reading."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from implant_model.identification import identify
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import FILE, load_references
from jobs import gallery
from jobs.reviewing.endpoints import candidates_of
from jobs.reviewing.heat import Heat
from jobs.reviewing.neighbours import SHOWN, Neighbours
from tests.reviewing.conftest import Opened
from tests.reviewing.test_exemplars import STATED, labelled
from tests.support.small_package import save_small_package
from tests.support.workbench.review_samples import NAMES, make_reviewed, png, radiograph


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    folder = tmp_path_factory.mktemp("gallery")
    save_small_package(folder / "package")
    call = ["--model", str(folder / "package"), *labelled(folder / "set"), *STATED]
    assert gallery.main(call) == 0
    return load_package(str(folder / "package"))


def neighbours(package: ModelPackage) -> Neighbours:
    references = load_references(package)
    assert references is not None
    return Neighbours(package, references, Heat(package))


def test_nearest_is_the_radiograph_itself(package: ModelPackage) -> None:
    found = neighbours(package)
    for number in range(8):
        seen = identify(radiograph(number, 64, dicom=True), package.uri).image_HW
        assert seen is not None
        near = found.near(seen, NAMES)
        own = near[NAMES[number % 4]]
        assert own[0].share == pytest.approx(0, abs=0.05), "but for roundings"
        picture = np.asarray(png(found.picture(own[0].place)))
        np.testing.assert_array_equal(picture, seen)
        assert len(own) == SHOWN
        for name, listed in near.items():
            distances = [item.distance for item in listed]
            assert distances == sorted(distances)
            labels = {int(found.references.label_R[item.place]) for item in listed}
            assert labels == {package.catalogue.index(name)}


def test_distances_are_those_of_novelty_and_have_a_scale(package: ModelPackage) -> None:
    found = neighbours(package)
    placed_RF = package.novelty_reference().place(found.references.features_RF)
    nearest = []
    for at, label in enumerate(found.references.label_R):
        others = np.flatnonzero(found.references.label_R == label)
        gaps = [np.linalg.norm(placed_RF[at] - placed_RF[o]) for o in others if o != at]
        nearest.append(min(gaps))
    assert found.usual == pytest.approx(float(np.median(nearest)))
    seen = identify(radiograph(5, 64, dicom=True), package.uri).image_HW
    assert seen is not None
    item = found.near(seen, NAMES[:1])[NAMES[0]][1]
    assert found.usual is not None
    assert item.share == pytest.approx(item.distance / found.usual)


def test_the_case_page_shows_them_where_it_is_not_blind(
    open_bench: Callable[..., Opened], tmp_path: Path
) -> None:
    made = make_reviewed(tmp_path / "own", 12, 64, more=("--sample", "12"))
    before = open_bench(made, tmp_path / "before")
    case = before.bench.audit.worklist[0]
    assert "References" not in before.client.get(f"/case/worklist/{case}").text
    assert before.client.get(f"/near/worklist/{case}/0").status_code == 400
    assert before.client.get("/reference/0").json() == {"error": "The package has no references."}
    call = ["--model", str(made.package), *labelled(tmp_path / "set"), *STATED]
    assert gallery.main(call) == 0
    opened = open_bench(made, tmp_path / "table")
    assert 'data-do="near"' in opened.client.get(f"/case/worklist/{case}").text
    text = opened.client.get(f"/near/worklist/{case}/0").text
    seen = opened.bench.audit.cases[case].seen
    assert seen is not None
    assert text.index(opened.bench.audit.titles[seen]) < text.index("/reference/")
    assert "times the usual distance" in text
    assert "Phantoms of a test" in text
    places = re.findall(r"/reference/(\d+)", text)
    assert len(places) >= SHOWN
    answer = opened.client.get(f"/reference/{places[0]}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(b"\x89PNG")
    assert opened.client.get("/reference/999").json() == {"error": "There is no such reference."}
    blind = opened.bench.audit.sample[0]
    assert 'data-do="near"' not in opened.client.get(f"/case/sample/{blind}").text
    refused = opened.client.get(f"/near/sample/{blind}/0").json()
    assert refused == {"error": "The sample is read without what the model says."}


def test_the_claim_is_compared_too_and_nothing_unknown() -> None:
    row = {"top": [{"implant": "a"}, {"implant": "b"}], "candidates": ["b", "c"]}
    known = dict.fromkeys("abcd", "")
    assert candidates_of(row, "d", known) == ["a", "b", "c", "d"]
    assert candidates_of(row, "made up", known) == ["a", "b", "c"]
    assert candidates_of({"top": None, "candidates": None}, None, known) == []


def test_references_are_beside_the_package(package: ModelPackage) -> None:
    assert (Path(package.uri.removeprefix("file://")) / FILE).stat().st_mode & 0o444 == 0o444
