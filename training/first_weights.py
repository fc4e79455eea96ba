"""Finds that the first weights of a network are not to be had before torch is loaded."""

import hashlib
import os
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from implant_model.errors import UsageError
from implant_model.networks.spec import BACKBONES, NetworkSpec
from implant_model.package.load import load_package
from training.settings import NetworkSettings

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_S: Final = 10.0
SITE: Final = "https://download.pytorch.org/models"
_STEMS: Final = """
    resnet18-f37072fd resnet34-b627a593 resnet50-11ad3fa6 resnet101-cd907fc2 resnet152-f82ba261
    resnext50_32x4d-1a0047aa resnext101_32x8d-110c445d wide_resnet50_2-9ba9bcbe
    wide_resnet101_2-d733dc28 mobilenet_v2-7ebf99e0 mobilenet_v3_small-047dcff4
    mobilenet_v3_large-5c1a4163 efficientnet_b0_rwightman-7f5810bc efficientnet_b1-c27df63c
    efficientnet_b2_rwightman-c35c1473 efficientnet_b3_rwightman-b3899882
    efficientnet_b4_rwightman-23ab8bcd efficientnet_b5_lukemelas-1a07897c
    efficientnet_b6_lukemelas-24a108a5 efficientnet_b7_lukemelas-c5b4e57e
    efficientnet_v2_s-dd5fe13b efficientnet_v2_m-dc08266a efficientnet_v2_l-59c71312
    densenet121-a639ec97 densenet161-8d451a50 densenet169-b2777c0a densenet201-c1103571
    convnext_tiny-983f1562 convnext_small-0c510722 convnext_base-6075fbad
    convnext_large-ea097f82 regnet_x_400mf-62229a5f regnet_x_800mf-94a99ebd
    regnet_x_1_6gf-a12f2b72 regnet_x_3_2gf-7071aa85 regnet_x_8gf-2b70d774
    regnet_y_400mf-e6988f5f regnet_y_800mf-58fc7688 regnet_y_1_6gf-0d7bc02a
    regnet_y_3_2gf-9180c971 regnet_y_8gf-dc2b1b54 shufflenetv2_x0.5-f707e7126e
    shufflenetv2_x1-5666bf0f80 shufflenetv2_x1_5-3c479a10 shufflenetv2_x2_0-8be3c8ee
    mnasnet0.5_top1_67.823-3ffadce67e mnasnet0_75-7090bc5f mnasnet1.0_top1_73.512-f206786ef8
    mnasnet1_3-a4c69d6f vgg11_bn-6002323d vgg13_bn-abd245e5 vgg16_bn-6c64b313 vgg19_bn-c79401a0
"""
HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")
"""What a folder of a hub holds weights in."""
PRETRAINED: Final = {
    name: f"{stem}.pth" for name, stem in zip(BACKBONES, _STEMS.split(), strict=True)
}
"""Of each backbone torchvision's file of weights. torchvision has this list, too, and takes seconds
to be imported."""


def check_first_weights(network: NetworkSettings) -> None:
    """Refuse a start that cannot be made.

    Raises:
        UsageError: The package to start from holds no such network, or pretrained weights are
            neither here nor can they be fetched.
    """
    if network.start_from:
        package = load_package(network.start_from, weights=False)
        of_architecture(package.networks, network.architecture, network.start_from)
    if network.pretrained:
        check_pretrained(network.architecture)
    for path in network.weights:
        weights_path(path)


def of_architecture(
    networks: Sequence[NetworkSpec], architecture: str, package_uri: str
) -> list[NetworkSpec]:
    """Return a package's networks of an architecture, one at the least.

    Raises:
        UsageError: It holds none.
    """
    found = [spec for spec in networks if spec.architecture == architecture]
    if not found:
        raise UsageError(
            f"The package {package_uri} holds no {architecture} to start from; "
            f"it holds {', '.join(spec.architecture for spec in networks)}."
        )
    return found


def check_pretrained(architecture: str) -> None:
    """Refuse pretrained weights that are neither on this machine nor can be fetched.

    Raises:
        UsageError: See above.
    """
    file, url = PRETRAINED[architecture], f"{SITE}/{PRETRAINED[architecture]}"
    folder = hub_folder()
    if (folder / file).is_file():
        return
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):
            pass  # they are fetched when torch is there
    except OSError as error:
        raise UsageError(
            f"The pretrained weights of {architecture} are not in {folder} and could not be "
            f"fetched from {url} ({error}); put them there, or train without them."
        ) from error


def trunks_of_files(paths: Sequence[str]) -> tuple[dict[str, "Tensor"], ...]:
    """Return the trunks of EfficientNet-Lite1 and -Lite2 out of their files, in any order.

    Raises:
        UsageError: One cannot be read, or another network's weights are in it.
    """
    from implant_model.networks.lite_trunk import LITE1, LITE2, trunk_state

    files = [_published(path) for path in paths]
    trunks = []
    for size in (LITE1, LITE2):
        for published in files:
            with suppress(KeyError, ValueError, TypeError, RuntimeError, AttributeError):
                trunks.append(trunk_state(published, size))
                break
        else:
            raise UsageError(
                f"{' and '.join(paths)} (network.weights) do not hold the weights of an "
                f"{size.name} as its publishers name them (_conv_stem.weight, "
                "_blocks.0._depthwise_conv.weight, ...)."
            )
    return tuple(trunks)


def _published(path: str) -> dict[str, "Tensor"]:
    """Read a file of weights; of torch's nothing but tensors is unpickled."""
    import safetensors.torch
    import torch

    file = weights_path(path)
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        published: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        return published
    except Exception as error:  # of as many kinds as there are damaged files
        raise UsageError(
            f"{path} (network.weights) is no file of weights: safetensors, or what torch.save made "
            "of tensors alone, is expected."
        ) from error


def weights_path(path: str) -> Path:
    """Return the file of first weights that a path means: itself, or one in a hub's folder.

    Raises:
        UsageError: It is not there.
    """
    place = Path(path)
    for file in (place, *(place / name for name in HUB_FILES)):
        if file.is_file():
            return file
    if place.is_dir():
        raise UsageError(
            f"The folder {path} (network.weights) has neither {' nor '.join(HUB_FILES)}."
        )
    raise UsageError(f"The file of first weights {path} (network.weights) is not there.")


def weights_digest(path: str) -> str:
    """Return the SHA-256 of a file of first weights, hexadecimal."""
    with weights_path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hub_folder() -> Path:
    """Return where torch keeps weights that it fetched, as `torch.hub` finds it."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{caches}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
