"""A package's convolutional networks on CPUs: compiled by OpenVINO. Needs no torch.

They come from `convert`, which makes them of torch's, in the same process or in another: of a job,
the driver's side converts once, and no actor has to import torch. What comes after the embeddings
(heads, softmax, average) is numpy's, in float32. Each compiled batch size answers two pictures as
torch does before it is used; where it does not, or a network cannot be converted, the caller keeps
to torch.

Letters: B batch, C classes, F features, H height, W width.
"""

import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from implant_model.networks.spec import Precision

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names by which Linux lists that a processor computes in bfloat16, the last for Arm."""
TOLERANCES: Final[dict[Precision, float]] = {"float32": 1e-3, "bfloat16": 0.25}
"""Greatest difference from torch's embeddings, of their largest number: a hundred times what is
usual, less than an operation that is computed wrongly makes."""
MAX_SIZES: Final = 4
"""Batch sizes that stay compiled; each has a copy of the weights in the order it reads them in."""
SHORTEST: Final = np.float32(1e-12)
"""Length that an embedding is divided by at least, as by torch's `normalize`."""
CPUINFO: Final = Path("/proc/cpuinfo")
_REPORTS_HOME: Final = ("openvino.tools.ovc", "openvino_telemetry")


class EngineError(Exception):
    """The networks cannot be converted, or are not computed as torch computes them."""


@dataclass(frozen=True, eq=False)
class Converted:
    """An ensemble up to its embeddings, what makes probabilities of these, and what is to come out.

    Attributes:
        model: OpenVINO's, of images BHW uint8, with one output BF for each classifier.
        heads: Weights CF and biases C of each classifier's head, float32.
        samples_BHW: Pictures.
        expected: Torch's embeddings of the samples, BF float32, for each classifier.
        source: Owns the memory of the model's weights; None where the model does.
    """

    model: Any
    heads: Sequence[tuple[Array, Array]]
    samples_BHW: Bytes
    expected: Sequence[Array]
    source: object = None

    def packed(self) -> bytes:
        """Return all of it as a safetensors file for `unpacked`, in another process.

        Raises:
            EngineError: There is no room for the files that OpenVINO writes; they are deleted.
        """
        arrays: dict[str, npt.NDArray[Any]] = {"samples": self.samples_BHW}
        with _usable(), tempfile.TemporaryDirectory(prefix="implant-networks-") as folder:
            xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
            openvino_module().serialize(self.model, str(xml), str(weights))
            arrays |= {path.name: np.fromfile(path, np.uint8) for path in (xml, weights)}
        for place, ((weights_CF, biases_C), expected_BF) in enumerate(
            zip(self.heads, self.expected, strict=True)
        ):
            arrays |= {
                f"{place}.weights": weights_CF,
                f"{place}.biases": biases_C,
                f"{place}.expected": expected_BF,
            }
        return save(arrays)


def unpacked(data: bytes) -> Converted:
    """Return what was packed.

    Raises:
        EngineError: OpenVINO is not usable here, or the bytes are not whole.
    """
    openvino = openvino_module()
    with _usable():
        arrays = load(data)
        places = sorted(name.partition(".")[0] for name in arrays if name.endswith(".expected"))
        heads = [(arrays[f"{place}.weights"], arrays[f"{place}.biases"]) for place in places]
        expected = [arrays[f"{place}.expected"] for place in places]
        xml, weights = (arrays[name].tobytes() for name in ("model.xml", "model.bin"))
        model = openvino.Core().read_model(xml, weights)
        return Converted(model, heads, arrays["samples"], expected)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # any: torch is there instead
        raise EngineError(last_words(error)) from error


