"""The command that brings in a network trained elsewhere: its refusals, and one whole run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from implant_model.classifier import Classifier
from implant_model.errors import UsageError
from implant_model.package.load import load_package
from jobs.import_weights import main
from tests.support.pictures import noise_png


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    """A call with 24 pictures of three classes, and no file yet."""
    for number in range(24):
        folder = tmp_path / "images" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(noise_png(number))
    words = ["--architecture", "shufflenet_v2_x0_5", "--images", str(tmp_path / "images")]
    return [str(tmp_path / "a.pth"), *words, "--output", str(tmp_path / "out")]


def with_file(call: list[str], outputs: int) -> list[str]:
    torch.manual_seed(0)
    torch.save(models.shufflenet_v2_x0_5(num_classes=outputs).state_dict(), call[0])
    return call


def test_what_cannot_be_brought_in_is_a_sentence(call: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.pth \(network\.weights\) is not there"):
        main(call)
    Path(call[0]).write_bytes(b"no weights")
    with pytest.raises(UsageError, match=r"a\.pth is no file of weights"):
        main(call)
    with pytest.raises(UsageError, match=r"--architecture is 'xception'; accepted are resnet18"):
        main([call[0], "--architecture", "xception", *call[3:]])
    (tmp_path / "a.toml").write_text("[segmenter]\nwidth = 8\n")
    with pytest.raises(UsageError, match="do not fit an imported network: fit.epochs is 0"):
        main([*call, "--config", str(tmp_path / "a.toml")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_file_becomes_a_package_that_answers(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(with_file(call, 3)) == 0
    said = capsys.readouterr().out
    assert "tensors make the whole shufflenet_v2_x0_5" in said
    assert "0 tensors of the file are left out" in said
    package = load_package(str(tmp_path / "out"))
    assert package.catalogue.names == ("a", "b", "c")
    assert "which were not fitted here" in (tmp_path / "out" / "MODEL_CARD.md").read_text("utf-8")
    first = package.manifest.provenance["first_weights"]
    assert isinstance(first, dict)
    assert [each["file"] for each in first["files"]] == ["a.pth"]
    assert str(package.manifest.provenance["command"]).startswith("python -m jobs.import_weights")
    answers = Classifier(package).classify(np.zeros((2, 224, 224), np.uint8))
    assert answers.probabilities_NC.shape == (2, 3)
