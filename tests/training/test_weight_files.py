"""Files of networks that were trained elsewhere: as torch, safetensors and h5py write them."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torchvision import models

from implant_model.errors import UsageError
from implant_model.networks.build import ImplantClassifier, build
from implant_model.networks.spec import NetworkSpec
from training.config import as_imported, from_document
from training.data.labelled import LabelledSet
from training.data.split import Split
from training.fit.fitting import Workplace, fit_split
from training.fit.workers import Workers
from training.weight_files import KERAS_EPSILON, Mapped, describe, filled, map_file, reordered


def spec_of(architecture: str, channels: Any = 1) -> NetworkSpec:
    return NetworkSpec("a.safetensors", "classifier", architecture, channels, mean=0.0, std=1.0)


def filled_with(mapped: Mapped, spec: NetworkSpec) -> ImplantClassifier:
    network = build(spec, mapped.outputs)
    network.load_state_dict(filled(network, mapped.state))
    assert isinstance(network, ImplantClassifier)
    return network.eval()


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = models.shufflenet_v2_x0_5(num_classes=3)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))  # norms that are not those of a new network
    return network.eval()


def written(network: torch.nn.Module, path: Path) -> Path:
    state = {name: part.contiguous() for name, part in network.state_dict().items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif path.suffix == ".bin":
        torch.save({"state_dict": {f"module.{name}": part for name, part in state.items()}}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["a.pth", "model.safetensors", "pytorch_model.bin"])
def test_a_file_of_torchvisions_network_answers_greys_as_it_does_colours(
    name: str, small: torch.nn.Module, tmp_path: Path
) -> None:
    path = written(small, tmp_path / name)
    mapped = map_file(str(path if name == "a.pth" else tmp_path), spec_of("shufflenet_v2_x0_5"))
    assert (mapped.left, mapped.outputs) == ((), 3)
    network = filled_with(mapped, spec_of("shufflenet_v2_x0_5"))
    greys = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        answers = small(greys.expand(-1, 3, -1, -1))
        assert torch.allclose(network(greys), answers, atol=1e-5)
    assert float(answers.std()) > 1e-3


def test_timms_weights_are_mapped_by_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = timm.create_model("convnextv2_atto", num_classes=2).eval()
    safetensors.torch.save_file(original.state_dict(), tmp_path / "model.safetensors")
    mapped = map_file(str(tmp_path), spec_of("convnextv2_atto"))
    assert (mapped.left, mapped.outputs) == ((), 2)
    network, greys = filled_with(mapped, spec_of("convnextv2_atto")), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(greys), original(greys.expand(-1, 3, -1, -1)), atol=1e-5)


def test_a_first_layer_is_brought_to_two_channels(small: torch.nn.Module, tmp_path: Path) -> None:
    path = written(small, tmp_path / "a.pth")
    network = filled_with(
        map_file(str(path), spec_of("shufflenet_v2_x0_5", 2)), spec_of("shufflenet_v2_x0_5", 2)
    )
    greys = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        both, colours = network(greys.expand(-1, 2, -1, -1)), small(greys.expand(-1, 3, -1, -1))
    assert torch.allclose(both, colours, atol=1e-5)


def test_a_larger_network_is_not_taken_for_a_part_of_it(tmp_path: Path) -> None:
    path = written(models.resnet34(num_classes=3), tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"larger network than resnet18: .* as 'layer1.2.bn1.bias"):
        map_file(str(path), spec_of("resnet18"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.to(torch.int8), "is torch.int8; weights of float16 to float64 are"),
        (lambda part: part.to(torch.complex64), "is torch.complex64"),
        (lambda part: part.to("meta"), "is quantised, sparse or empty"),
        (lambda part: -part, "conv1.1.running_var holds a variance below 0"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(
    change: Any, message: str, small: torch.nn.Module, tmp_path: Path
) -> None:
    state = small.state_dict()
    name = "conv1.1.running_var"
    torch.save({**state, name: change(state[name])}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=message):
        map_file(str(tmp_path / "a.pth"), spec_of("shufflenet_v2_x0_5"))


def test_what_has_no_place_is_named_and_what_is_missing_refuses(
    small: torch.nn.Module, tmp_path: Path
) -> None:
    state = small.state_dict()
    torch.save({**state, "aux.weight": torch.zeros(3)}, tmp_path / "more.pth")
    mapped = map_file(str(tmp_path / "more.pth"), spec_of("shufflenet_v2_x0_5"))
    assert mapped.left == ("aux.weight",)
    lines = [*describe(mapped, "shufflenet_v2_x0_5")]
    assert "  aux.weight: left out, the architecture has no place for it" in lines
    assert "  head.weight: 3 x 1024" in lines
    assert lines[-1] == "1 tensors of the file are left out"
    torch.save({k: v for k, v in state.items() if k != "conv5.0.weight"}, tmp_path / "less.pth")
    with pytest.raises(UsageError, match=r"of its \d+ tensors 1 are missing, such as 'conv5"):
        map_file(str(tmp_path / "less.pth"), spec_of("shufflenet_v2_x0_5"))
    with pytest.raises(UsageError, match=r"stage2\.0\.branch1.* has the shape .* is expected"):
        map_file(str(tmp_path / "more.pth"), spec_of("shufflenet_v2_x1_0"))
    with pytest.raises(UsageError, match="does not hold the weights of resnet18 as torchvision"):
        map_file(str(tmp_path / "more.pth"), spec_of("resnet18"))
    torch.save({**state, "fc.bias": torch.full((3,), float("nan"))}, tmp_path / "nan.pth")
    with pytest.raises(UsageError, match=r"nan\.pth: fc\.bias holds a NaN"):
        map_file(str(tmp_path / "nan.pth"), spec_of("shufflenet_v2_x0_5"))


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("what came out of a file was run",)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "b.safetensors").write_bytes(b"not weights")
    torch.save([torch.zeros(1)], tmp_path / "c.pth")
    (tmp_path / "d.h5").write_bytes(b"not weights")
    (tmp_path / "e.keras").write_bytes(b"PK")
    (tmp_path / "hub").mkdir()
    for name, message in (
        ("a.pth", "is no file of weights"),
        ("b.safetensors", "is no file of weights"),
        ("c.pth", "holds no tensors by name"),
        ("d.h5", r"is no \.h5 of Keras"),
        ("e.keras", r"save the model as \.h5"),
        ("gone.pth", "is not there"),
        ("hub", "has neither model.safetensors nor pytorch_model.bin"),
    ):
        with pytest.raises(UsageError, match=message):
            map_file(str(tmp_path / name), spec_of("resnet18"))


def keras_file(network: torch.nn.Module, path: Path) -> Path:
    """Write a DenseNet as Keras's model.save does."""
    with h5py.File(path, "w") as file:
        group, layers = file.create_group("model_weights"), []
        for name, module in network.named_modules():
            parts = keras_parts(module)
            if parts:
                layer = keras_name(name)
                layers.append(layer)
                inside = group.create_group(layer)
                for part, array in parts.items():
                    inside[f"{layer}/{part}:0"] = array
                inside.attrs["weight_names"] = [f"{layer}/{part}:0".encode() for part in parts]
        group.create_group("avg_pool").attrs["weight_names"] = np.array([], "S1")
        group.attrs["layer_names"] = [name.encode() for name in ("avg_pool", *layers)]
    return path


