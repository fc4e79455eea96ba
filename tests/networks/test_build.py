"""Letters: B batch, C channels or classes, H height, W width."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from implant_model.errors import UsageError
from implant_model.networks.build import (
    Ensemble,
    ImplantClassifier,
    ImplantSegmenter,
    build,
    fold_batch_norms,
)
from implant_model.networks.spec import BACKBONES, TIMM_BACKBONES, NetworkSpec
from implant_model.networks.unet import UNet

SMALL = "shufflenet_v2_x0_5"


def classifier(architecture: str = SMALL, channels: int = 1, seed: int = 0) -> ImplantClassifier:
    torch.manual_seed(seed)
    spec = NetworkSpec(
        f"{seed}.safetensors", "classifier", architecture, channels=2 if channels == 2 else 1
    )
    network = build(spec, 5)
    assert isinstance(network, ImplantClassifier)
    return network.eval()


def segmenter(width: int = 4, reduction: int = 1) -> ImplantSegmenter:
    torch.manual_seed(9)
    network = build(
        NetworkSpec("s.safetensors", "segmenter", "unet", width=width, reduction=reduction), 5
    )
    assert isinstance(network, ImplantSegmenter)
    return network.eval()


@pytest.mark.parametrize("architecture", [*BACKBONES, *TIMM_BACKBONES])
def test_every_backbone_gives_logits_embedding_and_map(architecture: str) -> None:
    maps: list[torch.Tensor] = []
    # RegNet computes its widths with tensors, which must have values.
    real = architecture.startswith("regnet")
    with torch.device("cpu" if real else "meta"):
        network = classifier(architecture, channels=2).to("meta")
    with torch.device("meta"):
        network.feature_map.register_forward_hook(lambda _m, _i, output: maps.append(output))
        images = torch.zeros(2, 2, 64, 96)
        assert network(images).shape == (2, 5)
        assert network.features(images).shape == (2, network.num_features)
    assert maps[0].ndim == 4
    assert maps[0].shape[2:] == (2, 3)  # 1/32 of the image: the last map before the pooling


FAMILIES = (
    "resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "efficientnet_v2_s", "densenet121", "shufflenet_v2_x0_5", "mnasnet0_5", "convnext_tiny",
    "regnet_x_400mf", "regnet_y_400mf", "vgg11_bn", "convnextv2_atto",
)  # fmt: skip


@pytest.mark.parametrize("name", [*FAMILIES, "unet"])
def test_folded_batch_norms_change_nothing(name: str) -> None:
    network: nn.Module = segmenter() if name == "unet" else classifier(name)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        before = network(images)
        fold_batch_norms(network)
        torch.testing.assert_close(network(images), before, rtol=1e-3, atol=1e-3)
    left = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    # A DenseNet's norms come before their convolutions, but for those inside a layer.
    assert len(left) <= len(norms) * (0.6 if name == "densenet121" else 0)


def test_without_timm_a_backbone_of_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="convnextv2_atto is timm's, which is not installed"):
        classifier("convnextv2_atto")


def test_embedding_and_head_make_the_logits() -> None:
    network = classifier("mobilenet_v3_small")
    images = torch.rand(3, 1, 64, 64)
    torch.testing.assert_close(network.head(network.features(images)), network(images))


def test_images_are_normalised_inside() -> None:
    plain = classifier()
    spec = NetworkSpec("x.safetensors", "classifier", SMALL, mean=0.25, std=0.5)
    other = build(spec, 5).eval()
    other.load_state_dict(plain.state_dict())
    images = torch.rand(2, 1, 64, 64)
    same = (images - 0.449) / 0.226 * 0.5 + 0.25
    torch.testing.assert_close(other(same), plain(images))
    assert not torch.allclose(other(images), plain(images))


def checkpoint(folder: Path, architecture: str) -> dict[str, torch.Tensor]:
    """Writes a file as torchvision publishes it, with random weights, to torch's hub folder."""
    torch.manual_seed(3)
    state: dict[str, torch.Tensor] = models.get_model(architecture).state_dict()
    published = state
    if architecture.startswith("densenet"):  # published under the names of 2017
        published = {
            name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
            if "denselayer" in name
            else name: tensor
            for name, tensor in state.items()
        }
        assert published.keys() != state.keys()
    name = models.get_model_weights(architecture).DEFAULT.url.rsplit("/", 1)[1]
    (folder / "checkpoints").mkdir()
    torch.save(published, folder / "checkpoints" / name)
    return state


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    before = torch.hub._hub_dir
    torch.hub.set_dir(str(tmp_path))
    yield tmp_path
    torch.hub._hub_dir = before


