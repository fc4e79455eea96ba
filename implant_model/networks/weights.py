"""Weights of networks as safetensors files, written small and read with suspicion."""

from collections.abc import Mapping, Sequence

import safetensors
import safetensors.torch
import torch
from torch import nn

from implant_model.errors import PackageError
from implant_model.networks.build import Ensemble, build
from implant_model.networks.spec import NetworkSpec

_COUNTER = "num_batches_tracked"  # batch norm's, of no use to a packaged network
_STORED = (torch.float16, torch.float32)
_FLOAT16_MOST = torch.finfo(torch.float16).max
_ABSENT = {"backbone.evened": torch.zeros(1)}
"""Switches, 0 or 1, that packages of version 0.1.0 lack, as those packages are to be read."""


def weights_bytes(network: nn.Module) -> bytes:
    """Return the weights as a safetensors file, for `save_package`.

    Matrices and kernels are held as float16, which halves the file; vectors (norms, biases) and
    whatever float16 cannot hold stay float32.
    """
    stored = {}
    for name, tensor in _state(network).items():
        whole = tensor.detach().to("cpu", torch.float32).contiguous()
        small = whole.ndim > 1 and float(whole.abs().max()) < _FLOAT16_MOST
        stored[name] = whole.half() if small else whole
    return safetensors.torch.save(stored)


def load_network(spec: NetworkSpec, num_classes: int, data: bytes) -> nn.Module:
    """Build a network and fill it from a safetensors file.

    Args:
        spec: What to build.
        num_classes: Implants of the catalogue.
        data: The file, float16 or float32; loaded as float32.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        PackageError: Not safetensors, other tensors or shapes than the architecture has, another
            dtype, a NaN or infinity, or a switch that is neither 0 nor 1.
    """
    network = build(spec, num_classes)  # not on torch's meta device: its first use takes 4 s of CPU
    expected = _state(network)
    absent = {name: tensor for name, tensor in _ABSENT.items() if name in expected}
    tensors = absent | _parse(data, spec.file)
    _check_tensors(tensors, expected, spec)
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    return network.eval().requires_grad_(False)


def load_networks(
    specs: Sequence[NetworkSpec], num_classes: int, files: Mapping[str, bytes]
) -> Ensemble:
    """Build and fill all networks of a package, see `load_network`.

    Args:
        specs: The networks.
        num_classes: Implants of the catalogue.
        files: Content of the weights' files by name.
    """
    networks = [load_network(spec, num_classes, files[spec.file]) for spec in specs]
    return Ensemble(networks).eval()


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor for name, tensor in network.state_dict().items() if not name.endswith(_COUNTER)
    }


def _parse(data: bytes, file: str) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise PackageError(f"{file} is not a readable safetensors file.") from error


def _check_tensors(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], spec: NetworkSpec
) -> None:
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise PackageError(
            f"{spec.file} does not hold the weights of {spec.architecture}: {len(odd)} tensors are "
            f"missing or too many, such as {odd[0][:80]!r}."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise PackageError(
                f"{spec.file}: {name} has the shape {tuple(tensor.shape)}; {spec.architecture} "
                f"with {spec.channels} input channels has {tuple(expected[name].shape)}."
            )
        if tensor.dtype not in _STORED:
            raise PackageError(f"{spec.file}: {name} is {tensor.dtype}; float16 or float32 is.")
        if not bool(torch.isfinite(tensor).all()):
            raise PackageError(f"{spec.file}: {name} holds a NaN or an infinity.")
        if name in _ABSENT and not bool(((tensor == 0) | (tensor == 1)).all()):
            raise PackageError(f"{spec.file}: {name} is {float(tensor)}; 0 or 1 is accepted.")