def keras_name(name: str) -> str:
    fixed = {"features.conv0": "conv1/conv", "features.norm0": "conv1/bn", "features.norm5": "bn"}
    if name in fixed or name == "classifier":
        return fixed.get(name, "dense")
    parts = name.split(".")
    block = int(parts[1].removeprefix("denseblock").removeprefix("transition")) + 1
    kind = "conv" if parts[-1].startswith("conv") else "bn"
    if parts[1].startswith("transition"):
        return f"pool{block}_{kind}"
    step = int(parts[-1][-1]) - (kind == "bn")
    return f"conv{block}_block{parts[2].removeprefix('denselayer')}_{step}_{kind}"


def keras_parts(module: torch.nn.Module) -> dict[str, np.ndarray]:
    if isinstance(module, torch.nn.Conv2d):
        return {"kernel": module.weight.detach().permute(2, 3, 1, 0).numpy()}
    if isinstance(module, torch.nn.Linear):
        return {"kernel": module.weight.detach().T.numpy(), "bias": module.bias.detach().numpy()}
    if not isinstance(module, torch.nn.BatchNorm2d):
        return {}
    assert module.running_mean is not None
    assert module.running_var is not None
    return {
        "gamma": module.weight.detach().numpy(),
        "beta": module.bias.detach().numpy(),
        "moving_mean": module.running_mean.numpy(),
        "moving_variance": (module.running_var - (KERAS_EPSILON - module.eps)).numpy(),
    }


