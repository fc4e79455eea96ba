"""Reads the weights of networks that were trained elsewhere, and maps them tensor by tensor.

A file is safetensors, what torch.save made of tensors alone (nothing else is unpickled), or a
Keras .h5. Its network must be one of torchvision's backbones that `networks.build` builds, by
torchvision's names of its layers; of Keras's own networks the DenseNets alone compute what
torchvision's do, with the layers of one for those of the other.

Shapes: K classes, F features.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor, nn

from implant_model.errors import UsageError
from implant_model.networks.build import build, current_names, head_name
from implant_model.networks.spec import NetworkSpec
from training.first_weights import weights_path

State = dict[str, Tensor]
_WRAPPED: Final = ("state_dict", "model", "model_state_dict")
_COUNTER: Final = ".num_batches_tracked"
KERAS_EPSILON, EPSILON = 1.001e-5, 1e-5
"""Of the batch norms of Keras's DenseNets, and of torchvision's."""
_KERAS_NORM: Final = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KERAS_OTHERS: Final = {
    "block14_sepconv2": "Xception",
    "conv2d_93": "InceptionV3",
    "conv_7b": "InceptionResNetV2",
    "conv5_block3_3_conv": "ResNet50",
    "top_conv": "EfficientNet",
    "block5_conv3": "VGG",
    "Conv_1": "MobileNetV2",
}
"""A layer by which another of Keras's networks is known."""


@dataclass(frozen=True)
class Mapped:
    """What became of a file's tensors.

    Attributes:
        state: Tensors of an `ImplantClassifier` by name, float32; without `head.` where the file
            has no last layer.
        left: Names in the file of tensors that the architecture has no place for.
        outputs: Of the file's last layer; 0 without one.
    """

    state: State
    left: tuple[str, ...]
    outputs: int


def map_file(path: str, spec: NetworkSpec) -> Mapped:
    """Read a file and map it on a backbone of torchvision's and its last layer.

    Args:
        path: See `first_weights.weights_path`.
        spec: What is built; a first layer of other channels gets their mean over its own.

    Raises:
        UsageError: It cannot be read, holds another network or a larger one, or misses a tensor.
    """
    file = weights_path(path)
    if file.suffix in (".h5", ".hdf5"):
        found = _of_keras(_read_keras(file), file, spec.architecture)
    elif file.suffix == ".keras":
        raise UsageError(f"{file} is an archive of Keras; save the model as .h5, which is read.")
    else:
        found = current_names(_read_torch(file))
    return _mapped(found, file, spec)


def _read_torch(file: Path) -> State:
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        document = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of as many kinds as there are damaged files
        raise UsageError(
            f"{file} is no file of weights: safetensors, or what torch.save made of tensors alone, "
            "is expected."
        ) from error
    for name in _WRAPPED:
        if isinstance(document, Mapping) and isinstance(document.get(name), Mapping):
            document = document[name]
    tensors = document if isinstance(document, Mapping) else {}
    state = {
        str(name).removeprefix("module."): tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }
    if not state:
        raise UsageError(f"{file} holds no tensors by name, as a state dict does.")
    return state


def _mapped(found: State, file: Path, spec: NetworkSpec) -> Mapped:
    head = head_name(spec.architecture)
    weight = found.get(f"{head}.weight")
    outputs = len(weight) if weight is not None and weight.ndim == 2 else 0
    expected = build(spec, max(outputs, 1)).state_dict()
    ours = {key: _our_name(key, head) for key in found}
    names = {
        name: key for key, name in ours.items() if name in expected and not name.endswith(_COUNTER)
    }
    wanted = [name for name in expected if not name.endswith(_COUNTER)]
    missing = [name for name in wanted if name not in names and (outputs or not _of(name, "head"))]
    if missing:
        raise UsageError(
            f"{file} does not hold the weights of {spec.architecture} as torchvision names them: "
            f"of its {len(wanted)} tensors {len(missing)} are missing, such as "
            f"{missing[0].removeprefix('backbone.')!r}."
        )
    state = {
        name: _fitting(found[key], expected[name], f"{file}: {key}") for name, key in names.items()
    }
    left = sorted(key for key, name in ours.items() if name not in expected)
    _check_whole(left, expected, file, spec.architecture)
    return Mapped(state, tuple(left), outputs)


def _our_name(key: str, head: str) -> str:
    return f"head{key.removeprefix(head)}" if _of(key, head) else f"backbone.{key}"


def _of(key: str, module: str) -> bool:
    return key.rpartition(".")[0] == module


def _check_whole(
    left: Sequence[str], expected: Iterable[str], file: Path, architecture: str
) -> None:
    """Refuse a larger network, of which the architecture would be a part that computes nothing.

    A ResNet-34 has every tensor of a ResNet-18 and more blocks in the same layers.
    """
    parts = {name.split(".")[1] for name in expected if name.startswith("backbone.")}
    deeper = [key for key in left if key.split(".")[0] in parts]
    if deeper:
        raise UsageError(
            f"{file} holds a larger network than {architecture}: {len(deeper)} tensors of its "
            f"layers have no place there, such as {deeper[0]!r}. Name the architecture that the "
            "file was made with."
        )


