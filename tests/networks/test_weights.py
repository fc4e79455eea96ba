import math
from collections.abc import Callable

import pytest
import safetensors.torch
import torch

from implant_model.errors import PackageError
from implant_model.networks.build import ImplantClassifier, build
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_network, weights_bytes
from tests.support.package_samples import NAMES, SPECS, sample_weights

SPEC = SPECS[1]
DATA = sample_weights(SPEC)
Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.file)
def test_weights_come_back_as_they_were_within_float16(spec: NetworkSpec) -> None:
    torch.manual_seed(1)
    network = build(spec, 3).eval()
    loaded = load_network(spec, 3, weights_bytes(network))
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        again = loaded.state_dict()[name]
        assert again.dtype == tensor.dtype
        torch.testing.assert_close(again, tensor, rtol=1e-3, atol=1e-6)
    images = torch.rand(4, spec.channels, 64, 64)
    torch.testing.assert_close(loaded(images), network(images), rtol=0.02, atol=0.02)


def test_matrices_take_half_the_space_and_vectors_keep_their_digits() -> None:
    tensors = safetensors.torch.load(DATA)
    assert {t.dtype for t in tensors.values() if t.ndim > 1} == {torch.float16}
    assert {t.dtype for t in tensors.values() if t.ndim == 1} == {torch.float32}
    assert not any(name.endswith("num_batches_tracked") for name in tensors)


def test_the_same_weights_give_the_same_file_and_a_file_the_same_weights() -> None:
    assert sample_weights(SPEC) == DATA
    assert weights_bytes(load_network(SPEC, len(NAMES), DATA)) == DATA


def test_what_float16_cannot_hold_stays_float32() -> None:
    network = build(SPEC, 3)
    assert isinstance(network, ImplantClassifier)
    with torch.no_grad():
        network.head.weight[0, 0] = 1e6
    loaded = load_network(SPEC, 3, weights_bytes(network))
    assert loaded.state_dict()["head.weight"][0, 0] == 1e6


def _without_head(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != "head.bias"}


def _with(value: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, "head.bias": value}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_head, "1 tensors are missing or too many, such as 'head.bias'"),
        (lambda tensors: {**tensors, "extra": torch.zeros(1)}, "such as 'extra'"),
        (_with(torch.tensor([0, math.nan, 0])), "head.bias holds a NaN or an infinity"),
        (_with(torch.tensor([0, math.inf, 0])), "head.bias holds a NaN or an infinity"),
        (_with(torch.zeros(3).double()), "head.bias is torch.float64"),
        (_with(torch.zeros(3).bfloat16()), "head.bias is torch.bfloat16"),
        (_with(torch.zeros(3).long()), "head.bias is torch.int64"),
        (_with(torch.zeros(4)), r"has the shape \(4,\); .* has \(3,\)"),
        (_with(torch.zeros(3, 1)), r"has the shape \(3, 1\)"),
        (_with(torch.zeros(0)), r"has the shape \(0,\)"),
    ],
)
def test_other_tensors_are_refused(damage: Callable[[Tensors], Tensors], message: str) -> None:
    data = safetensors.torch.save(damage(safetensors.torch.load(DATA)))
    with pytest.raises(PackageError, match=message):
        load_network(SPEC, len(NAMES), data)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(PackageError, match=r"whole.safetensors: .* with 1 input channels has"):
        load_network(SPEC, len(NAMES), sample_weights(SPECS[2]))
    with pytest.raises(PackageError, match="does not hold the weights of shufflenet_v2_x0_5"):
        load_network(SPEC, len(NAMES), sample_weights(SPECS[0]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04N.",  # a pickle
        b"PK\x03\x04" + bytes(60),  # a zip, as torch.save makes it
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        DATA[:-1],
        DATA + b"x",
        DATA[: len(DATA) // 2],
    ],
)
def test_what_is_not_safetensors_is_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match="whole.safetensors is not a readable safetensors file"):
        load_network(SPEC, len(NAMES), data)


def test_a_network_in_use_needs_no_gradients() -> None:
    network = load_network(SPEC, len(NAMES), DATA)
    assert not any(parameter.requires_grad for parameter in network.parameters())
