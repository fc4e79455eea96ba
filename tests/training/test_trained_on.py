"""A package names what it was trained on, and a training that starts from it is held against it."""

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.package.load import load_package
from tests.training.test_packaging import config_of, fitted, packaged
from training.data.divide import Division
from training.data.labelled import LabelledSet, content_digest
from training.data.trained_on import (
    KEY,
    Digests,
    all_learned,
    learned_before,
    pack_digests,
    record_of,
)
from training.packaging import Training, make_package


@pytest.fixture(scope="module")
def labelled() -> LabelledSet:
    """60 noise pictures of two classes, each a patient's one."""
    return LabelledSet(
        np.random.default_rng(0).integers(0, 255, (60, 32, 32), dtype=np.uint8),
        np.arange(60) % 2,
        np.arange(60),
        np.full((60, 2), 250),
        tuple(("a.tar", f"{number}.png") for number in range(60)),
        ("cup", "stem"),
        (),
        "f" * 64,
        tuple(content_digest(bytes([number])) for number in range(60)),
    )


@pytest.fixture
def made(labelled: LabelledSet, tmp_path: Path) -> tuple[str, Division]:
    """A package of that set with the division that it was fitted by."""
    division = packaged(labelled, tmp_path)
    return str(tmp_path / "model"), division


def test_a_package_names_what_it_was_trained_on_and_nothing_else(
    labelled: LabelledSet, made: tuple[str, Division]
) -> None:
    uri, division = made
    package = load_package(uri)
    trained = Digests(labelled.digests[i] for i in division.shipped.train_N)
    assert record_of(package) == trained
    text = package.provenance[KEY]
    assert isinstance(text, str)
    assert len(text) <= 11 * len(trained) + 4


def test_what_trained_a_first_weight_may_not_test(
    labelled: LabelledSet, made: tuple[str, Division]
) -> None:
    uri, division = made
    before = learned_before(uri, labelled, division)
    assert before == record_of(load_package(uri))  # divided alike: none of it is held out
    parts = division.shipped
    for part in ("test_N", "calibration_N"):
        leaking = replace(parts, **{part: np.append(getattr(parts, part), parts.train_N[:1])})
        for bad in (
            replace(division, shipped=leaking),
            replace(division, folds=(leaking,)),
        ):
            with pytest.raises(UsageError, match="trained on 1 of the 25 images"):
                learned_before(uri, labelled, bad)


def test_first_weights_count_as_training(labelled: LabelledSet, made: tuple[str, Division]) -> None:
    train_N, before = made[1].shipped.train_N, frozenset([content_digest(b"elsewhere")])
    learned = all_learned(labelled, train_N, before)
    assert learned == Digests(before | {labelled.digests[i] for i in train_N})
    assert all_learned(labelled, train_N, None) is None


def test_an_older_package_is_said_to_have_no_record(
    labelled: LabelledSet, small_package: Path, tmp_path: Path
) -> None:
    config = config_of(0, False)
    config = replace(config, network=replace(config.network, start_from=str(small_package)))
    division, shipped, folds, place = fitted(labelled, config, tmp_path)
    before = learned_before(str(small_package), labelled, division)
    assert before is None
    package, _ = make_package(
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
            None,
            before,
        ),
    )
    assert "does not say what it was trained on" in package.card
    assert KEY not in package.provenance


@pytest.mark.parametrize("record", [None, "", 3, "no base64!", "AAAA"])
def test_a_record_that_cannot_be_read_is_none(small_package: Path, record: object) -> None:
    package = load_package(str(small_package), weights=False)
    manifest = replace(package.manifest, provenance={KEY: record})
    assert record_of(replace(package, manifest=manifest)) is None


def test_a_record_holds_each_digest_once() -> None:
    digests = [content_digest(b"b"), content_digest(b"a"), content_digest(b"b")]
    assert pack_digests(digests) == pack_digests(sorted(set(digests)))
    plain = b"".join(bytes.fromhex(digest) for digest in sorted(set(digests)))
    assert pack_digests(digests) == base64.b64encode(plain).decode()


def test_a_set_of_digests_is_one_as_any_other() -> None:
    names = {content_digest(bytes([number])) for number in range(100)}
    digests = Digests(names)
    others: tuple[object, ...] = (names, frozenset([*names][:99]), [*names])
    assert [digests == other for other in others] == [True, False, False]
    assert sorted(digests) == sorted(names)
    assert content_digest(b"elsewhere") not in digests
    assert len(digests | {content_digest(b"elsewhere")}) == 101
    assert digests.values_U.nbytes == 800