class Engine:
    """An ensemble on this machine's CPUs. Several threads may run it at a time.

    Batches are of a few fixed sizes, since fixed shapes are a seventh faster than free ones: what
    does not fill one is filled up with blank pictures, and one picture alone has a size of its own.

    Args:
        converted: The ensemble.
        precision: Of all before the heads; float32 where the processor has no bfloat16.
        streams: Batches that are worked on at a time.
        threads: Of each stream.

    Raises:
        EngineError: OpenVINO is not usable.
    """

    def __init__(
        self,
        converted: Converted,
        precision: Precision = "float32",
        streams: int = 1,
        threads: int = 1,
    ) -> None:
        self._converted = converted
        self._precision: Precision = precision
        self._streams = streams
        self._threads = threads
        self._compiling = threading.Lock()
        self._requests: dict[int, SimpleQueue[Any]] = {}
        self._openvino = openvino_module()

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
        with np.errstate(invalid="ignore", over="ignore"):  # whoever decides looks for such values
            logs_BC, features_BF = _average(embeddings, self._converted.heads)
        return logs_BC[: len(images_BHW)], features_BF[: len(images_BHW)]

    def _embeddings(
        self, requests: "SimpleQueue[Any]", images_BHW: Bytes, batch_size: int
    ) -> list[Array]:
        """Return the embeddings of a full batch, that of the blank pictures in it included."""
        full_BHW = np.zeros((batch_size, *images_BHW.shape[1:]), np.uint8)
        full_BHW[: len(images_BHW)] = images_BHW
        request = requests.get()  # of a thread that is done: there is one for each stream
        try:
            tensor = self._openvino.Tensor(full_BHW, shared_memory=True)
            request.set_input_tensor(tensor)
            request.infer()
            places = range(len(self._converted.heads))
            outputs = [request.get_output_tensor(place) for place in places]
            return [np.array(output.data, np.float32) for output in outputs]
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
        settings = {
            "INFERENCE_PRECISION_HINT": _element_type(self._precision),
            "NUM_STREAMS": self._streams,
            "INFERENCE_NUM_THREADS": self._streams * self._threads,
            "ENABLE_CPU_PINNING": False,  # cores are shared with those who read and decode
            "ENABLE_HYPER_THREADING": True,  # a core of Ray's is what the system calls one
        }
        model, size_px = self._converted.model, self._converted.samples_BHW.shape[1]
        requests: SimpleQueue[Any] = SimpleQueue()
        with _usable():
            model.reshape([batch_size, size_px, size_px])
            compiled = self._openvino.Core().compile_model(model, "CPU", settings)
            for _ in range(self._streams):
                requests.put(compiled.create_infer_request())
        return requests

    def _check(self, requests: "SimpleQueue[Any]", batch_size: int) -> None:
        samples_BHW = self._converted.samples_BHW[:batch_size]
        found = self._embeddings(requests, samples_BHW, batch_size)
        for embedding_BF, all_expected_BF in zip(found, self._converted.expected, strict=True):
            expected_BF = all_expected_BF[: len(samples_BHW)]
            difference = np.abs(embedding_BF[: len(samples_BHW)] - expected_BF).max()
            largest = np.abs(expected_BF).max()
            # Not so for a NaN either: OpenVINO's operations may make a number of it.
            if not difference <= TOLERANCES[self._precision] * largest < np.inf:
                raise EngineError(
                    f"in {self._precision} its embeddings differ by {difference:.2g} from those of "
                    f"torch, of which the largest number is {largest:.2g}"
                )


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


def _average(
    embeddings: Sequence[Array], heads: Sequence[tuple[Array, Array]]
) -> tuple[Array, Array]:
    """Return what `Ensemble.average` does, of embeddings, by numpy."""
    logs, features = [], []
    for embedding_BF, (weights_CF, biases_C) in zip(embeddings, heads, strict=True):
        logits_BC = embedding_BF @ weights_CF.T + biases_C
        logs.append(logits_BC - _log_sum_exp(logits_BC, axis=1)[:, None])
        lengths_B1 = np.linalg.norm(embedding_BF, axis=1, keepdims=True)
        features.append(embedding_BF / np.maximum(lengths_B1, SHORTEST))
    average_BC = _log_sum_exp(np.stack(logs), axis=0) - np.float32(np.log(len(logs)))
    return average_BC, np.concatenate(features, axis=1)


def _log_sum_exp(values: Array, axis: int) -> Array:
    greatest = values.max(axis=axis, keepdims=True)
    sums: Array = np.log(np.exp(values - greatest).sum(axis=axis)) + greatest.squeeze(axis)
    return sums


def _joined(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    logs, features = zip(*parts, strict=True)
    return np.concatenate(logs), np.concatenate(features)


def last_words(error: Exception) -> str:
    """Return the end of what an error says."""
    return " ".join(str(error).split())[-200:]  # OpenVINO's messages end with a summary


def openvino_module(*, for_torch: bool = False) -> Any:
    """Return OpenVINO, imported without the tools that report each import to its maker.

    `import openvino` imports them where they are installed, and goes without where they are not.

    Args:
        for_torch: With what reads torch's networks, which imports torch.

    Raises:
        EngineError: It is not installed, or not for this machine.
    """
    try:
        with _absent(_REPORTS_HOME):
            import openvino

            if for_torch:
                import openvino.frontend.pytorch.ts_decoder
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(last_words(error)) from error
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
