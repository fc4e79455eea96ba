"""New implants from a few images: what is added, what stays, what is promised, what is refused."""

import copy
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from implant_model.calibration import prediction_sets, softmax
from implant_model.classifier import Classifier
from implant_model.errors import PackageError, UsageError
from implant_model.networks.build import Ensemble
from implant_model.networks.weights import load_networks
from implant_model.novelty import fit_novelty
from implant_model.package.load import ModelPackage, load_package
from jobs import enrol as job
from tests.support.archive_samples import tar_of
from tests.support.package_samples import NAMES, SPECS, sample_weights
from tests.support.pictures import encoded
from tests.support.small_package import save_small_package
from training.enrolment.embedded import Embedded, embed, logs_of
from training.enrolment.enrolled_card import promise_words, summary
from training.enrolment.known_points import draw_known, known_points
from training.enrolment.promises import Judged, fewest, make_promises
from training.enrolment.prototypes import enrol_implants

Row = tuple[str, str, str]
"""Member, label, patient."""


def picture(kind: int, number: int) -> np.ndarray:
    """Stripes of a width of their own for each kind, turned and shifted; 64 x 64."""
    rng = np.random.default_rng([kind, number])
    rows, columns = np.mgrid[:64, :64]
    angle = 0.5 * kind + rng.normal() * 0.05
    wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) / (1.5 + kind) + rng.uniform())
    noise = rng.normal(size=(64, 64)) * 6
    return np.array(np.clip(128 + 90 * wave + noise, 0, 255), np.uint8)


def labelled(folder: Path, rows: Sequence[Row], kinds: dict[str, int]) -> list[str]:
    """Makes an archive of pictures, of each label another kind, and a labels file; the call."""
    folder.mkdir()
    pictures = {
        member: encoded(picture(kinds[label], int(member.rsplit("-", 1)[1].removesuffix(".png"))))
        for member, label, _ in rows
    }
    (folder / "a.tar").write_bytes(tar_of(pictures))
    with (folder / "labels.csv").open("w", newline="") as file:
        table = [("a.tar", *row) for row in rows]
        csv.writer(file).writerows([("archive", "member", "label", "patient"), *table])
    return ["--images", str(folder), "--labels", str(folder / "labels.csv")]


def rows_of(label: str, count: int) -> list[Row]:
    return [(f"{label}-{n}.png", label, f"SECRET-{label}-{n}") for n in range(count)]


KINDS = {"maker-x": 3, "maker-y": 5, "zimmer": 0, "depuy": 1}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelPackage]:
    folder = tmp_path_factory.mktemp("enrol") / "small"
    return folder, save_small_package(folder)


@pytest.fixture(scope="module")
def enrolled(
    small: tuple[Path, ModelPackage], tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    folder = tmp_path_factory.mktemp("enrolled")
    rows = [*rows_of("maker-x", 12), *rows_of("maker-y", 5), *rows_of("zimmer", 10)]
    (folder / "implants.toml").write_text('[implants.maker-x]\njoint = "knee"\nmanufacturer = "X"')
    call = ["--model", str(small[0]), *labelled(folder / "set", rows, KINDS)]
    call += ["--config", str(folder / "implants.toml"), "--output", str(folder / "out")]
    assert job.main(call) == 0
    return load_package(str(folder / "out"))


def test_new_implants_are_behind_the_known_ones(
    small: tuple[Path, ModelPackage], enrolled: ModelPackage
) -> None:
    base = small[1]
    assert enrolled.name == "small-enrolled"
    assert enrolled.catalogue.implants[:4] == base.catalogue.implants
    assert enrolled.catalogue.names[4:] == ("maker-x", "maker-y")
    assert (enrolled.catalogue[4].joint, enrolled.catalogue[4].manufacturer) == ("knee", "X")
    assert enrolled.catalogue[5].joint == "unspecified"
    before, after = base.novelty_reference(), enrolled.novelty_reference()
    np.testing.assert_array_equal(after.centres_CF[:4], before.centres_CF)
    np.testing.assert_array_equal(after.within.axes_KF, before.within.axes_KF)


@pytest.mark.parametrize("by_torch", [True, False])
def test_known_logits_stay_and_new_images_are_named(
    small: tuple[Path, ModelPackage], enrolled: ModelPackage, by_torch: bool
) -> None:
    images = np.stack([picture(kind, 100 + n) for kind in (3, 5, 0) for n in range(4)])
    old = Classifier(small[1], by_torch=by_torch).classify(images).probabilities_NC
    new = Classifier(enrolled, by_torch=by_torch).classify(images).probabilities_NC
    kept = new[:, :4] / new[:, :4].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kept, old, atol=1e-4)
    assert new[:8].argmax(axis=1).tolist() == [4] * 4 + [5] * 4


