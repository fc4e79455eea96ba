"""Preprocessed radiographs in, calibrated identifications out: a package at work on one device.

Letters: N images, B batch, C classes (implants), F features, H height, W width.
"""

import logging
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np
import torch

from implant_model.batches import CPU_BATCH_SIZE, Array, Images, check_images, in_batches
from implant_model.networks.build import Ensemble, fold_batch_norms
from implant_model.networks.convert import convert, is_convertible
from implant_model.networks.device_batches import DeviceBatches, NoveltyScore, run_networks
from implant_model.networks.engine import Engine, EngineError
from implant_model.networks.precision import memory_format
from implant_model.networks.spec import Precision
from implant_model.networks.weights import load_networks
from implant_model.package.load import ModelPackage
from implant_model.predictions import Predictions, check_size, predict

_LOG: Final = logging.getLogger(__name__)


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
        check_size(self.package, images_NHW)
        return predict(self.package, *self._measured(images_NHW, batch_size))

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
            check_images(images_NHW, batch_size)
            return self.device_batches(batch_size).run(images_NHW)
        size = CPU_BATCH_SIZE if batch_size is None else batch_size
        run = partial(self._run_batch, batch_size=size)
        logs_NC, features_NF = in_batches(run, images_NHW, size, pool=self._pool)
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
                converted = convert(self.networks, self.package.preprocessing.size_px)
                self._engine = Engine(
                    converted, self.precision, self._threads, torch.get_num_threads()
                )
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
    # A GPU chooses another algorithm, and other roundings, for another batch size.
    return in_batches(run, images_NHW, batch_size, is_filled=place.type == "cuda", pool=pool)


def _run(
    networks: Ensemble, images_BHW: Images, *, device: torch.device, precision: Precision
) -> tuple[Array, Array]:
    bytes_BHW = torch.from_numpy(np.array(images_BHW)).to(device)
    logs_BC, features_BF = run_networks(networks, bytes_BHW, reduced=precision == "bfloat16")
    return logs_BC.cpu().numpy(), features_BF.cpu().numpy()
