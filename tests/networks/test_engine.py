"""OpenVINO's answers are torch's. Letters: B batch, F features, H height, W width."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from implant_model.classifier import Classifier
from implant_model.decode.prepare import picture_of
from implant_model.limits import Limits
from implant_model.networks import engine as engine_module
from implant_model.networks.build import Ensemble, build, fold_batch_norms
from implant_model.networks.convert import convert, is_convertible
from implant_model.networks.device_batches import run_networks
from implant_model.networks.engine import (
    CPUINFO,
    MAX_SIZES,
    Engine,
    EngineError,
    has_bfloat16,
    openvino_module,
)
from implant_model.networks.spec import FISHER, NetworkSpec, Precision
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import ModelPackage, load_package
from implant_model.phantoms.files import write_png
from implant_model.phantoms.render import OTHERS, render, render_unknown
from implant_model.predictions import Predictions
from tests.support.package_samples import SIZE_PX, sample_images, save_sample
from tests.support.paths import ROOT
from tests.support.small_package import save_small_package

FAMILIES = (
    "resnet18", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "shufflenet_v2_x0_5",
    "convnext_tiny", "regnet_y_400mf", "vgg11_bn",
)  # fmt: skip
"""One for each set of operations among the backbones."""
GREATEST = 5e-5
"""Difference of a probability: at the sample package's temperature of 0.05 log probabilities, which
agree to 1e-5, count twenty times."""
Images = npt.NDArray[np.uint8]


def ensemble(*specs: NetworkSpec) -> Ensemble:
    torch.manual_seed(3)
    networks = Ensemble([build(spec, 5).eval().requires_grad_(False) for spec in specs]).eval()
    fold_batch_norms(networks)
    return networks


def network(architecture: str = "shufflenet_v2_x0_5") -> Ensemble:
    return ensemble(NetworkSpec("net.safetensors", "classifier", architecture))


def engine_of(
    networks: Ensemble, size_px: int = SIZE_PX, precision: Precision = "float32", streams: int = 1
) -> Engine:
    return Engine(convert(networks, size_px), precision, streams)


def by_torch(networks: Ensemble, images_BHW: Images) -> tuple[np.ndarray, np.ndarray]:
    logs_BC, features_BF = run_networks(networks, torch.from_numpy(images_BHW), reduced=False)
    return logs_BC.numpy(), features_BF.numpy()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return save_sample(tmp_path_factory.mktemp("package") / "sample")


@pytest.fixture(scope="module")
def phantom_package() -> ModelPackage:
    return load_package(str(ROOT / "models" / "phantom"))


@pytest.fixture(scope="module")
def phantoms(phantom_package: ModelPackage) -> Images:
    """24 pictures of the catalogue and 6 of what it lacks."""
    drawn = [
        *(render(ORTHONET[n % 12], np.random.default_rng(n), 256) for n in range(24)),
        *(render_unknown(np.random.default_rng(n), 256, OTHERS[n % 5]) for n in range(6)),
    ]
    found = [
        picture_of(write_png(each), phantom_package.preprocessing, Limits()).image for each in drawn
    ]
    return np.stack([image for image in found if image is not None])


@pytest.fixture(scope="module")
def compiled(phantom_package: ModelPackage) -> Classifier:
    return Classifier(phantom_package, threads=2)


@pytest.fixture(scope="module")
def reference(phantom_package: ModelPackage) -> Classifier:
    return Classifier(phantom_package, threads=2, by_torch=True)


@pytest.fixture
def no_fall_back(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test whose classifier fell back to torch: it would have shown nothing."""
    yield
    assert "OpenVINO cannot be used" not in caplog.text