def test_promises_follow_the_number_of_images(
    small: tuple[Path, ModelPackage], enrolled: ModelPackage
) -> None:
    base = small[1]
    assert (enrolled.quantiles_C[:3] >= base.quantiles_C[:3]).all(), "without images never narrower"
    assert enrolled.novelty.threshold >= base.novelty.threshold
    assert enrolled.manifest.calibration.conformal_quantile == max(enrolled.quantiles_C)
    record = enrolled.provenance["enrolled"]
    assert isinstance(record, dict)
    assert record["base"] == {"id": base.id, "sha256": base.hash}
    shares = {each["name"]: (each["images"], each["quantile_share"]) for each in record["implants"]}
    assert shares == {"maker-x": (12, 0.9), "maker-y": (5, 5 / 6)}
    assert record["known_calibrated"] == ["zimmer"]
    card = " ".join(enrolled.card.split())
    assert "candidates hold it in 0.83, not 0.9 (5 images" in card
    assert "not shown again for 3 of 4 known implants" in card
    assert "does not say what it was trained on" in card
    assert base.card.strip() in enrolled.card
    assert "SECRET" not in enrolled.card + json.dumps(dict(enrolled.provenance))


def test_figures_are_no_measurement_of_the_whole(enrolled: ModelPackage) -> None:
    figures = enrolled.metrics["figures"]
    assert isinstance(figures, dict)
    assert "top_1" not in figures
    assert figures["best candidate right: maker-x"]["count"] == 12
    assert figures["known implants: implant among the candidates"]["count"] == 10


def test_the_same_call_gives_the_same_weights(
    small: tuple[Path, ModelPackage], enrolled: ModelPackage, tmp_path: Path
) -> None:
    rows = [*rows_of("maker-x", 12), *rows_of("maker-y", 5), *rows_of("zimmer", 10)]
    call = ["--model", str(small[0]), *labelled(tmp_path / "set", rows, KINDS)]
    assert job.main([*call, "--output", str(tmp_path / "out"), "--name", "other"]) == 0
    made = load_package(str(tmp_path / "out"))
    assert made.name == "other"
    for name in ("net.safetensors", "novelty.safetensors"):
        assert made.files[name] == enrolled.files[name]


@pytest.fixture(scope="module")
def sample_ensemble() -> Ensemble:
    files = {spec.file: sample_weights(spec, place) for place, spec in enumerate(SPECS)}
    return load_networks(SPECS, len(NAMES), files)


@pytest.fixture
def networks(sample_ensemble: Ensemble) -> Ensemble:
    return copy.deepcopy(sample_ensemble)


