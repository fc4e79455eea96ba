"""A package measured on labelled archives: figures, page, mistakes as sentences."""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from implant_model.classifier import Classifier
from implant_model.decode.preprocess import preprocess
from implant_model.errors import Outcome, PackageError, UsageError
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.files import write_png
from implant_model.phantoms.render import render
from implant_model.predictions import Predictions
from jobs import evaluate as job
from jobs.entry.command import DISCLAIMER
from jobs.evaluating.assessment import (
    Examined,
    assess,
    assess_classes,
    assess_robustness,
    reliability,
    worst_mistakes,
)
from jobs.evaluating.examination import duplicate_bits
from jobs.evaluating.paired import mcnemar_exact
from tests.report.test_report import HOSTILE, Elements
from tests.support.archive_samples import tar_of
from tests.support.browser import lay_out
from tests.support.object_store import ObjectStore
from tests.support.paths import ROOT
from tests.support.small_package import save_small_package
from training.data.labelled import content_digest
from training.data.trained_on import KEY, pack_digests
from training.metrics import share, wilson
from training.settings import SplitSettings

LABELS = ("Cofield", "DEPUY", "tornier", "zimmer", "cofield", "depuy")
"""Registries' spellings of the small package's implants; two images of each patient."""
OTHER = f"stem {HOSTILE}"


def pixels(seed: int) -> Any:
    return render(ORTHONET[seed % 12], np.random.default_rng(seed), 96)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve phantoms of known labels, two of another, one broken, one unlabelled, one absent."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = [("set.tar", f"DOE^{n}.png", LABELS[n // 2], f"MRN-{n // 2}") for n in range(12)]
    rows += [("set.tar", f"DOE^{n}.png", OTHER, "") for n in (12, 13)]
    rows += [("set.tar", "broken.png", "zimmer", ""), ("set.tar", "gone.png", "zimmer", "MRN-0")]
    names = [row[1] for row in rows[:14]] + ["broken.png", "extra.png"]
    members = {name: write_png(pixels(int(re.sub(r"\D", "", name) or 99))) for name in names}
    members["broken.png"] = members["broken.png"][:500]
    (folder / "set.tar").write_bytes(tar_of(members))
    write_table(folder / "labels.csv", rows)
    return folder


def write_table(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("archive", "member", "label", "patient"), *rows])


def call(archives: Path, package: Path, report: Path, *more: str) -> list[str]:
    labels = ["--labels", str(archives / "labels.csv")]
    base = ["--model", str(package), "--images", str(archives), "--report", str(report)]
    return [*base, *labels, *more]


@pytest.fixture(scope="module")
def report(archives: Path, small_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    reader = folder.parent / "reader.csv"
    with (archives / "labels.csv").open(newline="") as file:
        rows = [(r["archive"], r["member"], r["label"], "") for r in csv.DictReader(file)]
    write_table(reader, rows[:8])
    more = ["--against", str(reader), "--pictures", "--cache", str(folder.parent / "cache")]
    code = job.main(call(archives, small_package, folder, *more))
    assert code == 3, "labelled images could not be read"
    assert document(folder)["data"]["trained_on"] is None  # the package keeps no record
    return folder


def document(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report / "evaluation.json").read_text())
    return found


@pytest.fixture(scope="module")
def right(small_package: Path) -> list[bool]:
    """Whether each phantom's best candidate is its label, by the classifier itself."""
    package = load_package(str(small_package))
    images = []
    for number in range(12):
        grey_HW = pixels(number).pixels_HW
        images.append(preprocess((grey_HW << 4) | (grey_HW >> 8), package.preprocessing))
    best_N = Classifier(package).classify(np.stack(images)).probabilities_NC.argmax(axis=1)
    names = [package.catalogue.names[index] for index in best_N]
    return [name == label.lower() for name, label in zip(names, np.repeat(LABELS, 2), strict=True)]