def test_a_densenet_of_keras_answers_as_it_did_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = models.densenet121(num_classes=2).eval()
    path = keras_file(original, tmp_path / "densenet.h5")
    mapped = map_file(str(path), spec_of("densenet121"))
    assert (mapped.left, mapped.outputs) == ((), 2)
    network, greys = filled_with(mapped, spec_of("densenet121")), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(greys), original(greys.expand(-1, 3, -1, -1)), atol=1e-5)
    with pytest.raises(UsageError, match="holds a DenseNet of Keras, and not the resnet18 wanted"):
        map_file(str(path), spec_of("resnet18"))


@pytest.mark.parametrize(
    ("layer", "network"), [("block14_sepconv2", "an Xception"), ("conv2d_93", "an InceptionV3")]
)
def test_networks_of_keras_that_are_not_built_are_named(
    layer: str, network: str, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        inside = file.create_group(layer)
        inside[f"{layer}/kernel:0"] = np.zeros((3, 3, 1, 1), np.float32)
        inside.attrs["weight_names"] = [f"{layer}/kernel:0"]
        file.attrs["layer_names"] = [layer]
    with pytest.raises(UsageError, match=f"holds {network}; of Keras's networks only DenseNet121"):
        map_file(str(tmp_path / "a.h5"), spec_of("densenet121"))


def test_outputs_come_into_the_order_of_the_classes() -> None:
    heads = {"head.weight": torch.tensor([[1.0], [2.0]]), "head.bias": torch.tensor([3.0, 4.0])}
    state = reordered(Mapped(heads, (), 2), ["b", "a"], ("a", "b"))
    assert state["head.weight"].tolist() == [[2.0], [1.0]]
    assert state["head.bias"].tolist() == [4.0, 3.0]
    with pytest.raises(UsageError, match="has 2 outputs, in the order a, b, c"):
        reordered(Mapped(heads, (), 2), ["a", "b", "c"], ("a", "b"))
    with pytest.raises(UsageError, match="has no last layer"):
        reordered(Mapped({}, (), 0), ["a", "b"], ("a", "b"))


def test_an_imported_network_is_calibrated_and_not_fitted(
    small: torch.nn.Module, tmp_path: Path
) -> None:
    path = written(small, tmp_path / "a.pth")
    document = {"network": {"classes": "c, a, b"}, "preprocessing": {"size_px": 64}}
    config = as_imported(from_document(document, "a file"), str(path), "shufflenet_v2_x0_5")
    rng = np.random.default_rng(0)
    labelled = LabelledSet(
        rng.integers(0, 256, (36, 64, 64), np.uint8),
        np.arange(36) % 3,
        np.arange(36),
        np.full((36, 2), 64),
        tuple(("a.tar", f"{number}.png") for number in range(36)),
        ("a", "b", "c"),
        (),
        "e" * 64,
    )
    split = Split(np.arange(12), np.arange(12, 24), np.arange(24, 36))
    place = Workplace(tmp_path, str(tmp_path), Workers(1, 1), use_gpu=False)
    fitted = fit_split(labelled, np.arange(36), split, config, "it", place)
    ((spec, weights),) = fitted.networks.items()
    tensors = safetensors.torch.load(weights)
    assert spec.architecture == "shufflenet_v2_x0_5"
    expected = small.state_dict()["fc.weight"][[1, 2, 0]].half()
    assert tensors["head.weight"].equal(expected)
    assert len(fitted.measured.indices_N) == 12
