"""A package's networks over images on a GPU: fixed batches, copies that overlap the compute.

Images cross to the device as uint8, a quarter of the bytes of float32, out of pinned memory, while
the batch before is computed; only probabilities and novelty come back, since embeddings are ten
times the bytes. One batch size means one shape, which a CUDA graph replays without Python between
its kernels. On a CPU the same code runs without streams and graphs, which is how it is tested where
there is no GPU.

Letters: N images, B batch, C classes, F features, H height, W width.
"""

import contextlib
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from implant_model.batches import CPU_BATCH_SIZE
from implant_model.networks.build import Ensemble
from implant_model.networks.precision import full_precision, memory_format, reduced_precision
from implant_model.novelty import Gaussian, NoveltyReference


class NoveltyScore(nn.Module):
    """The same arithmetic as the reference's, in float64 as there: distances are differences.

    Args:
        reference: Of the package.
    """

    mean_F: torch.Tensor
    centres_CF: torch.Tensor

    def __init__(self, reference: NoveltyReference) -> None:
        super().__init__()
        self._method = reference.method
        self._within = _Whitening(reference.within)
        self._background = _Whitening(reference.background)
        centres_CF = reference.within.whitened(reference.centres_CF)
        self.register_buffer("centres_CF", torch.from_numpy(centres_CF), persistent=False)
        mean_F = torch.from_numpy(reference.mean_F.astype(np.float64))
        self.register_buffer("mean_F", mean_F, persistent=False)

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        """Return the novelty, B float32, of embeddings; higher is stranger."""
        features_BF = features_BF.double()
        offsets_BF = features_BF - self.mean_F
        placed_BF = features_BF
        if self._method == "normalised_mahalanobis":
            lengths_B1 = torch.linalg.vector_norm(offsets_BF, dim=1, keepdim=True)
            placed_BF = offsets_BF / lengths_B1.clamp_min(1e-12)
        distances_BC = torch.cdist(
            self._within(placed_BF),
            self.centres_CF,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        novelty_B = distances_BC.amin(dim=1) ** 2
        if self._method == "relative_mahalanobis":
            novelty_B = novelty_B - (self._background(offsets_BF) ** 2).sum(dim=1)
        return novelty_B.float()


class _Whitening(nn.Module):
    """`Gaussian.whitened` on a device."""

    axes_KF: torch.Tensor
    gains_K: torch.Tensor

    def __init__(self, gaussian: Gaussian) -> None:
        super().__init__()
        self._ball = 1 / math.sqrt(gaussian.rest)
        axes_KF = torch.from_numpy(gaussian.axes_KF.astype(np.float64))
        variances_K = torch.from_numpy(gaussian.variances_K.astype(np.float64))
        self.register_buffer("axes_KF", axes_KF, persistent=False)
        self.register_buffer("gains_K", variances_K.rsqrt() - self._ball, persistent=False)

    def forward(self, vectors_BF: torch.Tensor) -> torch.Tensor:
        along_BK = (vectors_BF @ self.axes_KF.T) * self.gains_K
        whitened_BF: torch.Tensor = self._ball * vectors_BF + along_BK @ self.axes_KF
        return whitened_BF


SLOTS: Final = 3  # one batch on its way in, one computed, one on its way out
BATCH_SIZES: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)
SMALLER: Final = (4, 16)
"""Batches that are not full take the smallest size that holds them, the whole one over these: the
blocks of small archives would leave most of a GPU's work to nothing. On an H200 a batch of 16
takes a sixth to a tenth of the time of 256 (the sample package, and ResNet-50 at 384 pixels)."""
MEMORY_SHARE: Final = 0.5
"""Of the device's free memory that a batch may take: actors may share a GPU."""
Results = tuple[torch.Tensor, torch.Tensor]
Forward = Callable[[torch.Tensor], Results]
Run = Callable[[], Results]
Array = npt.NDArray[np.float32]