def test_figures_are_those_of_the_classifier(report: Path, right: list[bool]) -> None:
    found = document(report)
    top_1 = found["figures"]["top_1"]
    assert top_1["value"] == pytest.approx(np.mean(right), abs=1e-6)
    assert top_1["count"] == 12
    assert top_1["low"] <= top_1["value"] <= top_1["high"]
    assert found["data"]["num_images"] == 14
    assert found["data"]["num_patients_known"] == 12
    # Untrained: no implant is likely enough to be a candidate, so that every image is unknown.
    assert found["figures"]["unknown_found"] == {"value": 1, "low": 0.34238, "high": 1, "count": 2}
    assert found["figures"]["novelty_auroc"]["count"] == 14
    assert [item["sensitivity"]["count"] for item in found["classes"]] == [4, 4, 2, 2]
    assert sum(map(sum, found["confusion"]["counts"])) == 14
    assert sum(item["right"]["count"] for item in found["reliability"]) == 12
    scans = found["robustness"]
    assert scans[0]["top_1"]["value"] == top_1["value"]
    assert len(scans) == 15
    assert {scan["top_1"]["count"] for scan in scans} == {12}
    assert scans[0]["coverage"]["value"] == found["figures"]["coverage"]["value"] == 0
    assert {scan["called_unknown"]["value"] for scan in scans} == {1}
    assert {scan["right_if_answered"]["value"] for scan in scans} == {None}
    assert found["notice"] == DISCLAIMER


def test_prepared_images_are_kept_where_that_is_asked_for(report: Path) -> None:
    """All 14 of them, in shards that another evaluation or a training takes."""
    indices = [pq.read_table(file) for file in (report.parent / "cache").glob("*.parquet")]
    assert sum(len(index["shard"].drop_null()) for index in indices) == 14
    assert len([*(report.parent / "cache").glob("*.arrow")]) == len(indices)


def test_a_reader_who_is_always_right_is_compared(report: Path, right: list[bool]) -> None:
    against = document(report)["against"]
    wrong = 8 - sum(right[:8])
    assert against["images"] == 8
    assert against["name"] == "reader.csv"
    assert (against["only_this_right"], against["only_other_right"]) == (0, wrong)
    assert against["mcnemar_exact_p"] == pytest.approx(min(1.0, 2 * 0.5**wrong))
    assert against["difference"]["value"] == pytest.approx(-wrong / 8, abs=1e-6)


