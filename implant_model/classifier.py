"""Preprocessed radiographs in, calibrated identifications out: a package at work on one device.

Letters: N images, B batch, C classes (implants), F features, H height, W width.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from implant_model.calibration import prediction_sets, softmax
from implant_model.errors import Outcome, PackageError
from implant_model.networks.build import Ensemble, fold_batch_norms
from implant_model.networks.device_batches import (
    CPU_BATCH_SIZE,
    DeviceBatches,
    NoveltyScore,
    run_networks,
)
from implant_model.networks.engine import Engine, EngineError, is_convertible
from implant_model.networks.precision import memory_format
from implant_model.networks.spec import Precision
from implant_model.networks.weights import load_networks
from implant_model.package.load import ModelPackage

_LOG: Final = logging.getLogger(__name__)
TOP: Final = 3
"""Implants that are named with their probabilities, best first: column `top` of the tables."""
Array = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Run = Callable[[Images], tuple[Array, Array]]
"""A batch, BHW, to log probabilities, BC, and embeddings, BF."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier states of N images, in their order.

    Attributes:
        probabilities_NC: Calibrated probabilities, float32; each row adds up to one.
        novelty_N: Novelty scores, float32, higher is stranger.
        candidates: Conformal prediction set of each image, best first; may be empty.
        outcomes: `identified`, `ambiguous` or `unknown`.
    """

    probabilities_NC: Array
    novelty_N: Array
    candidates: list[list[int]]
    outcomes: list[Outcome]


def has_gpu() -> bool:
    """Return whether PyTorch finds a GPU on this machine."""
    return torch.cuda.is_available()


class Classifier:
    """Names the implant on preprocessed radiographs.

    On a CPU OpenVINO runs the convolutions, see `implant_model.networks.engine`; torch runs them on
    a GPU, and Fisher vectors everywhere. `networks` are torch's in any case.

    Where torch runs them on a CPU, a program of your own takes up to twice as long as the job,
    whose C library keeps a batch's memory for the next one: start it with
    MALLOC_MMAP_THRESHOLD_=33554432 and MALLOC_TRIM_THRESHOLD_=268435456 in its environment.

    Args:
        package: A package as `load_package` returned it.
        device: `cpu`, `cuda`, `cuda:1`, ...
        precision: `bfloat16` runs convolutions in bfloat16: faster where the processor has it, with
            probabilities that differ in the second digit and may depend on the batch and on the
            processor. Calibration and thresholds are those of float32.
        threads: Batches that a CPU works on at a time, each with torch's own number of threads.
            A GPU works on the next batch of any caller.
        by_torch: Run all networks by torch on a CPU, too: what OpenVINO is held against.

    Raises:
        PackageError: The weights do not fit the package.
    """

    def __init__(
        self,
        package: ModelPackage,
        device: str = "cpu",
        precision: Precision = "float32",
        threads: int = 1,
        *,
        by_torch: bool = False,
    ) -> None:
        self.package = package
        self.device = torch.device(device)
        self.precision: Precision = precision
        # Kept: new threads for each call would each bring an allocator's arena of their own.
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._reduced = precision == "bfloat16"
        self.networks = load_networks(package.networks, len(package.catalogue), package.files)
        fold_batch_norms(self.networks)
        self._engine: Engine | None = None
        self._by_torch = by_torch or self.device.type != "cpu" or not is_convertible(self.networks)
        if self._by_torch:
            self._lay_out()
        self._reference = package.novelty_reference()
        self._on_device: dict[int | None, DeviceBatches] = {}
        self._preparing = threading.Lock()

    def classify(self, images_NHW: Images, batch_size: int | None = None) -> Predictions:
        """Identify images; what is said of one does not depend on the others.

        Roundings may: a GPU has other algorithms for another number of them. Several threads may
        call it at a time.

        Args:
            images_NHW: uint8, of the size that the package's preprocessing makes; N may be 0.
            batch_size: Images that go through the networks at a time; None fits the device.

        Raises:
            ValueError: Images of another dtype or size, or a batch size below 1.
            PackageError: The networks gave a value that is not finite.
        """
        size_px = self.package.preprocessing.size_px
        if images_NHW.shape[1:] != (size_px, size_px):
            raise ValueError(
                f"Images of shape {images_NHW.shape} do not fit; (N, {size_px}, {size_px}) as "
                "made by the package's preprocessing is expected."
            )
        logs_NC, novelty_N = self._measured(images_NHW, batch_size)
        probabilities_NC = softmax(logs_NC, self.package.temperature).astype(np.float32)
        if not (np.isfinite(probabilities_NC).all() and np.isfinite(novelty_N).all()):
            raise PackageError(
                f"The networks of {self.package.id} gave a value that is not finite; the weights "
                "are not usable."
            )
        return self._decided(probabilities_NC, novelty_N)

    def device_batches(self, batch_size: int | None) -> DeviceBatches:
        """What runs batches of this size on the device, made the first time that it is asked for.

        Args:
            batch_size: Images of a full batch; None fits the device's memory.
        """
        with self._preparing:  # a graph is captured while nothing else uses the device
            if batch_size not in self._on_device:
                self._on_device[batch_size] = DeviceBatches(
                    self.networks,
                    NoveltyScore(self._reference).to(self.device),
                    self.device,
                    self.package.preprocessing.size_px,
                    batch_size,
                    reduced=self._reduced,
                )
            return self._on_device[batch_size]

    def _measured(self, images_NHW: Images, batch_size: int | None) -> tuple[Array, Array]:
        """Return log probabilities, NC, and novelty scores, N."""
        if self.device.type == "cuda" and len(images_NHW):
            _check(images_NHW, batch_size)
            return self.device_batches(batch_size).run(images_NHW)
        size = CPU_BATCH_SIZE if batch_size is None else batch_size
        run = partial(self._run_batch, batch_size=size)
        logs_NC, features_NF = _in_batches(run, images_NHW, size, self.device, self._pool)
        return logs_NC, self._reference.score(features_NF)

    def _run_batch(self, images_BHW: Images, batch_size: int) -> tuple[Array, Array]:
        if not self._by_torch:
            try:
                return self._converted().run(images_BHW, batch_size)
            except EngineError as error:
                self._keep_to_torch(error)
        return _run(self.networks, images_BHW, device=self.device, precision=self.precision)

    def _converted(self) -> Engine:
        """Return the networks as OpenVINO has them, converted when they are first asked for."""
        with self._preparing:
            if self._engine is None:
                size_px = self.package.preprocessing.size_px
                self._engine = Engine(self.networks, size_px, self.precision, self._threads)
            return self._engine

    def _keep_to_torch(self, error: EngineError) -> None:
        with self._preparing:
            if self._by_torch:
                return
            self._lay_out()
            self._engine, self._by_torch = None, True
        _LOG.warning(
            "The networks of %s run on torch, which is slower: OpenVINO cannot be used (%s).",
            self.package.id,
            error,
        )

    def _lay_out(self) -> None:
        form = memory_format(self.device, reduced=self._reduced)
        self.networks = self.networks.to(self.device).to(memory_format=form)

    def _decided(self, probabilities_NC: Array, novelty_N: Array) -> Predictions:
        package = self.package
        candidates = prediction_sets(probabilities_NC, package.quantiles_C)
        outcomes = [
            decide(len(chosen), novelty, package.novelty.threshold)
            for chosen, novelty in zip(candidates, novelty_N.tolist(), strict=True)
        ]
        return Predictions(probabilities_NC, novelty_N, candidates, outcomes)


def decide(num_candidates: int, novelty: float, threshold: float) -> Outcome:
    """Return the outcome of an image with so many candidates and this novelty."""
    if novelty > threshold or num_candidates == 0:
        return Outcome.UNKNOWN
    return Outcome.IDENTIFIED if num_candidates == 1 else Outcome.AMBIGUOUS


def measure(
    networks: Ensemble,
    images_NHW: Images,
    batch_size: int = CPU_BATCH_SIZE,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    pool: Executor | None = None,
) -> tuple[Array, Array]:
    """Run networks over images by torch, as a classifier does before calibration; for training.

    Args:
        networks: In evaluation mode, on `device`.
        images_NHW: Preprocessed images, uint8; N may be 0.
        batch_size: Images that go through the networks at a time.
        device: Where the networks are.
        precision: See `Classifier`.
        pool: Runs batches side by side; None: one after the other on the calling thread.

    Returns:
        Logs of the averaged probabilities, NC, and embeddings, NF, both float32.

    Raises:
        ValueError: Images of another dtype or number of dimensions, or a batch size below 1.
    """
    place = torch.device(device)
    run = partial(_run, networks, device=place, precision=precision)
    return _in_batches(run, images_NHW, batch_size, place, pool)


def _in_batches(
    run: Run, images_NHW: Images, batch_size: int, device: torch.device, pool: Executor | None
) -> tuple[Array, Array]:
    _check(images_NHW, batch_size)
    batches = _batches(images_NHW, batch_size, device)
    pairs = list((map if pool is None else pool.map)(run, batches))
    logs = np.concatenate([pair[0] for pair in pairs])
    features = np.concatenate([pair[1] for pair in pairs])
    return logs[: len(images_NHW)], features[: len(images_NHW)]


def _check(images_NHW: Images, batch_size: int | None) -> None:
    if images_NHW.dtype != np.uint8 or images_NHW.ndim != 3:
        raise ValueError(
            f"Images are {images_NHW.dtype} with {images_NHW.ndim} dimensions; uint8, (N, H, W) "
            "is expected."
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is expected.")


def _batches(images_NHW: Images, batch_size: int, device: torch.device) -> Iterator[Images]:
    for start in range(0, max(len(images_NHW), 1), batch_size):
        part = images_NHW[start : start + batch_size]
        # A GPU chooses another algorithm, and other roundings, for another batch size.
        fill = batch_size - len(part) if device.type == "cuda" else int(not len(part))
        yield np.concatenate((part, np.zeros((fill, *part.shape[1:]), np.uint8)))


def _run(
    networks: Ensemble, images_BHW: Images, *, device: torch.device, precision: Precision
) -> tuple[Array, Array]:
    bytes_BHW = torch.from_numpy(np.ascontiguousarray(images_BHW)).to(device)
    logs_BC, features_BF = run_networks(networks, bytes_BHW, reduced=precision == "bfloat16")
    return logs_BC.cpu().numpy(), features_BF.cpu().numpy()