def assert_same(found: Predictions, expected: Predictions, greatest: float = GREATEST) -> None:
    assert found.candidates == expected.candidates
    assert found.outcomes == expected.outcomes
    np.testing.assert_array_equal(
        found.probabilities_NC.argmax(axis=1), expected.probabilities_NC.argmax(axis=1)
    )
    np.testing.assert_allclose(found.probabilities_NC, expected.probabilities_NC, atol=greatest)
    np.testing.assert_allclose(found.novelty_N, expected.novelty_N, rtol=1e-4)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_of_backbones_answers_as_by_torch(architecture: str) -> None:
    networks, images = network(architecture), sample_images(5)
    logs, features = engine_of(networks).run(images, 5)
    expected_logs, expected_features = by_torch(networks, images)
    np.testing.assert_allclose(logs, expected_logs, atol=1e-4)
    np.testing.assert_allclose(features, expected_features, atol=1e-5)


@pytest.mark.parametrize(
    ("size_px", "reduction"), [(64, 1), (64, 2), (72, 2), (96, 3), (100, 3), (64, 4), (90, 4)]
)
def test_mask_is_enlarged_as_by_torch(size_px: int, reduction: int) -> None:
    networks = ensemble(
        NetworkSpec("s.safetensors", "segmenter", "unet", width=4, reduction=reduction),
        NetworkSpec("net.safetensors", "classifier", "shufflenet_v2_x0_5", channels=2),
    )
    images = np.random.default_rng(0).integers(0, 256, (3, size_px, size_px), np.uint8)
    logs, features = engine_of(networks, size_px).run(images, 3)
    expected_logs, expected_features = by_torch(networks, images)
    np.testing.assert_allclose(logs, expected_logs, atol=1e-4)
    np.testing.assert_allclose(features, expected_features, atol=1e-5)


@pytest.mark.usefixtures("no_fall_back")
def test_phantoms_are_named_as_by_torch(
    compiled: Classifier, reference: Classifier, phantoms: Images
) -> None:
    expected = reference.classify(phantoms)
    assert len(set(expected.outcomes)) > 1
    assert_same(compiled.classify(phantoms), expected)


@pytest.mark.real_data
@pytest.mark.usefixtures("no_fall_back")
def test_real_radiographs_are_named_as_by_torch(
    compiled: Classifier, reference: Classifier, shoulder_radiographs: dict[str, bytes]
) -> None:
    """Of implants that the package does not know: far from what its networks have seen."""
    preprocessing = compiled.package.preprocessing
    found = [picture_of(data, preprocessing, Limits()) for data in shoulder_radiographs.values()]
    images = np.stack([each.image for each in found if each.image is not None])
    assert len(images) == 477
    assert_same(compiled.classify(images), reference.classify(images))


@pytest.mark.usefixtures("no_fall_back")
@pytest.mark.parametrize("number", [1, 2, 4, 5, 15, 16, 17, 20, 30])
def test_last_batch_is_right_however_small(
    compiled: Classifier, reference: Classifier, phantoms: Images, number: int
) -> None:
    for batch_size in (None, 7):
        found = compiled.classify(phantoms[:number], batch_size)
        assert len(found.outcomes) == number
        assert_same(found, reference.classify(phantoms[:number], batch_size))


@pytest.mark.usefixtures("no_fall_back")
def test_bfloat16_is_near(phantom_package: ModelPackage, phantoms: Images) -> None:
    exact = Classifier(phantom_package).classify(phantoms)
    near = Classifier(phantom_package, precision="bfloat16").classify(phantoms)
    assert near.candidates == exact.candidates
    assert near.outcomes == exact.outcomes
    np.testing.assert_allclose(near.novelty_N, exact.novelty_N, rtol=0.2)


def test_a_batch_mate_changes_no_bit() -> None:
    engine, images = engine_of(network()), sample_images(16)
    whole = engine.run(images, 16)
    order = np.random.default_rng(0).permutation(16)
    for one, other in zip(engine.run(images[order], 16), whole, strict=True):
        np.testing.assert_array_equal(one, other[order])
    for one, other in zip(engine.run(images[:9], 16), whole, strict=True):
        np.testing.assert_array_equal(one, other[:9])


