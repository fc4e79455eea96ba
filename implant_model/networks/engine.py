"""A package's convolutional networks on CPUs: compiled by OpenVINO, not run op by op by torch.

They are converted in memory from the torch networks that the package's weights were loaded into:
there is no second file to trust, nothing is cached on a disk, and the weights of both are the same
memory. What comes after the embeddings (heads, softmax, average) is torch's, in float32. Each
compiled batch size answers two pictures as torch does before it is used; where it does not, or a
network cannot be converted, the caller keeps to torch.

Letters: B batch, C classes, F features, H height, W width.
"""

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from implant_model.networks.build import Ensemble
from implant_model.networks.spec import FISHERS, Precision

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names by which Linux lists that a processor computes in bfloat16, the last for Arm."""
TOLERANCES: Final[dict[Precision, float]] = {"float32": 1e-3, "bfloat16": 0.25}
"""Greatest difference from torch's embeddings, of their largest number: a hundred times what is
usual, less than an operation that is computed wrongly makes."""
MAX_SIZES: Final = 4
"""Batch sizes that stay compiled; each has a copy of the weights in the order it reads them in."""
CPUINFO: Final = Path("/proc/cpuinfo")
_REPORTS_HOME: Final = ("openvino.tools.ovc", "openvino_telemetry")


class EngineError(Exception):
    """The networks cannot be converted, or are not computed as torch computes them."""


class Engine:
    """An ensemble on this machine's CPUs. Several threads may run it at a time.

    Batches are of a few fixed sizes, since fixed shapes are a seventh faster than free ones: what
    does not fill one is filled up with blank pictures, and one picture alone has a size of its own.

    Args:
        networks: In evaluation mode, on the CPU, channels first; none is a `FisherBackbone`. Their
            heads are read at each run.
        size_px: Side of the images.
        precision: Of all before the heads; float32 where the processor has no bfloat16.
        streams: Batches that are worked on at a time, each by torch's number of threads.

    Raises:
        EngineError: An operation of the networks cannot be converted, or OpenVINO is not usable.
    """

    def __init__(
        self, networks: Ensemble, size_px: int, precision: Precision = "float32", streams: int = 1
    ) -> None:
        self._networks = networks
        self._precision: Precision = precision
        self._streams = streams
        self._compiling = threading.Lock()
        self._requests: dict[int, SimpleQueue[Any]] = {}
        self._openvino = openvino_module()
        self._samples_BHW = _samples(size_px)
        self._model, self._expected = self._converted()

    def run(self, images_BHW: Bytes, batch_size: int) -> tuple[Array, Array]:
        """Run one batch.

        Args:
            images_BHW: Radiographs, `batch_size` of them at most and one at least.
            batch_size: Of a full batch.

        Returns:
            Log probabilities, BC, and embeddings, BF, both float32; see `Ensemble.forward`.

        Raises:
            EngineError: The first batch of a size: it cannot be compiled, or differs from torch.
        """
        if len(images_BHW) <= batch_size // 4:
            return _joined([self.run(image_1HW, 1) for image_1HW in images_BHW[:, None]])
        requests = self._requests.get(batch_size) or self._prepare(batch_size)
        embeddings = self._embeddings(requests, images_BHW, batch_size)
        with torch.inference_mode():
            logs_BC, features_BF = self._networks.average(
                [torch.from_numpy(embedding_BF) for embedding_BF in embeddings]
            )
        return logs_BC.numpy(), features_BF.numpy()

    def _embeddings(
        self, requests: "SimpleQueue[Any]", images_BHW: Bytes, batch_size: int
    ) -> list[Array]:
        fill = batch_size - len(images_BHW)
        if fill:
            blank_BHW = np.zeros((fill, *images_BHW.shape[1:]), np.uint8)
            images_BHW = np.concatenate((images_BHW, blank_BHW))
        request = requests.get()  # of a thread that is done: there is one for each stream
        try:
            tensor = self._openvino.Tensor(np.ascontiguousarray(images_BHW), shared_memory=True)
            request.set_input_tensor(tensor)
            request.infer()
            outputs = [request.get_output_tensor(place) for place in range(len(self._expected))]
            return [np.array(output.data[: batch_size - fill], np.float32) for output in outputs]
        finally:
            requests.put(request)

    def _prepare(self, batch_size: int) -> "SimpleQueue[Any]":
        """Compile the networks for one batch size and hold them against torch."""
        with self._compiling:
            if batch_size not in self._requests:
                requests = self._compiled(batch_size)
                self._check(requests, batch_size)
                if len(self._requests) == MAX_SIZES:
                    del self._requests[next(iter(self._requests))]
                self._requests[batch_size] = requests
            return self._requests[batch_size]

    def _compiled(self, batch_size: int) -> "SimpleQueue[Any]":
        threads = self._streams * torch.get_num_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": _element_type(self._precision),
            "NUM_STREAMS": self._streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # cores are shared with those who read and decode
            "ENABLE_HYPER_THREADING": True,  # a core of Ray's is what the system calls one
        }
        size_px = self._samples_BHW.shape[1]
        try:
            self._model.reshape([batch_size, size_px, size_px])
            compiled = self._openvino.Core().compile_model(self._model, "CPU", settings)
            requests: SimpleQueue[Any] = SimpleQueue()
            for _ in range(self._streams):
                requests.put(compiled.create_infer_request())
        except Exception as error:  # any: torch is there instead
            raise EngineError(_last_words(error)) from error
        return requests

    def _check(self, requests: "SimpleQueue[Any]", batch_size: int) -> None:
        samples_BHW = self._samples_BHW[:batch_size]
        found = self._embeddings(requests, samples_BHW, batch_size)
        for embedding_BF, all_expected_BF in zip(found, self._expected, strict=True):
            expected_BF = all_expected_BF[: len(samples_BHW)]
            difference = np.abs(embedding_BF - expected_BF).max()
            largest = np.abs(expected_BF).max()
            # Not so for a NaN either: OpenVINO's operations may make a number of it.
            if not difference <= TOLERANCES[self._precision] * largest < np.inf:
                raise EngineError(
                    f"in {self._precision} its embeddings differ by {difference:.2g} from those of "
                    f"torch, of which the largest number is {largest:.2g}"
                )

    def _converted(self) -> tuple[Any, list[Array]]:
        """Return OpenVINO's model of the embeddings, and torch's embeddings of the samples."""
        module = _Embeddings(self._networks).eval()
        samples_BHW = torch.from_numpy(self._samples_BHW)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # Sizes that the trace takes for constants are constants: images are of one size.
                warnings.simplefilter("ignore")
                traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                    module, samples_BHW, check_trace=False
                )
                model = _model(self._openvino, traced, samples_BHW)
                expected = [embedding_BF.numpy() for embedding_BF in module(samples_BHW)]
            _enlarge_by_products(self._openvino, model)
        except Exception as error:  # of many kinds, some of which OpenVINO derives from none other
            raise EngineError(_last_words(error)) from error
        return model, expected


class _Embeddings(nn.Module):
    """Images, BHW uint8, to the embeddings of each classifier, BF."""

    def __init__(self, networks: Ensemble) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, images_BHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.networks.embeddings(images_BHW[:, None].float() / 255))


def has_bfloat16(cpuinfo: str) -> bool:
    """Return whether a processor computes in bfloat16, by what Linux lists of it."""
    return not BFLOAT16_FLAGS.isdisjoint(cpuinfo.split())


def _element_type(precision: Precision) -> str:
    """Return OpenVINO's name of what to compute in.

    One that has to imitate bfloat16 takes twice as long as in float32. Float32 is asked for by
    name, since a processor with AMX would compute in bfloat16 by default.
    """
    if precision == "bfloat16" and has_bfloat16(CPUINFO.read_text(encoding="utf-8")):
        return "bf16"
    return "f32"


def is_convertible(networks: Ensemble) -> bool:
    """Return whether networks are chains of convolutions, which Fisher vectors, a search, are not.

    Args:
        networks: Of a package.
    """
    return all(member.spec.architecture not in FISHERS for member in networks.members)


def _joined(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    logs, features = zip(*parts, strict=True)
    return np.concatenate(logs), np.concatenate(features)


def _samples(size_px: int) -> Bytes:
    """Return two pictures that networks answer differently: noise, and a slope of all greys."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (size_px, size_px), np.uint8)
    greys = np.linspace(0, 127, size_px)
    return np.stack((noise_HW, (greys + greys[:, None]).astype(np.uint8)))


def _last_words(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]  # OpenVINO's messages end with a summary


def openvino_module() -> Any:
    """Return OpenVINO, imported without the tools that report each import to its maker.

    `import openvino` imports them where they are installed, and goes without where they are not.

    Raises:
        EngineError: It is not installed, or not for this machine.
    """
    try:
        with _absent(_REPORTS_HOME):
            import openvino
            import openvino.frontend.pytorch.ts_decoder
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(_last_words(error)) from error
    return openvino


@contextmanager
def _absent(names: Sequence[str]) -> Iterator[None]:
    """Let imports of modules fail that have not been imported yet."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: no such module
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules[name] is None:
                del sys.modules[name]


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
