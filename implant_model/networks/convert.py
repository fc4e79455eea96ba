"""Torch networks into OpenVINO's, in memory: what `engine` compiles and runs on CPUs.

They are traced from the networks that the package's weights were loaded into: there is no second
file to trust. What comes after the embeddings (heads, softmax, average) is numpy's, in float32.

Letters: B batch, C classes, F features, H height, W width.
"""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from implant_model.networks.build import Ensemble
from implant_model.networks.engine import Converted, EngineError, last_words, openvino_module
from implant_model.networks.spec import FISHERS

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def is_convertible(networks: Ensemble) -> bool:
    """Return whether networks are chains of convolutions, which Fisher vectors, a search, are not.

    Args:
        networks: Of a package.
    """
    return all(member.spec.architecture not in FISHERS for member in networks.members)


def convert(networks: Ensemble, size_px: int) -> Converted:
    """Convert an ensemble up to its embeddings, which `is_convertible` has found fit for it.

    Args:
        networks: In evaluation mode, on the CPU, channels first.
        size_px: Side of the images.

    Returns:
        OpenVINO's model, which shares the weights' memory, and copies of the heads.

    Raises:
        EngineError: An operation of the networks cannot be converted, or OpenVINO is not usable.
    """
    openvino = openvino_module(for_torch=True)
    module = _Embeddings(networks).eval()
    samples_BHW = _samples(size_px)
    images_BHW = torch.from_numpy(samples_BHW)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Sizes that the trace takes for constants are constants: images are of one size.
            warnings.simplefilter("ignore")
            # A function, not the module: to make a script of each of its hundreds of parts would
            # take as long as all else.
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                lambda images_BHW: module(images_BHW), images_BHW, check_trace=False
            )
            model = _model(openvino, traced, images_BHW)
            expected = [embedding_BF.numpy() for embedding_BF in module(images_BHW)]
        _enlarge_by_products(openvino, model)
    except Exception as error:  # of many kinds, some of which OpenVINO derives from none other
        raise EngineError(last_words(error)) from error
    heads = [_head(net.head) for net in networks.members]
    return Converted(model, heads, samples_BHW, expected, source=(networks, traced))


def _head(head: nn.Linear) -> tuple[Array, Array]:
    weights_CF, biases_C = (each.detach().numpy().copy() for each in (head.weight, head.bias))
    return weights_CF, biases_C


class _Embeddings(nn.Module):
    """Images, BHW uint8, to the embeddings of each classifier, BF."""

    def __init__(self, networks: Ensemble) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, images_BHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.networks.embeddings(images_BHW[:, None].float() / 255))


def _samples(size_px: int) -> Bytes:
    """Return two pictures that networks answer differently: noise, and a slope of all greys."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (size_px, size_px), np.uint8)
    greys = np.linspace(0, 127, size_px)
    return np.stack((noise_HW, (greys + greys[:, None]).astype(np.uint8)))


def _model(openvino: Any, traced: Any, samples_BHW: torch.Tensor) -> Any:
    """Return OpenVINO's model of a traced module; not by its `convert_model`, which reports home.

    Weights are not copied.
    """
    frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    decoder = openvino.frontend.pytorch.ts_decoder.TorchScriptPythonDecoder(
        traced, example_input=(samples_BHW,)
    )
    model = frontend.convert(frontend.load(decoder))
    model.inputs[0].get_node().set_element_type(openvino.Type.u8)
    model.reshape(list(samples_BHW.shape))
    model.validate_nodes_and_infer_types()
    return model


def _enlarge_by_products(openvino: Any, model: Any) -> None:
    """Put a product with a matrix on each side in place of each bilinear enlargement.

    The same sums; enlarging the mask took an eighth of the sample package's time.
    """
    ops = openvino.opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Interpolate" or not _is_bilinear(node):
            continue
        before, after = node.input(0).get_shape(), node.output(0).get_shape()
        left = ops.constant(_enlargement(before[2], after[2]))
        right = ops.constant(_enlargement(before[3], after[3]))
        product = ops.matmul(
            ops.matmul(left, node.input_value(0), False, False), right, False, True
        )
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(product.output(0))
    model.validate_nodes_and_infer_types()


def _is_bilinear(node: Any) -> bool:
    attributes = node.get_attributes()
    return (
        attributes["mode"] == "linear_onnx"
        and attributes["coordinate_transformation_mode"] == "pytorch_half_pixel"
        and not attributes["antialias"]
        and len(node.output(0).get_shape()) == 4
    )


def _enlargement(before: int, after: int) -> Array:
    """Return the matrix, after x before, that enlarges a line as torch does."""
    lines = torch.eye(before)[None]
    enlarged = functional.interpolate(lines, after, mode="linear", align_corners=False)
    return np.ascontiguousarray(enlarged[0].numpy().T)
