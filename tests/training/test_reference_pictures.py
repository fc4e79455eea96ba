"""The reference radiographs that a training puts beside its package: asked for, or none."""

from pathlib import Path

import numpy as np
import pytest

from implant_model.errors import UsageError
from implant_model.package.load import load_package
from implant_model.package.references import FILE, load_references
from jobs.fitting.training_call import Call
from jobs.fitting.training_run import add_gallery, check_gallery
from tests.support.small_package import save_small_package
from training.config import TrainConfig, from_document
from training.data.divide import divide
from training.data.labelled import LabelledSet
from training.fit.workers import Workers

STATED = {"source": "Noise of a test", "licence": "CC0"}


def labelled(folder: Path) -> LabelledSet:
    images = np.random.default_rng(0).integers(0, 255, (40, 64, 64), np.uint8)
    return LabelledSet(
        images, np.arange(40) % 4, np.arange(40) // 2, np.full((40, 2), 64),
        [("a.tar", f"SECRET{at}.png") for at in range(40)],
        ("cofield", "depuy", "tornier", "zimmer"), (), "f" * 64,
        tuple(f"{at * 7919 % 40:016x}" for at in range(40)),
    )  # fmt: skip


def call_of(folder: Path, per_class: int) -> Call:
    gallery = {"per_class": per_class, **STATED} if per_class else {}
    return Call(
        (), None, folder, from_document({"gallery": gallery}, "a test"), Workers(1, 1), False
    )


def test_references_are_of_the_part_that_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = save_small_package(tmp_path / "model")
    call, images = call_of(tmp_path / "model", 3), labelled(tmp_path)
    division = divide(images, call.config.split)
    add_gallery(call, images, division, made)
    assert "References: 12 radiographs" in capsys.readouterr().out
    package = load_package(str(tmp_path / "model"))
    assert package.id == made.id
    found = load_references(package)
    assert found is not None
    assert found.label_R.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert (set(found.sources), set(found.licences)) == ({"Noise of a test"}, {"CC0"})
    assert b"SECRET" not in (tmp_path / "model" / FILE).read_bytes()


def test_none_is_written_unless_asked_for(tmp_path: Path) -> None:
    made = save_small_package(tmp_path / "model")
    call, images = call_of(tmp_path / "model", 0), labelled(tmp_path)
    add_gallery(call, images, divide(images, call.config.split), made)
    assert not (tmp_path / "model" / FILE).exists()
    assert TrainConfig().gallery.per_class == 0


@pytest.mark.parametrize(
    ("gallery", "message"),
    [
        ({"per_class": -1}, "gallery.per_class is -1; 0 or more is expected"),
        ({"per_class": 2}, "gallery.source is ''; a text of 1 to 1,000 characters is expected"),
        ({"per_class": 2, "source": "x"}, "gallery.licence is ''; a text of"),
        ({"source": "x"}, "gallery.source is 'x'; with per_class, or \"\" is expected"),
        ({"per_class": 2, **STATED, "licence": "x" * 1001}, "gallery.licence is 'x+'; a text of"),
    ],
)
def test_a_senseless_gallery_is_named(gallery: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_document({"gallery": gallery}, "a test")


def test_too_many_are_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asks for 24,000 references of 4 implants; 20,000 are"):
        check_gallery(call_of(tmp_path, 6000), labelled(tmp_path))