@pytest.mark.parametrize("channels", [1, 2])
def test_pretrained_weights_see_grey_as_they_saw_colour(hub: Path, channels: int) -> None:
    state = checkpoint(hub, SMALL)
    spec = NetworkSpec("x.safetensors", "classifier", SMALL, 2 if channels == 2 else 1)
    network = build(spec, 5, pretrained=True).eval()
    colour = models.get_model(SMALL)
    colour.load_state_dict(state)
    colour.eval().fc = nn.Identity()
    grey = torch.rand(2, 1, 64, 64)
    assert isinstance(network, ImplantClassifier)
    seen = network.features(grey.expand(-1, channels, -1, -1))
    wanted = colour(network.normalise(grey).expand(-1, 3, -1, -1))
    torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)


def test_densenets_old_names_are_understood(hub: Path) -> None:
    state = checkpoint(hub, "densenet121")
    network = build(NetworkSpec("x.safetensors", "classifier", "densenet121"), 5, pretrained=True)
    name = "features.denseblock2.denselayer3.norm2.weight"
    torch.testing.assert_close(network.state_dict()[f"backbone.{name}"], state[name])


def test_a_pickle_in_place_of_pretrained_weights_is_not_run(hub: Path, tmp_path: Path) -> None:
    name = models.get_model_weights(SMALL).DEFAULT.url.rsplit("/", 1)[1]
    (hub / "checkpoints").mkdir()
    torch.save({"fc.weight": Trap(tmp_path / "sprung")}, hub / "checkpoints" / name)
    with pytest.raises(Exception, match="Weights only load failed"):
        build(NetworkSpec("x.safetensors", "classifier", SMALL), 5, pretrained=True)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_missing_pretrained_weights_are_named(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody answers: no way out
    with pytest.raises(UsageError, match=f"weights of {SMALL} are not in {hub}/checkpoints"):
        build(NetworkSpec("x.safetensors", "classifier", SMALL), 5, pretrained=True)


def test_average_is_that_of_the_probabilities() -> None:
    one, two, cutter = classifier(seed=1), classifier(channels=2, seed=2), segmenter()
    images = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        logs, features = Ensemble([one, cutter, two])(images)
        mask = torch.sigmoid(cutter(images))
        both = torch.cat((images, images * mask), dim=1)
        wanted = (one(images).softmax(1) + two(both).softmax(1)) / 2
        first = functional.normalize(one.features(images), dim=1)
        second = functional.normalize(two.features(both), dim=1)
    torch.testing.assert_close(logs.exp(), wanted)
    torch.testing.assert_close(features, torch.cat((first, second), dim=1))


def test_an_ensemble_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="there is no segmenter"):
        Ensemble([classifier(channels=2)])
    with pytest.raises(UsageError, match="no classifier"):
        Ensemble([segmenter()])


@pytest.mark.parametrize("reduction", [1, 2, 3])
@pytest.mark.parametrize("size", [(64, 64), (61, 50), (16, 33), (5, 7)])
def test_a_mask_has_the_size_of_its_image(size: tuple[int, int], reduction: int) -> None:
    assert segmenter(2, reduction)(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_a_unet_sees_detail_and_surroundings() -> None:
    torch.manual_seed(0)
    network = UNet(width=4).eval()
    images = torch.rand(1, 1, 96, 96, requires_grad=True)
    network(images)[0, 0, 48, 48].backward()
    assert images.grad is not None
    reach = images.grad[0, 0].abs() > 0
    assert reach[48, 48]
    assert reach[20:76, 20:76].float().mean() > 0.9


def test_a_unet_learns_to_cut_out_a_bright_square() -> None:
    torch.manual_seed(0)
    network = UNet(width=4)
    images = 0.3 * torch.rand(8, 1, 32, 32)
    masks = torch.zeros_like(images)
    for place in range(8):
        masks[place, :, 2 + 2 * place : 12 + 2 * place, 8:20] = 1
    images += 0.6 * masks
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        loss = functional.binary_cross_entropy_with_logits(network(images), masks)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found = network.eval()(images) > 0
    assert (found == masks.bool()).float().mean() > 0.97