def test_threads_share_an_engine() -> None:
    engine = engine_of(network(), streams=2)
    batches = [sample_images(16, seed) for seed in range(12)]
    alone = [engine.run(images, 16) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda images: engine.run(images, 16), batches))
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(("precision", "element_type"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_threads_are_those_of_the_actor_and_no_core_is_taken(
    precision: Precision, element_type: str
) -> None:
    """Ray gives an actor on CPUs one thread of torch's, and there are as many actors as pairs."""
    requests = engine_of(network(), precision=precision, streams=2)._prepare(4)
    assert requests.qsize() == 2
    model = requests.get().get_compiled_model()
    assert model.get_property("INFERENCE_NUM_THREADS") == min(2, os.cpu_count() or 1)
    assert model.get_property("ENABLE_CPU_PINNING") is False
    assert not openvino_module().Core().get_property("CPU", "CACHE_DIR")
    has_it = has_bfloat16(CPUINFO.read_text())
    used = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert used == (element_type if has_it else "f32")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : avx512f avx512_bf16 avx512_vnni", True),
        ("flags : avx512f amx_bf16 amx_tile", True),
        ("Features : asimd i8mm bf16", True),
        ("flags : avx512f avx512bw avx512_vnni", False),
        ("flags : avx2 fma", False),
        ("", False),
    ],
)
def test_bfloat16_is_used_where_the_processor_has_it(flags: str, expected: bool) -> None:
    assert has_bfloat16(flags) is expected


