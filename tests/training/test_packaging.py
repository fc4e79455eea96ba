"""A package and its card from fitted weights: figures, controls, cues, what was left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from implant_model.decode.preprocess import Preprocessing
from implant_model.networks.build import build
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import weights_bytes
from implant_model.novelty import fit_novelty
from implant_model.package.load import load_package
from training import calibrate, packaging
from training.calibrate import Outputs, hold_out_folds, reference_part, scored_part
from training.config import TrainConfig, from_document
from training.data.divide import Division, divide
from training.data.labelled import Excluded, LabelledSet
from training.fit.fitting import Fitted, Workplace, class_counts, first_weights, fit_split
from training.fit.workers import Workers
from training.masks.mask_set import BY_HAND, GOOD, MaskSet
from training.metrics import wilson
from training.packaging import Training, figures_of, make_package, measured_parts, size_control
from training.settings import CardSettings, SplitSettings

SPEC = NetworkSpec("classifier.safetensors", "classifier", "shufflenet_v2_x0_5")


@pytest.fixture(scope="module")
def labelled() -> LabelledSet:
    """90 noise pictures of two classes; every ninth is stored in another size."""
    rng = np.random.default_rng(0)
    sizes_N2 = np.full((90, 2), 250)
    sizes_N2[::9] = 400
    return LabelledSet(
        rng.integers(0, 255, (90, 32, 32), dtype=np.uint8),
        np.arange(90) % 2,
        np.arange(90) // 4 * np.where(np.arange(90) % 10 == 0, 0, 1) - (np.arange(90) % 10 == 0),
        sizes_N2,
        tuple(("a.tar", f"{number}.png") for number in range(90)),
        ("cup", "stem"),
        (Excluded("a.tar", "x|y.png", "truncated"), Excluded("a.tar", "z.png", "no_label")),
        "f" * 64,
    )


def fitted(
    labelled: LabelledSet, config: TrainConfig, folder: Path
) -> tuple[Division, Fitted, list[Fitted], Workplace]:
    """Takes untrained weights through everything that follows a training."""
    place = Workplace(folder, str(folder / "checkpoints"), Workers(1, 1), use_gpu=False)
    division = divide(labelled, config.split)
    weights = weights_bytes(build(SPEC, 2).eval())
    names = ["shipped", *[f"fold-{number}" for number in range(len(division.folds))]]
    for name in names:
        place.weights_file(name, SPEC).write_bytes(weights)
    shipped, *folds = (
        fit_split(labelled, division.groups_N, split, config, name, place)
        for split, name in zip((division.shipped, *division.folds), names, strict=True)
    )
    return division, shipped, folds, place


def packaged(labelled: LabelledSet, folder: Path) -> Division:
    """Makes `folder/model` of a set; returns the division that it was fitted by."""
    config = config_of(0, False)
    division, shipped, folds, place = fitted(labelled, config, folder)
    make_package(
        folder / "model",
        Training(
            config, Preprocessing(size_px=32), labelled, division, shipped, folds, place, ["python"]
        ),
    )
    return division


def config_of(folds: int, synthetic: bool) -> TrainConfig:
    plain = from_document(
        {"network": {"architecture": SPEC.architecture}, "implants": {"stem": {"joint": "hip"}}},
        "a test",
    )
    card = CardSettings("Noise of a test.", "Public domain.", synthetic, "Of no use.")
    return replace(plain, split=SplitSettings(folds=folds), card=card)


@pytest.mark.parametrize(("folds", "synthetic"), [(0, True), (3, False)])
def test_a_package_with_all_that_its_card_must_say(
    labelled: LabelledSet, tmp_path: Path, folds: int, synthetic: bool
) -> None:
    config = config_of(folds, synthetic)
    division, shipped, fold_parts, place = fitted(labelled, config, tmp_path)
    made, figures = make_package(
        tmp_path / "model",
        Training(
            config,
            Preprocessing(size_px=32),
            labelled,
            division,
            shipped,
            fold_parts,
            place,
            ["python", "-m", "jobs.train", "--labels", "my file.csv"],
        ),
    )
    package = load_package(str(tmp_path / "model"))
    assert package.id == made.id
    assert package.catalogue.names == ("cup", "stem")
    assert figures["top_1"].count == (90 if folds else len(division.shipped.test_N))
    card = package.card
    assert "Not a medical device" in card
    assert ("no evidence about patients" in card) == synthetic
    assert f"| Top-1 accuracy | {figures['top_1'].value:.3f} |" in card
    assert "Control: only images stored as 250 x 250" in card
    assert "2 members were left out: 1 no_label, 1 truncated." in card
    assert "images of one patient may be on both sides" in card
    assert "python -m jobs.train --labels 'my file.csv'" in card
    assert "Licence: Public domain." in card
    assert "not shown to be better than always naming the commonest class" in card
    assert package.provenance["data"] == {
        "source": "Noise of a test.",
        "licence": "Public domain.",
        "fingerprint": "f" * 64,
        "images": 90,
        "excluded": 2,
    }


def test_folds_measure_every_image_once_and_calibrate_on_others(
    labelled: LabelledSet, tmp_path: Path
) -> None:
    division, shipped, folds, _ = fitted(labelled, config_of(3, False), tmp_path)
    measured = measured_parts(shipped, folds)
    assert sorted(measured.indices_N.tolist()) == list(range(90))
    assert len(division.shipped.test_N) == 0
    assert sum(map(sum, class_counts(labelled, division.shipped).values())) == 90
    figures = figures_of(labelled, division, measured)
    assert figures["coverage"].low <= 0.9 <= figures["coverage"].high


def test_a_set_that_spares_no_calibration_part_trains_on_all_but_the_test(
    labelled: LabelledSet,
) -> None:
    for folds in (0, 3):
        kept = divide(labelled, SplitSettings(folds=folds))
        spared = divide(labelled, SplitSettings(folds=folds), calibrate=False)
        pairs = [(kept.shipped, spared.shipped), *zip(kept.folds, spared.folds, strict=True)]
        for before, after in pairs:
            assert len(after.calibration_N) == 0
            assert after.test_N.tolist() == before.test_N.tolist()
            both = sorted([*before.train_N, *before.calibration_N])
            assert after.train_N.tolist() == both


def test_a_card_counts_the_masks_that_trained(labelled: LabelledSet, tmp_path: Path) -> None:
    config = config_of(0, False)
    division, shipped, folds, place = fitted(labelled, config, tmp_path)
    grades_N = np.full(90, GOOD, np.uint8)
    grades_N[division.shipped.test_N] = BY_HAND
    masks = MaskSet(np.zeros((90, 32, 32), bool), grades_N, "d" * 64)
    made, _ = make_package(
        tmp_path / "model",
        Training(
            config,
            Preprocessing(size_px=32),
            labelled,
            division,
            shipped,
            folds,
            place,
            ["python"],
            masks,
        ),
    )
    trained = int((grades_N[division.shipped.train_N] == GOOD).sum())
    assert 0 < trained < int((grades_N == GOOD).sum())  # those of the calibration part taught none
    assert f"from 0 masks that were given and {trained} automatic" in made.card


def test_the_share_called_unknown_is_no_surer_than_its_groups(
    labelled: LabelledSet, tmp_path: Path
) -> None:
    division, shipped, folds, _ = fitted(labelled, config_of(3, False), tmp_path)
    measured = measured_parts(shipped, folds)
    none = replace(measured, flagged_N=np.zeros(90, bool))
    groups = len(np.unique(division.groups_N))
    figure = figures_of(labelled, division, none)["flagged"]
    assert (figure.value, figure.count) == (0.0, 90)
    assert figure.high == pytest.approx(wilson(0, groups).high)


def test_a_held_out_fold_is_measured_from_the_others() -> None:
    rng = np.random.default_rng(0)
    labels_N = np.arange(40) % 2
    features_NF = rng.normal(size=(40, 6)).astype(np.float32)
    outputs = Outputs(np.zeros((40, 2), np.float32), features_NF)
    logits_NK = rng.normal(size=(40, 2)).astype(np.float32)
    held = hold_out_folds(outputs, labels_N, logits_NK, np.arange(40) // 10, "mahalanobis")
    others = fit_novelty(features_NF[10:], labels_N[10:], 2, "mahalanobis")
    assert held.novelty_N[:10] == pytest.approx(others.score(features_NF[:10]))
    inside = fit_novelty(features_NF, labels_N, 2, "mahalanobis").score(features_NF)
    assert held.novelty_N.mean() > inside.mean()  # what a reference was fitted to lies nearer


def test_a_control_needs_a_common_size(labelled: LabelledSet, tmp_path: Path) -> None:
    division, shipped, folds, _ = fitted(labelled, config_of(0, False), tmp_path)
    measured = measured_parts(shipped, folds)
    one_size = replace(labelled, sizes_N2=np.full((90, 2), 250))
    no_size = replace(labelled, sizes_N2=np.arange(180).reshape(90, 2))
    assert size_control(one_size, division, measured) == {}
    assert size_control(no_size, division, measured) == {}
    common, others = size_control(labelled, division, measured).values()
    assert others["top_1"].count == int((labelled.sizes_N2[measured.indices_N, 0] == 400).sum()) > 0
    assert common["top_1"].count + others["top_1"].count == len(measured.indices_N)


def test_a_start_from_a_package_leaves_its_head(labelled: LabelledSet, tmp_path: Path) -> None:
    packaged(labelled, tmp_path)
    weights = first_weights(str(tmp_path / "model"), SPEC)
    assert weights is not None
    assert not [name for name in weights if name.startswith("head.")]
    assert first_weights("", SPEC) is None
    other = NetworkSpec("a.safetensors", "classifier", "resnet18")
    with pytest.raises(Exception, match="holds no resnet18 to start from"):
        first_weights(str(tmp_path / "model"), other)


def test_of_a_large_training_part_a_lot_of_each_class_is_the_reference() -> None:
    labels_N = np.repeat([0, 1, 2, 3], [5000, 30, 2000, 400])
    assert reference_part(labels_N[:500]).tolist() == [*range(500)]
    chosen = reference_part(labels_N, 1000)
    assert len(np.unique(chosen)) == len(chosen)
    assert np.bincount(labels_N[chosen]).tolist() == [250, 30, 250, 250]
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(labels_N[reference_part(labels_N, 4)]).tolist() == [32, 30, 32, 32]


def test_of_a_part_that_is_too_large_images_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    part_N = np.arange(0, 90_000, 2)
    assert scored_part(part_N, 12) is part_N
    monkeypatch.setattr(calibrate, "MAX_VALUES", 120_000)
    monkeypatch.setattr(calibrate, "MIN_SCORED", 5000)
    drawn_N = scored_part(part_N, 12)
    assert len(np.unique(drawn_N)) == 10_000
    assert (np.diff(drawn_N) > 0).all()
    assert np.isin(drawn_N, part_N).all()
    assert drawn_N.mean() == pytest.approx(part_N.mean(), rel=0.02)
    assert scored_part(part_N, 12).tolist() == drawn_N.tolist()
    assert (len(scored_part(part_N, 100)), len(scored_part(part_N, 12, folds=5))) == (5000, 2000)


def test_a_card_states_which_figures_are_of_a_sample(
    labelled: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    packaged(labelled, tmp_path / "whole")
    assert "## Samples" not in load_package(str(tmp_path / "whole" / "model")).card
    for module, name, value in (
        (calibrate, "MAX_VALUES", 20),
        (calibrate, "MIN_SCORED", 10),
        (packaging, "MAX_PROBED", 80),
        (packaging, "MAX_RECORDED", 3),
    ):
        monkeypatch.setattr(module, name, value)
    named = replace(labelled, digests=tuple(f"{number:016x}" for number in range(90)))
    division = packaged(named, tmp_path)
    tests, calibrates = (
        len(part_N) for part_N in (division.shipped.test_N, division.shipped.calibration_N)
    )
    package = load_package(str(tmp_path / "model"))
    for sentence in (
        f"10 of the {calibrates} calibration images were used, drawn at random.",
        f"Figures are of 10 of the {tests} test images, drawn at random.",
        "Cues were probed on 80 of 90 images, drawn at random.",
        "What it was trained on is not recorded: more than 3 files.",
    ):
        assert sentence in package.card
    assert "trained_on" not in package.provenance
