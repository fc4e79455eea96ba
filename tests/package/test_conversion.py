"""A job's driver converts its networks beside itself, and actors on CPUs classify without torch."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from implant_model.classifier import Classifier
from implant_model.compiled_classifier import CompiledClassifier
from implant_model.errors import PackageError
from implant_model.networks.engine import EngineError, unpacked
from implant_model.package.conversion import check_and_convert, converting
from implant_model.package.load import ModelPackage, load_package
from tests.support.package_samples import sample_images, save_sample
from tests.support.paths import ROOT
from tests.support.small_package import save_small_package

DRIVER = """
import pickle, sys
from implant_model.package.conversion import converting
from implant_model.package.load import load_package
package = load_package(sys.argv[1], weights=False)
with converting(sys.argv[1], package) as converted:
    found = converted()
from implant_model.compiled_classifier import CompiledClassifier
from implant_model.networks.engine import unpacked
images = pickle.load(sys.stdin.buffer)
said = CompiledClassifier(package, unpacked(found), streams=2).classify(images)
import jobs.classify, jobs.pipeline.run, jobs.pipeline.stages
assert "torch" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(said))
"""
FAILING = """
import sys
from implant_model.package import conversion
from implant_model.package.load import load_package
conversion.subprocess.Popen = lambda command, popen=conversion.subprocess.Popen, **options: popen(
    [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
    **options,
)
package = load_package(sys.argv[1], weights=False)
with conversion.converting(sys.argv[1], package) as converted:
    print(converted())
print("torch" in sys.modules)
"""
LEAVING = """
import sys, time
from implant_model.package.conversion import converting
from implant_model.package.load import load_package
package = load_package(sys.argv[1], weights=False)
began = time.monotonic()
try:
    with converting(sys.argv[1], package):
        raise KeyError("Ray did not start")
except KeyError:
    print(time.monotonic() - began < 2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "sample"
    save_sample(folder)
    return folder


@pytest.fixture(scope="module")
def package(folder: Path) -> ModelPackage:
    return load_package(str(folder))


def python(
    program: str, *arguments: str, given: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=given,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done


def test_no_torch_is_imported_and_the_answers_are_its_own(
    folder: Path, package: ModelPackage
) -> None:
    images = sample_images(20)
    found = pickle.loads(python(DRIVER, str(folder), given=pickle.dumps(images)).stdout)  # noqa: S301
    expected = Classifier(package, by_torch=True).classify(images)
    assert (found.candidates, found.outcomes) == (expected.candidates, expected.outcomes)
    np.testing.assert_allclose(found.probabilities_NC, expected.probabilities_NC, atol=1e-5)
    np.testing.assert_allclose(found.novelty_N, expected.novelty_N, rtol=1e-4)


def spoil(folder: Path) -> None:
    """Put a weights file there that is none, and its hash into the manifest."""
    document = json.loads((folder / "package.json").read_text())
    name = document["networks"][0]["file"]
    (folder / name).write_bytes(b"x")
    document["files"][name] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    (folder / "package.json").write_text(json.dumps(document))


@pytest.mark.parametrize("beside", [True, False])
def test_weights_that_do_not_fit_are_the_same_sentence(
    tmp_path: Path, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_sample(tmp_path / "sample")
    spoil(tmp_path / "sample")
    package = load_package(str(tmp_path / "sample"), weights=False)
    if beside:
        monkeypatch.delitem(sys.modules, "torch")
    with (
        pytest.raises(
            PackageError, match=f"{package.id} cannot be used: .* is not a readable safetensors"
        ),
        converting(str(tmp_path / "sample"), package) as converted,
    ):
        converted()


def test_a_child_that_is_killed_costs_only_time(folder: Path) -> None:
    assert python(FAILING, str(folder)).stdout.split() == [b"None", b"True"]


def test_who_leaves_does_not_wait(folder: Path) -> None:
    assert python(LEAVING, str(folder)).stdout.split() == [b"True"]


def test_fisher_vectors_are_not_converted() -> None:
    shoulder = load_package(str(ROOT / "models" / "shoulder"), weights=False)
    assert check_and_convert(shoulder) is None


def test_networks_that_overflow_are_left_to_torch_to_refuse(tmp_path: Path) -> None:
    package = save_small_package(tmp_path / "small", gain=1e38)
    packed = check_and_convert(package)
    assert packed is not None
    classifier = CompiledClassifier(package, unpacked(packed))
    with pytest.raises(EngineError, match="differ by"):
        classifier.classify(np.zeros((2, 64, 64), np.uint8))


def test_without_openvino_nothing_is_converted(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert check_and_convert(package) is None


def test_images_of_another_size_are_refused(package: ModelPackage) -> None:
    packed = check_and_convert(package)
    assert packed is not None
    with pytest.raises(ValueError, match="do not fit"):
        CompiledClassifier(package, unpacked(packed)).classify(np.zeros((1, 8, 8), np.uint8))
