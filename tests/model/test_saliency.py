"""Letters: B batch, H height, W width."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from implant_model.networks.build import Ensemble, build
from implant_model.networks.spec import NetworkSpec
from implant_model.saliency import heat_maps
from tests.support.package_samples import sample_images

ARCHITECTURES = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "densenet121", "resnet18")


def ensemble(*architectures: str) -> Ensemble:
    torch.manual_seed(0)
    networks = [build(NetworkSpec("s.safetensors", "segmenter", "unet", width=2), 3)]
    for place, architecture in enumerate(architectures):
        channels = 2 if place % 2 else 1
        spec = NetworkSpec("n.safetensors", "classifier", architecture, channels)  # type: ignore[arg-type]
        networks.append(build(spec, 3))
    return Ensemble(networks).eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_heat_is_a_picture_in_zero_to_one(architecture: str) -> None:
    images = sample_images(3)
    heat = heat_maps(ensemble(architecture, architecture), images, [0, 1, 2])
    assert heat.shape == images.shape
    assert heat.dtype == np.float32
    assert np.isfinite(heat).all()
    assert heat.min() >= 0
    assert set(heat.max(axis=(1, 2)).round(6)) <= {0.0, 1.0}


def test_heat_is_grad_cams() -> None:
    """By hand, for a network whose head sits on the averaged map: gradients are its weights."""
    networks = ensemble("resnet18")
    (network,) = networks.members
    images = sample_images(2)
    kept: list[torch.Tensor] = []
    handle = network.feature_map.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        network(torch.from_numpy(images)[:, None].float() / 255)
    handle.remove()
    labels = [2, 0]
    coarse = (kept[0] * network.head.weight[labels][:, :, None, None]).sum(1, keepdim=True).relu()
    fine = functional.interpolate(coarse, images.shape[1:], mode="bilinear")[:, 0].numpy()
    wanted = fine / np.maximum(fine.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(heat_maps(networks, images, labels), wanted, atol=1e-4)


def test_heat_follows_what_was_learnt() -> None:
    """Bright square: class 1. Heat for it lies where the square is."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = build(NetworkSpec("n.safetensors", "classifier", "resnet18"), 2)
    optimiser = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)

    def draw(corners: list[tuple[int, int] | None]) -> np.ndarray:
        images = rng.integers(0, 60, (len(corners), 64, 64), np.uint8)
        for image, corner in zip(images, corners, strict=True):
            if corner is not None:
                image[corner[0] : corner[0] + 20, corner[1] : corner[1] + 20] = 240
        return images

    for _ in range(12):
        corners = [
            (int(rng.integers(0, 44)), int(rng.integers(0, 44))) if place % 2 else None
            for place in range(16)
        ]
        images = torch.from_numpy(draw(corners))[:, None].float() / 255
        labels = torch.tensor([int(corner is not None) for corner in corners])
        loss = functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    upper, lower = heat_maps(Ensemble([network]).eval(), draw([(4, 4), (40, 40)]), [1, 1])
    assert upper[:32, :32].mean() > 1.5 * upper[32:, 32:].mean()
    assert lower[32:, 32:].mean() > 1.5 * lower[:32, :32].mean()


def test_nothing_is_left_behind() -> None:
    networks = ensemble("shufflenet_v2_x0_5", "mobilenet_v3_small")
    images = sample_images(2)
    before = images.copy()
    first = heat_maps(networks, images, [0, 0])
    np.testing.assert_array_equal(heat_maps(networks, images, [0, 0]), first)
    np.testing.assert_array_equal(images, before)
    for network in networks.members:
        assert not network.feature_map._forward_hooks
        assert all(parameter.grad is None for parameter in network.parameters())


def test_another_label_gives_another_picture() -> None:
    images = sample_images(2)
    networks = ensemble("resnet18")
    assert not np.allclose(heat_maps(networks, images, [0, 0]), heat_maps(networks, images, [1, 1]))