@pytest.mark.parametrize("method", ["mahalanobis", "normalised_mahalanobis"])
def test_an_ensemble_gets_rows_in_each_network(networks: Ensemble, method: str) -> None:
    known = np.stack([picture(n % 3, n) for n in range(30)])
    raw = embed(networks, known, np.arange(30))
    features_NF = Embedded(raw, np.arange(30), np.arange(30)).features_NF
    reference = fit_novelty(features_NF, np.arange(30) % 3, 3, method)  # type: ignore[arg-type]
    new = np.stack([picture(6, n) for n in range(8)])
    images = Embedded(embed(networks, new, np.arange(8)), np.full(8, 3), np.arange(8) // 2)
    made = enrol_implants(networks, reference, 1.5, images)
    assert [network.head.out_features for network in networks.members] == [4, 4]
    drawn_PF, labels_P = draw_known(reference, images.features_NF)
    parts = np.split(drawn_PF, [networks.members[0].num_features], axis=1)
    lengths = [np.linalg.norm(raw_NF, axis=1).mean() for raw_NF in images.raw]
    points = [part * length for part, length in zip(parts, lengths, strict=True)]
    final = logs_of(networks, Embedded(points, labels_P, labels_P))
    np.testing.assert_allclose(softmax(final), softmax(made.drawn_logs_PC), atol=1e-4)
    assert (softmax(made.logs_NC)[:, 3] > 0.25).all()
    assert made.reference.score(images.features_NF).max() < made.novelty_N.min() * 10


def test_what_stands_for_known_implants_is_as_hard_as_measured_or_is_their_images(
    networks: Ensemble,
) -> None:
    pictures = np.stack([picture(n % 3, n) for n in range(60)])
    raw, labels_N = embed(networks, pictures, np.arange(60)), np.arange(60) % 3
    known = Embedded(raw, labels_N, np.arange(60))
    reference = fit_novelty(known.features_NF, labels_N, 3)
    for network, raw_NF in zip(networks.members, raw, strict=True):  # nearest mean
        means = np.stack([raw_NF[labels_N == label].mean(axis=0) for label in range(3)])
        ways, sides = means - means.mean(axis=0), np.linalg.norm(raw_NF, axis=1).mean()
        offsets = ways @ means.mean(axis=0) + (ways**2).sum(axis=1) / 2
        scale = 400 / np.linalg.norm(ways, axis=1).mean() / sides
        with torch.no_grad():
            network.head.weight.copy_(torch.from_numpy(scale * ways).float())
            network.head.bias.copy_(torch.from_numpy(-scale * offsets).float())
    images = Embedded([raw_NF[:8] for raw_NF in raw], np.full(8, 3), np.arange(8))

    def share_right(accuracy: float | None) -> float:
        points_PF, labels_P = known_points(networks, reference, images, None, accuracy)
        parts = np.split(points_PF, [networks.members[0].num_features], axis=1)
        lengths = [np.linalg.norm(raw_NF[:8], axis=1).mean() for raw_NF in raw]
        own = [part * length for part, length in zip(parts, lengths, strict=True)]
        logs = logs_of(networks, Embedded(own, labels_P, labels_P))
        return float((logs.argmax(axis=1) == labels_P).mean())

    easy = share_right(None)
    assert easy > 0.5
    assert share_right(easy - 0.1) == pytest.approx(easy - 0.1, abs=0.03)
    assert share_right(1.0) == easy, "points are made harder, never easier"
    chosen = known.at(labels_N == 1)
    points_PF, labels_P = known_points(networks, reference, images, chosen, None)
    assert (labels_P == 1).sum() == 20
    assert {*labels_P.tolist()} == {0, 1, 2}
    found = points_PF[labels_P == 1]
    directions = found / np.linalg.norm(found, axis=1, keepdims=True)
    features = np.concatenate([r / np.linalg.norm(images.raw[at], axis=1).mean()
                               for at, r in enumerate(chosen.raw)], axis=1)  # fmt: skip
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(directions, features, atol=1e-9)


def test_a_group_does_not_judge_itself(networks: Ensemble) -> None:
    """Two groups of unlike pictures: what one is judged by comes from the other alone."""
    known = np.stack([picture(n % 3, n) for n in range(30)])
    features_NF = Embedded(embed(networks, known, np.arange(30)), np.arange(30), np.arange(30))
    reference = fit_novelty(features_NF.features_NF, np.arange(30) % 3, 3)
    new = np.stack([picture(6 if n < 4 else 9, n) for n in range(8)])
    raw = embed(networks, new, np.arange(8))
    novelty = []
    for groups_N in (np.arange(8), np.arange(8) // 4):
        images = Embedded(raw, np.full(8, 3), groups_N)
        made = enrol_implants(copy.deepcopy(networks), reference, 1.0, images)
        novelty.append(made.novelty_N.mean())
    assert novelty[1] > novelty[0]


def judged(count: int, label: int, right: float) -> Judged:
    """Images whose own implant gets this much of the probability of five."""
    logs_NC = np.log(np.full((count, 5), (1 - right) / 4))
    logs_NC[:, label] = np.log(right)
    return Judged(logs_NC, np.full(count, label), np.arange(count), np.linspace(1, 2, count))


def test_quantiles_take_patients_enough(small: tuple[Path, ModelPackage]) -> None:
    base, drawn = small[1], np.log(np.full((40, 5), 0.2))
    made = make_promises(base, judged(5, 4, 0.3), judged(8, 2, 0.9), drawn)
    assert fewest(base.coverage) == 9
    assert made.implants[4].quantile == pytest.approx(0.7)
    assert made.implants[4].share == pytest.approx(5 / 6)
    widened = 1 - (1 - base.conformal_quantile) * 0.8
    assert [each.quantile for each in made.implants[:4]] == pytest.approx([widened] * 4)
    assert made.threshold == base.novelty.threshold
    made = make_promises(base, judged(9, 4, 0.3), judged(9, 2, 0.9), drawn)
    assert made.implants[4].share == made.implants[2].share == base.coverage
    assert made.implants[2].quantile == 0.5
    assert made.implants[1].share is None
    one_patient = Judged(*(vars(judged(9, 4, 0.3)) | {"groups_N": np.zeros(9)}).values())
    made = make_promises(base, one_patient, judged(9, 2, 0.9), drawn)
    assert made.implants[4].share == 0.5, "nine images of one patient are one"
    words = promise_words(made.implants[4], base.coverage)
    assert words.startswith("candidates hold it in 0.50, not 0.9")
    assert "3 of 4 known implants" in next(iter(summary(base, made, 0)))


def test_an_image_that_the_old_package_held_is_held_still(
    small: tuple[Path, ModelPackage],
) -> None:
    """As long as the new implants get no more than was drawn, sets of known ones only grow."""
    base = small[1]
    rng = np.random.default_rng(0)
    old = softmax(rng.normal(size=(200, 4)) * 2)
    share = rng.uniform(0, 0.2, (200, 1))
    after = np.concatenate((old * (1 - share), share), axis=1)
    drawn = np.log(np.full((40, 5), 0.2))
    made = make_promises(base, judged(5, 4, 0.3), judged(0, 2, 0.9), drawn)
    quantiles = np.array([each.quantile for each in made.implants])
    pairs = zip(
        prediction_sets(old, base.quantiles_C), prediction_sets(after, quantiles), strict=True
    )
    assert all({*before} <= {*now} for before, now in pairs)


def refused(tmp_path: Path, package: Path, rows: Sequence[Row], match: str, *more: str) -> None:
    labels = {label: n for n, label in enumerate(sorted({label for _, label, _ in rows}))}
    call = labelled(tmp_path / "set", rows, labels)
    with pytest.raises(UsageError, match=match):
        job.main(["--model", str(package), *call, "--output", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out").exists()


def test_too_few_images_are_refused(small: tuple[Path, ModelPackage], tmp_path: Path) -> None:
    refused(tmp_path, small[0], rows_of("x", 4), "Of 'x' there are 4 different readable")


def test_one_patient_is_too_few(small: tuple[Path, ModelPackage], tmp_path: Path) -> None:
    rows = [(member, label, "P") for member, label, _ in rows_of("x", 6)]
    refused(tmp_path, small[0], rows, "of 1 patients or more; 5 of at least 2 patients")


def test_no_new_label_is_refused(small: tuple[Path, ModelPackage], tmp_path: Path) -> None:
    refused(tmp_path, small[0], rows_of("Zimmer", 6), "No label is new to small@")


def test_other_settings_are_refused(small: tuple[Path, ModelPackage], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[fit]\nepochs = 3")
    more = "--config", str(tmp_path / "c.toml")
    refused(tmp_path, small[0], rows_of("x", 6), "holds other settings than tables", *more)


def test_a_described_implant_without_images_is_refused(
    small: tuple[Path, ModelPackage], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text('[implants.y]\njoint = "hip"\nmanufacturer = "Y"')
    more = "--config", str(tmp_path / "c.toml")
    refused(tmp_path, small[0], rows_of("x", 6), "describe the implant 'y'", *more)


def test_two_labels_of_one_picture_are_refused(
    small: tuple[Path, ModelPackage], tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    call = labelled(folder, rows_of("maker-x", 6), KINDS)
    data = {f"maker-x-{n}.png": encoded(picture(3, n)) for n in range(6)}
    same = {f"again-{n}.png": data[f"maker-x-{n}.png"] for n in range(6)}
    (folder / "a.tar").write_bytes(tar_of({**data, **same}))
    for other in ("maker-z", "zimmer"):
        with (folder / "labels.csv").open("a", newline="") as file:
            csv.writer(file).writerows([("a.tar", name, other, "") for name in same])
        with pytest.raises(UsageError, match="A picture has the labels 'maker-x' and"):
            job.main(["--model", str(small[0]), *call, "--output", str(tmp_path / "out")])
        text = (folder / "labels.csv").read_text()
        (folder / "labels.csv").write_text(
            "".join(line for line in text.splitlines(keepends=True) if other not in line)
        )


def test_what_is_there_is_kept_and_no_package_is_a_sentence(
    small: tuple[Path, ModelPackage], tmp_path: Path
) -> None:
    call = labelled(tmp_path / "set", rows_of("maker-x", 5), KINDS)
    with pytest.raises(UsageError, match="is there already"):
        job.main(["--model", str(small[0]), *call, "--output", str(tmp_path / "set")])
    with pytest.raises(PackageError, match="no package.json"):
        job.main(["--model", str(tmp_path / "set"), *call, "--output", str(tmp_path / "out")])
    with pytest.raises(UsageError, match="The name '-' is not accepted"):
        job.main(
            ["--model", str(small[0]), *call, "--output", str(tmp_path / "out"), "--name", "-"]
        )


def test_embedding_nothing_gives_no_row(networks: Ensemble) -> None:
    nothing = embed(networks, np.zeros((3, 64, 64), np.uint8), np.zeros(0, np.int64))
    assert [each.shape for each in nothing] == [(0, net.num_features) for net in networks.members]