def _check_kind(tensor: Tensor, what: str) -> None:
    """Refuse what float32 does not hold as it is: whole numbers are weights without their scale."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UsageError(f"{what} is quantised, sparse or empty; plain weights are expected.")
    if not tensor.is_floating_point():
        raise UsageError(f"{what} is {tensor.dtype}; weights of float16 to float64 are expected.")


def _fitting(tensor: Tensor, expected: Tensor, what: str) -> Tensor:
    """Return a tensor in float32, a first layer's channels brought to those that are wanted."""
    _check_kind(tensor, what)
    whole = tensor.detach().float()
    if whole.shape != expected.shape and whole.ndim == 4 and whole.shape[1] in (1, 3):
        channels = expected.shape[1]
        whole = whole.sum(dim=1, keepdim=True).div(channels).repeat(1, channels, 1, 1)
    if whole.shape != expected.shape:
        raise UsageError(
            f"{what} has the shape {tuple(tensor.shape)}; {tuple(expected.shape)} is expected."
        )
    if not bool(torch.isfinite(whole).all()):
        raise UsageError(f"{what} holds a NaN or an infinity.")
    if what.endswith("running_var") and whole.numel() and float(whole.min()) < 0:
        raise UsageError(f"{what} holds a variance below 0; the file is damaged.")
    return whole.contiguous()


def _read_keras(file: Path) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each layer of a Keras file by their own names."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"{file} is Keras's, and is read by h5py: pip install h5py.") from error
    try:
        with h5py.File(file, "r") as opened:
            group = opened.get("model_weights", opened)
            return {_plain(name): _layer(group[name]) for name in group.attrs["layer_names"]}
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is no .h5 of Keras: model.save or save_weights.") from error


def _layer(group: Any) -> dict[str, Tensor]:
    return {
        _plain(name).rpartition("/")[2].partition(":")[0]: torch.from_numpy(group[name][()])
        for name in group.attrs["weight_names"]
    }


def _plain(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _of_keras(layers: Mapping[str, Mapping[str, Tensor]], file: Path, architecture: str) -> State:
    """Return the tensors of Keras's DenseNet by torchvision's names.

    Raises:
        UsageError: It is another network, or another one is wanted.
    """
    known = {name.replace("/", "_"): layer for name, layer in layers.items() if layer}
    if "conv5_block16_2_conv" not in known:
        other = next((title for name, title in _KERAS_OTHERS.items() if name in known), None)
        raise UsageError(
            f"{file} holds {f'an {other}' if other else 'a network that is not known'}; of Keras's "
            "networks only DenseNet121, DenseNet169 and DenseNet201 compute what torchvision's of "
            "that name do, and are brought in."
        )
    if not architecture.startswith("densenet"):
        raise UsageError(f"{file} holds a DenseNet of Keras, and not the {architecture} wanted.")
    state: State = {}
    for name, layer in known.items():
        target = _densenet_name(name)
        for part, tensor in layer.items():
            if target is None:
                state[f"keras.{name}.{part}"] = tensor
            else:
                state |= _torch_tensor(target, part, tensor)
    return state


def _densenet_name(name: str) -> str | None:
    """Return torchvision's name of a layer of Keras's DenseNet; None where it has none."""
    fixed = {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0", "bn": "features.norm5"}
    if name in fixed:
        return fixed[name]
    if found := re.fullmatch(r"conv(\d)_block(\d+)_([012])_(bn|conv)", name):
        block, number, step, kind = int(found[1]) - 1, found[2], int(found[3]), found[4]
        own = f"conv{step}" if kind == "conv" else f"norm{step + 1}"
        return f"features.denseblock{block}.denselayer{number}.{own}"
    if found := re.fullmatch(r"pool(\d)_(bn|conv)", name):
        return f"features.transition{int(found[1]) - 1}.{found[2].replace('bn', 'norm')}"
    return "classifier" if re.fullmatch(r"dense(_\d+)?|predictions", name) else None


def _torch_tensor(target: str, part: str, tensor: Tensor) -> State:
    if part in _KERAS_NORM:
        shift = KERAS_EPSILON - EPSILON if part == "moving_variance" else 0.0
        return {f"{target}.{_KERAS_NORM[part]}": tensor + shift}
    if part == "kernel":  # rows, columns, in, out; or in, out
        return {f"{target}.weight": tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T}
    return {f"{target}.{part}": tensor}


def describe(mapped: Mapped, architecture: str) -> Iterator[str]:
    """Yield what became of each of a file's tensors, in lines."""
    for name, tensor in sorted(mapped.state.items()):
        yield f"  {name.removeprefix('backbone.')}: {' x '.join(map(str, tensor.shape)) or 'one'}"
    yield f"{len(mapped.state):,} tensors make the whole {architecture}"
    for name in mapped.left:
        yield f"  {name}: left out, the architecture has no place for it"
    yield f"{len(mapped.left):,} tensors of the file are left out"


def reordered(mapped: Mapped, order: list[str], names: tuple[str, ...]) -> State:
    """Return the state with the last layer's rows in the order of the classes.

    Args:
        mapped: Of the file.
        order: Labels in the order of the file's outputs.
        names: Labels in the order that is wanted.

    Raises:
        UsageError: The file has no last layer, or one of other classes.
    """
    if not mapped.outputs:
        raise UsageError("The file of weights has no last layer; train one on it: network.weights.")
    if len(order) != mapped.outputs or sorted(order) != sorted(names):
        raise UsageError(
            f"The file's last layer has {mapped.outputs} outputs, in the order {', '.join(order)}; "
            f"the labels are {', '.join(names)}. Both must be the same, see network.classes."
        )
    rows = [order.index(name) for name in names]
    heads = {name: mapped.state[name][rows] for name in ("head.weight", "head.bias")}
    return {**mapped.state, **heads}


def filled(network: nn.Module, state: State) -> State:
    """Return a network's whole state, that of a file and the counters that a file may lack."""
    return {**network.state_dict(), **state}