def test_nothing_is_dropped_silently(report: Path) -> None:
    data = document(report)["data"]
    assert data["labels_outside_the_catalogue"] == {OTHER: 2}
    assert data["excluded"] == {"truncated": 1, "no_label": 1, "not_in_archive": 1}
    assert data["missing"] == 2
    with (report / "excluded.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {(row["member"], row["reason"]) for row in csv.DictReader(file)}
    assert rows == {
        ("broken.png", "truncated"),
        ("extra.png", "no_label"),
        ("gone.png", "not_in_archive"),
    }
    page = (report / "evaluation.html").read_text()
    for word in ("truncated", "no_label", "not_in_archive"):
        assert word in page


def test_no_identifier_is_in_page_or_document(report: Path) -> None:
    for name in ("evaluation.html", "evaluation.json"):
        text = (report / name).read_text()
        text = re.sub("base64,[A-Za-z0-9+/=]+", "", text)  # a picture's letters may spell any name
        assert "MRN-" not in text
        assert "DOE" not in text


def test_the_page_holds_data_as_text_and_loads_nothing(report: Path) -> None:
    page = (report / "evaluation.html").read_text()
    elements = Elements(page)
    assert {"script", "iframe", "link", "object", "form"}.isdisjoint(t for t, _ in elements.tags)
    assert "alert('x')" in "".join(elements.texts), "the hostile label is text"
    for name in ("src", "href", "xlink:href", "action"):
        for value in elements.attributes(name):
            assert value.startswith(("#", "data:image/png;base64,")), value
    policy = next(a["content"] for t, a in elements.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not any(name.startswith("on") for _, a in elements.tags for name in a)
    assert page.count(DISCLAIMER) == 2


def test_every_figure_of_the_page_has_its_interval_and_its_data(report: Path) -> None:
    page = (report / "evaluation.html").read_text()
    sections = re.findall(r'<section id="([a-z-]+)".*?</section>', page, re.DOTALL)
    assert len(sections) == len(set(sections)) == 10
    for name in ("accuracy", "classes", "calibration", "novelty", "robustness", "against"):
        section = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
        assert section is not None
        shown = section.group()
        assert re.search(r"\d to .*\d", shown), name
        assert Path(document(report)["data"]["images"][0]).name in shown, name


def test_pictures_only_where_they_are_asked_for(
    archives: Path, small_package: Path, report: Path, tmp_path: Path
) -> None:
    with_pictures = (report / "evaluation.html").read_text()
    assert with_pictures.count("<img ") == len(document(report)["worst_mistakes"])
    assert "img-src data:" in with_pictures
    more = ("--robustness", "0", "--data", "Test phantoms")
    assert job.main(call(archives, small_package, tmp_path, *more)) == 3
    page = (tmp_path / "evaluation.html").read_text()
    assert "<img" not in page
    assert "img-src" not in page
    assert "Evaluation on Test phantoms" in page
    assert document(tmp_path)["robustness"] == []
    assert document(tmp_path)["figures"] == document(report)["figures"], "the same twice"


def test_against_another_package(
    archives: Path, small_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    other = save_small_package(folder, "other", seed=1)
    quick = ("--against", str(folder), "--robustness", "0")
    job.main(call(archives, small_package, tmp_path / "out", *quick))
    against = document(tmp_path / "out")["against"]
    counts = [against[f"{who}_right"] for who in ("both", "only_this", "only_other", "neither")]
    assert against["name"] == other.id
    assert sum(counts) == against["images"] == 12, "images of the catalogue's implants"
    assert against["mcnemar_exact_p"] == mcnemar_exact(counts[1], counts[2])
    assert against["difference"]["value"] == pytest.approx((counts[1] - counts[2]) / 12, abs=1e-6)
    assert f"against {other.id}: McNemar's exact p" in capsys.readouterr().out


def test_folders_are_labels_and_all_may_be_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No image of the catalogue: novelty is measured, the rest is null and the page is there.

    The package was trained on two of the images, by its record.
    """
    (tmp_path / "in" / "hips").mkdir(parents=True)
    files = [write_png(pixels(number)) for number in range(3)]
    for number, data in enumerate(files):
        (tmp_path / "in" / "hips" / f"{number}.png").write_bytes(data)
    learned = [content_digest(data) for data in (files[0], files[2], b"another")]
    save_small_package(tmp_path / "model", record={KEY: pack_digests(learned)})
    base = ["--model", str(tmp_path / "model"), "--images", str(tmp_path / "in"), "--report"]
    assert job.main([*base, str(tmp_path / "out")]) == 0
    found = document(tmp_path / "out")
    assert found["figures"]["top_1"]["value"] is None
    assert found["figures"]["unknown_found"]["count"] == 3
    assert found["data"]["trained_on"] == 2
    assert "WARNING: the package was trained on 2 of these 3 images" in capsys.readouterr().out
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "The model was trained on 2 of them: the figures are too good." in page
    Elements(page)


def test_mistakes_are_sentences(archives: Path, small_package: Path, tmp_path: Path) -> None:
    def fails(match: str, **changes: str) -> None:
        options = {
            "--model": str(small_package),
            "--images": str(archives),
            "--labels": str(archives / "labels.csv"),
            "--report": str(tmp_path / "out"),
        }
        pairs = {**options, **{f"--{name}": value for name, value in changes.items()}}
        with pytest.raises(UsageError, match=match):
            job.main([word for pair in pairs.items() for word in pair])

    fails("a folder of this machine is expected", report="s3://bucket/report")
    fails("cannot be written", report=str(archives / "labels.csv"))
    fails("--labels cannot be read", labels=str(tmp_path / "none.csv"))
    fails("--against cannot be read", against=str(tmp_path / "none.csv"))
    fails("There is nothing at --images", images=str(tmp_path / "none"))
    fails("0 or more images", robustness="-1")
    fails("'cud' \\(choose from", device="cud")
    with pytest.raises(PackageError, match="package.json"):
        job.main(call(archives, tmp_path, tmp_path / "out"))
    write_table(tmp_path / "reader.csv", [("other.tar", "a", "zimmer", "")])
    fails(
        "The archive or file of the labels file's row 1 is not among",
        against=str(tmp_path / "reader.csv"),
    )
    write_table(tmp_path / "reader.csv", [("set.tar", "nothing.png", "zimmer", "")])
    fails("no image that both this model and reader.csv", against=str(tmp_path / "reader.csv"))
    write_table(tmp_path / "only.csv", [("set.tar", "broken.png", "zimmer", "")])
    fails(
        "No labelled image could be read .*1 truncated",
        labels=str(tmp_path / "only.csv"),
    )
    assert not list(tmp_path.glob("out/*"))


def test_a_share_of_independent_images_is_wilsons() -> None:
    hits_N = np.array([True] * 7 + [False] * 3)
    assert share(hits_N, np.arange(10)) == wilson(7, 10)
    assert np.isnan(share(hits_N[:0], np.arange(0)).value)


def test_images_that_agree_count_as_one() -> None:
    """Four copies of each of ten patients tell little more than ten patients."""
    hits_N = np.array([True] * 7 + [False] * 3).repeat(4)
    groups_N = np.arange(10).repeat(4)
    copied, alone = share(hits_N, groups_N), wilson(7, 10)
    assert copied.count == 40
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.06)
    assert share(np.ones(40, bool), groups_N).low == pytest.approx(wilson(10, 10).low)


def examined(probabilities: Mapping[int, list[float]], labels: list[int], novel: int) -> Examined:
    probabilities_NK = np.array(list(probabilities.values()), np.float32)
    outcomes = [Outcome.UNKNOWN if n == novel else Outcome.IDENTIFIED for n in range(len(labels))]
    novelty_N = np.arange(len(labels), dtype=np.float32)
    best = [[int(row.argmax())] for row in probabilities_NK]
    said = Predictions(probabilities_NK, novelty_N, best, outcomes)
    return Examined(("a", "b", "c"), np.array(labels), said, np.arange(len(labels)))


def test_figures_by_hand() -> None:
    """Right, wrong but second, an unknown one that is found, one that is not."""
    found = examined(
        {0: [0.8, 0.1, 0.1], 1: [0.7, 0.2, 0.1], 2: [0.5, 0.3, 0.2], 3: [0.1, 0.9, 0.0]},
        [0, 1, -1, -1],
        novel=2,
    )
    figures = assess(found)
    assert figures["top_1"] == wilson(1, 2)
    assert figures["top_3"] == wilson(2, 2)
    assert figures["coverage"] == wilson(1, 2)
    assert figures["called_unknown"] == wilson(0, 2)
    assert figures["unknown_found"] == wilson(1, 2)
    assert figures["right_if_identified"] == wilson(1, 2)
    assert figures["novelty_auroc"].value == 1
    assert worst_mistakes(found, 10) == [3, 1]
    assert worst_mistakes(found, 1) == [3]
    assert [item.sensitivity.count for item in assess_classes(found)] == [1, 1, 0]
    assert [item.confidence for item in reliability(found)] == pytest.approx([0.7, 0.8])


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_in_chromium(report: Path, tmp_path: Path, width: int) -> None:
    page = (report / "evaluation.html").read_text(encoding="utf-8")
    layout = lay_out(page, width, tmp_path)
    assert layout.given == width
    assert layout.needed <= width
    assert layout.rules > 80, "the policy lets the page's own style in"
    assert layout.scripts == 0


def test_model_images_and_labels_from_a_bucket_give_the_same_figures(
    archives: Path,
    small_package: Path,
    report: Path,
    bucket: str,
    object_store: ObjectStore,
    tmp_path: Path,
) -> None:
    for prefix, folder in (("labelled", archives), ("model", small_package)):
        for file in sorted(folder.iterdir()):
            body, key = file.read_bytes(), f"{prefix}/{file.name}"
            object_store.client().put_object(Bucket=bucket, Key=key, Body=body)
    base = f"s3://{bucket}"
    words = ["--model", f"{base}/model", "--images", f"{base}/labelled"]
    words += ["--labels", f"{base}/labelled/labels.csv", "--report", str(tmp_path / "report")]
    assert job.main(words) == 3
    found, local = document(tmp_path / "report"), document(report)
    assert found["figures"] == local["figures"]
    assert found["confusion"] == local["confusion"]


def test_of_poor_scans_it_is_counted_what_is_answered_and_what_candidates_hold() -> None:
    said = Predictions(
        np.array([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]], np.float32),
        np.zeros(4, np.float32),
        [[0], [0, 1], [0], []],
        [Outcome.IDENTIFIED, Outcome.AMBIGUOUS, Outcome.UNKNOWN, Outcome.UNKNOWN],
    )
    images_NHW = np.zeros((4, 16, 16), np.uint8)
    labels_N, groups_N = np.array([0, 1, 0, 0]), np.arange(4)
    scans = list(assess_robustness(images_NHW, labels_N, groups_N, lambda _: said))
    assert len(scans) == 15
    for scan in scans:
        assert scan.top_1 == wilson(3, 4)
        assert scan.called_unknown == wilson(2, 4)
        assert scan.right_if_answered == wilson(1, 2)
        assert scan.coverage == wilson(3, 4)


def test_near_duplicates_are_those_of_the_packages_training(small_package: Path) -> None:
    assert duplicate_bits(load_package(str(small_package))) == SplitSettings().duplicate_bits
    shipped = load_package(str(ROOT / "models" / "phantom"), weights=False)
    assert duplicate_bits(shipped) == 8