class DeviceBatches:
    """Runs an ensemble, and the novelty of what it sees, over images in batches of a few sizes.

    Several threads may call it at a time: while one waits for its results or looks at them, the
    device has the batch of another.

    Args:
        networks: In evaluation mode, on `device`, in its `memory_format`.
        novelty: On `device`.
        device: Where the networks are.
        size_px: Side of the images.
        batch_size: Images of a full batch; None finds the largest that fits the memory.
        reduced: Run convolutions in bfloat16; see `Classifier`.
    """

    def __init__(
        self,
        networks: Ensemble,
        novelty: NoveltyScore,
        device: torch.device,
        size_px: int,
        batch_size: int | None = None,
        *,
        reduced: bool = False,
    ) -> None:
        self.device = device
        self._on_gpu = device.type == "cuda"
        self._forward = _forward(networks, novelty, reduced=reduced)
        self._turn = threading.Lock()
        self._idle: queue.Queue[_Slot] = queue.Queue()
        with self._here():
            self.batch_size = batch_size or fit_batch(self._forward, device, size_px)
            shape = (self.batch_size, size_px, size_px)
            self._input = torch.zeros(shape, dtype=torch.uint8, device=device)
            if self._on_gpu:
                self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            sizes = {self.batch_size, *(self.batch_size // divisor or 1 for divisor in SMALLER)}
            self._runs = {size: self._prepared(size) for size in sorted(sizes)}
            results = self._runs[self.batch_size]()
            for _ in range(SLOTS):
                self._idle.put(_Slot.like(self._input, *results))
            if self._on_gpu:  # the slots' zeros, which wait behind the run, must not come later
                self._copies.wait_stream(torch.cuda.current_stream(device))

    def run(self, images_NHW: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
        """Return log probabilities, NC, and novelty scores, N, of the images; N is at least 1."""
        found: list[tuple[Array, Array]] = []
        with self._slots() as under_way:
            for start in range(0, len(images_NHW), self.batch_size):
                slot = self._next_slot(under_way, found)
                under_way.append(slot)
                slot.fill(images_NHW[start : start + self.batch_size])
                self._submit(slot)
            found.extend(slot.take() for slot in under_way)
        logs, novelty = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return logs, novelty

    def repeat(self) -> None:
        """Run the batch that lies on the device once more: the networks alone, for benchmarks."""
        self._runs[self.batch_size]()

    def _prepared(self, size: int) -> Run:
        """Return the work on the first images of the input, so many; on a GPU as a CUDA graph."""
        work = partial(self._forward, self._input[:size])
        return _captured(work, self.device) if self._on_gpu else work

    @contextlib.contextmanager
    def _slots(self) -> "Iterator[deque[_Slot]]":
        """Yield a caller's batches under way; their slots are idle again however the call ends."""
        under_way: deque[_Slot] = deque()
        try:
            yield under_way
        finally:
            for slot in under_way:
                self._idle.put(slot)

    def _next_slot(self, under_way: "deque[_Slot]", found: list[tuple[Array, Array]]) -> "_Slot":
        """An idle slot, or the caller's oldest: who has one never waits for another caller's."""
        if not under_way:
            return self._idle.get()
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        oldest = under_way.popleft()
        found.append(oldest.take())
        return oldest

    def _submit(self, slot: "_Slot") -> None:
        """Put a batch under way, between those of other threads."""
        size = next(size for size in self._runs if size >= slot.count)
        with self._turn, self._here():
            with self._copying():
                slot.on_device_BHW[:size].copy_(slot.images_BHW[:size], non_blocking=True)
            if self._on_gpu:
                torch.cuda.current_stream(self.device).wait_stream(self._copies)
            self._input[:size].copy_(slot.on_device_BHW[:size])
            logs_BC, novelty_B = self._runs[size]()
            slot.logs_BC[:size].copy_(logs_BC, non_blocking=True)
            slot.novelty_B[:size].copy_(novelty_B, non_blocking=True)
            if slot.done is not None:
                slot.done.record()

    def _here(self) -> contextlib.AbstractContextManager[object]:
        """Make the device this thread's current one: graphs are caught and run on its streams."""
        return torch.cuda.device(self.device) if self._on_gpu else contextlib.nullcontext()

    def _copying(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._copies) if self._on_gpu else contextlib.nullcontext()


@dataclass
class _Slot:
    """Memory of one batch under way; the host's is pinned where there is a GPU, to copy at once."""

    images_BHW: torch.Tensor
    on_device_BHW: torch.Tensor
    logs_BC: torch.Tensor
    novelty_B: torch.Tensor
    done: "torch.cuda.Event | None"
    count: int = 0

    @classmethod
    def like(cls, images: torch.Tensor, logs: torch.Tensor, novelty: torch.Tensor) -> "_Slot":
        """Return a slot for a batch of images on a device, and for its results."""
        pin = images.is_cuda
        host = [
            torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=pin)
            for tensor in (images, logs, novelty)
        ]
        done = torch.cuda.Event() if pin else None  # type: ignore[no-untyped-call]
        return cls(host[0], torch.zeros_like(images), host[1], host[2], done)

    def fill(self, part_NHW: npt.NDArray[np.uint8]) -> None:
        """Take the images of a batch; what it has room for beyond them stays as it is."""
        self.count = len(part_NHW)
        self.images_BHW.numpy()[: self.count] = part_NHW

    def take(self) -> tuple[Array, Array]:
        """Wait for the batch and return copies of the results of its images."""
        if self.done is not None:
            self.done.synchronize()
        logs, novelty = self.logs_BC[: self.count], self.novelty_B[: self.count]
        return logs.numpy().copy(), novelty.numpy().copy()


def fit_batch(forward: Forward, device: torch.device, size_px: int) -> int:
    """The largest of `BATCH_SIZES` that fits in `MEMORY_SHARE` of the free memory, or a CPU's.

    The memory of one image is measured on a batch of 8, so that no allocation has to fail.
    """
    if device.type != "cuda":
        return CPU_BATCH_SIZE
    free, _ = torch.cuda.mem_get_info(device)
    probe = torch.zeros((8, size_px, size_px), dtype=torch.uint8, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward(probe)
    per_image = (torch.cuda.max_memory_allocated(device) - before) / len(probe)
    return next(
        (size for size in BATCH_SIZES if size * per_image <= MEMORY_SHARE * free), BATCH_SIZES[-1]
    )


def _forward(networks: Ensemble, novelty: NoveltyScore, *, reduced: bool) -> Forward:
    """Return uint8 images on the device to log probabilities and novelty, both float32."""

    def forward(images_BHW: torch.Tensor) -> Results:
        logs_BC, features_BF = run_networks(networks, images_BHW, reduced=reduced)
        with torch.inference_mode():
            return logs_BC, novelty(features_BF)

    return forward


def run_networks(networks: Ensemble, images_BHW: torch.Tensor, *, reduced: bool) -> Results:
    """Run an ensemble over uint8 images that lie where it does.

    Args:
        networks: In evaluation mode, in the `memory_format` of their device and precision.
        images_BHW: Radiographs, uint8.
        reduced: Run convolutions in bfloat16; see `Classifier`.

    Returns:
        Log probabilities, BC, and embeddings, BF, both float32.
    """
    device = images_BHW.device
    form = memory_format(device, reduced=reduced)
    images_B1HW = images_BHW[:, None].to(memory_format=form).float() / 255
    precision = reduced_precision(device, enabled=reduced)
    with torch.inference_mode(), precision, full_precision(device):
        logs_BC, features_BF = networks(images_B1HW)
    return logs_BC.float(), features_BF.float()


def _captured(work: Run, device: torch.device) -> Run:
    """Return the same work as a CUDA graph."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # libraries choose their algorithms before the capture
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()

    def replay() -> Results:
        graph.replay()
        return results

    return replay