def test_bfloat16_is_not_imitated(
    phantoms: Images, phantom_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "cpuinfo"
    older.write_text("flags : avx512f avx512_vnni")
    monkeypatch.setattr(engine_module, "CPUINFO", older)
    asked = Classifier(phantom_package, precision="bfloat16").classify(phantoms[:5])
    exact = Classifier(phantom_package).classify(phantoms[:5])
    np.testing.assert_array_equal(asked.probabilities_NC, exact.probabilities_NC)


def test_results_are_the_callers_own() -> None:
    engine = engine_of(network())
    first = engine.run(sample_images(4), 4)[0]
    before = first.copy()
    engine.run(sample_images(4, seed=1), 4)
    np.testing.assert_array_equal(first, before)


def test_sizes_that_stay_compiled_are_few() -> None:
    engine = engine_of(network())
    for batch_size in range(1, MAX_SIZES + 3):
        engine.run(sample_images(batch_size), batch_size)
    assert len(engine._requests) == MAX_SIZES


class _Strange(nn.Module):
    """A backbone with an operation that OpenVINO does not know."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        values_BF: torch.Tensor = torch.linalg.svdvals(images_BCHW[:, 0, :24, :24])
        return values_BF


class _Drifting(nn.Module):
    """A backbone whose trace answers otherwise than itself."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.calls = 0

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        features_BF: torch.Tensor = self.backbone(images_BCHW)
        return features_BF * self.calls


def test_an_unknown_operation_is_an_error() -> None:
    networks = network()
    networks.members[0].backbone = _Strange()
    with pytest.raises(EngineError, match="svd"):
        engine_of(networks)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_answer_than_torchs_is_an_error(precision: Precision) -> None:
    networks = network()
    networks.members[0].backbone = _Drifting(networks.members[0].backbone)
    engine = engine_of(networks, precision=precision)
    with pytest.raises(EngineError, match="differ"):
        engine.run(sample_images(2), 2)


def test_classifier_keeps_to_torch_and_says_so_once(
    package: ModelPackage, caplog: pytest.LogCaptureFixture
) -> None:
    images = sample_images(40)
    expected = Classifier(package, by_torch=True).classify(images)
    strange = Classifier(package, threads=2)
    member = strange.networks.members[0]
    member.backbone = _Drifting(member.backbone)
    member.backbone.calls = -1  # so that torch itself answers as before, once it is traced
    with caplog.at_level(logging.WARNING):
        found = strange.classify(images[:0])
        member.backbone = member.backbone.backbone
        found = strange.classify(images)
        strange.classify(images)
    assert len([r for r in caplog.records if "OpenVINO cannot be used" in r.message]) == 1
    np.testing.assert_allclose(found.probabilities_NC, expected.probabilities_NC, atol=1e-6)


def test_classifier_does_without_openvino(
    package: ModelPackage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = Classifier(package).classify(sample_images(3))
    assert "run on torch, which is slower: OpenVINO cannot be used" in caplog.text
    expected = Classifier(package, by_torch=True).classify(sample_images(3))
    assert found.candidates == expected.candidates


def test_weights_that_overflow_are_left_to_torch_to_refuse(tmp_path: Path) -> None:
    small = save_small_package(tmp_path / "small", gain=1e38)
    engine = engine_of(Classifier(small).networks, 64)
    with pytest.raises(EngineError, match="differ by"):
        engine.run(sample_images(2), 2)


def test_fisher_vectors_stay_on_torch() -> None:
    fisher = ensemble(
        NetworkSpec("net.safetensors", "classifier", FISHER),
        NetworkSpec("other.safetensors", "classifier", "shufflenet_v2_x0_5"),
    )
    assert not is_convertible(fisher)
    assert is_convertible(network())


def test_saliency_finds_torchs_networks(package: ModelPackage) -> None:
    classifier = Classifier(package)
    images = sample_images(3)
    before = by_torch(classifier.networks, images)
    classifier.classify(images)
    for one, other in zip(by_torch(classifier.networks, images), before, strict=True):
        np.testing.assert_array_equal(one, other)


REPORTER = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
class Telemetry:
    def __init__(self, *args, **kwargs): pass
    def send_event(self, *args, **kwargs): pass
"""
PROGRAM = """
import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, arguments[-1] if event == "socket.getaddrinfo" else arguments)
sys.addaudithook(hook)
from implant_model.classifier import Classifier
from implant_model.package.load import load_package
from tests.support.package_samples import sample_images
import logging
classifier = Classifier(load_package(sys.argv[1]))
classifier.classify(sample_images(20))
assert not classifier._by_torch
assert "openvino" in sys.modules
print([name for name in sys.modules if "telemetry" in name or "openvino.tools" in name])
"""


def test_nothing_is_reported_to_openvinos_maker(package: ModelPackage, tmp_path: Path) -> None:
    """Not even where openvino-telemetry, which `import openvino` reports by, is installed."""
    telemetry = tmp_path / "telemetry" / "openvino_telemetry"
    (telemetry / "backend").mkdir(parents=True)
    (telemetry / "__init__.py").write_text(REPORTER)
    (telemetry / "backend" / "__init__.py").write_text("backend_ga4 = None")
    folder = tmp_path / "sample"
    save_sample(folder)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(telemetry.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert not (telemetry / "imported").exists()
    assert not (tmp_path / "intel").exists()


def test_the_reporter_of_this_test_would_be_noticed(tmp_path: Path) -> None:
    telemetry = tmp_path / "openvino_telemetry"
    (telemetry / "backend").mkdir(parents=True)
    (telemetry / "__init__.py").write_text(REPORTER)
    (telemetry / "backend" / "__init__.py").write_text("backend_ga4 = None")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import openvino.tools.ovc"], check=True, env=environment)
    assert (telemetry / "imported").exists()


def test_a_program_that_imports_openvino_itself_is_left_alone() -> None:
    before = {name: module for name, module in sys.modules.items() if "openvino" in name}
    openvino_module()
    after = {name: module for name, module in sys.modules.items() if "openvino" in name}
    assert None not in after.values()
    assert before.items() <= after.items()


@pytest.mark.slow
@pytest.mark.usefixtures("no_fall_back")
def test_memory_is_flat_over_many_batches(compiled: Classifier, phantoms: Images) -> None:
    block = np.concatenate([phantoms] * 9)[:256]
    for _ in range(4):
        compiled.classify(block)
    before = resident_mib()
    for number in range(8):  # 2,000 pictures
        compiled.classify(block[: 256 - number])
    assert resident_mib() - before < 30


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
