"""A package's networks over images on a GPU: fixed batches, copies that overlap the compute.

Images cross to the device as uint8, a quarter of the bytes of float32, out of pinned memory, while
the batch before is computed; only probabilities and novelty come back, since embeddings are ten
times the bytes. One batch size means one shape, which a CUDA graph replays without Python between
its kernels. On a CPU the same code runs without streams and graphs, which is how it is tested where
there is no GPU.

Letters: N images, B batch, C classes, H height, W width.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from implant_model.full_precision import full_precision
from implant_model.networks import Ensemble
from implant_model.novelty_on_device import NoveltyScore

SLOTS: Final = 3  # one batch on its way in, one computed, one on its way out
BATCH_SIZES: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)
CPU_BATCH_SIZE: Final = 16
"""Larger ones gain 4 % at 32, leave the cache behind that (2.2, 2.5 and 3.5 ms an image at 32, 64,
128), and take a classifier from 0.6 to 0.8 GB."""
MEMORY_SHARE: Final = 0.5
"""Of the device's free memory that a batch may take: actors may share a GPU."""
Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Array = npt.NDArray[np.float32]


class DeviceBatches:
    """Runs an ensemble, and the novelty of what it sees, over images in batches of one size.

    Several threads may call it at a time: while one waits for its results or looks at them, the
    device has the batch of another.

    Args:
        networks: In evaluation mode, on `device`, channels last.
        novelty: On `device`.
        device: Where the networks are.
        size_px: Side of the images.
        batch_size: Images of a batch; None finds the largest that fits the memory.
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
        self._forward = _forward(networks, novelty, device, reduced=reduced)
        self.batch_size = batch_size or fit_batch(self._forward, device, size_px)
        shape = (self.batch_size, size_px, size_px)
        self._input = torch.zeros(shape, dtype=torch.uint8, device=device)
        if self._on_gpu:
            self._forward = _captured(self._forward, self._input)
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        results = self._forward(self._input)
        self._idle: queue.Queue[_Slot] = queue.Queue()
        for _ in range(SLOTS):
            self._idle.put(_Slot.like(self._input, *results))
        self._turn = threading.Lock()

    def run(self, images_NHW: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
        """Returns log probabilities, NC, and novelty scores, N, of the images; N is at least 1."""
        found: list[tuple[Array, Array]] = []
        with self._slots() as under_way:
            for start in range(0, len(images_NHW), self.batch_size):
                slot = self._next_slot(under_way, found)
                under_way.append(slot)
                slot.fill(images_NHW[start : start + self.batch_size])
                self._submit(slot)
            found.extend(slot.take() for slot in under_way)
        logs, novelty = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return logs[: len(images_NHW)], novelty[: len(images_NHW)]

    def repeat(self) -> None:
        """Runs the batch that lies on the device once more: the networks alone, for benchmarks."""
        self._forward(self._input)

    @contextlib.contextmanager
    def _slots(self) -> "Iterator[deque[_Slot]]":
        """A caller's batches under way; their slots are idle again however the call ends."""
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
        """Puts a batch under way, between those of other threads."""
        with self._turn, self._here():
            with self._copying():
                slot.on_device_BHW.copy_(slot.images_BHW, non_blocking=True)
            if self._on_gpu:
                torch.cuda.current_stream(self.device).wait_stream(self._copies)
            self._input.copy_(slot.on_device_BHW)
            logs_BC, novelty_B = self._forward(self._input)
            slot.logs_BC.copy_(logs_BC, non_blocking=True)
            slot.novelty_B.copy_(novelty_B, non_blocking=True)
            if slot.done is not None:
                slot.done.record()

    def _here(self) -> contextlib.AbstractContextManager[object]:
        """Makes the device the current one of this thread: graphs replay on that one's stream."""
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

    @classmethod
    def like(cls, images: torch.Tensor, logs: torch.Tensor, novelty: torch.Tensor) -> "_Slot":
        """A slot for a batch of images on a device, and for its results."""
        pin = images.is_cuda
        host = [
            torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=pin)
            for tensor in (images, logs, novelty)
        ]
        done = torch.cuda.Event() if pin else None  # type: ignore[no-untyped-call]
        return cls(host[0], torch.zeros_like(images), host[1], host[2], done)

    def fill(self, part_NHW: npt.NDArray[np.uint8]) -> None:
        """Takes the images of a batch; one that is not full keeps the shape of the others."""
        images_BHW = self.images_BHW.numpy()
        images_BHW[: len(part_NHW)] = part_NHW
        images_BHW[len(part_NHW) :] = 0

    def take(self) -> tuple[Array, Array]:
        """Waits for the batch and returns copies of its results."""
        if self.done is not None:
            self.done.synchronize()
        return self.logs_BC.numpy().copy(), self.novelty_B.numpy().copy()


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


def _forward(
    networks: Ensemble, novelty: NoveltyScore, device: torch.device, *, reduced: bool
) -> Forward:
    """uint8 images on the device to float32 results."""

    def forward(images_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images_B1HW = images_BHW[:, None].to(memory_format=torch.channels_last).float() / 255
        precision = torch.autocast(device.type, torch.bfloat16, enabled=reduced)
        with torch.inference_mode(), full_precision(device, benchmark=True):
            with precision:
                logs_BC, features_BF = networks(images_B1HW)
            return logs_BC.float(), novelty(features_BF)

    return forward


def _captured(forward: Forward, images_BHW: torch.Tensor) -> Forward:
    """The same work as a CUDA graph that reads `images_BHW`."""
    side = torch.cuda.Stream(images_BHW.device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(images_BHW.device))
    with torch.cuda.stream(side):  # libraries choose their algorithms before the capture
        for _ in range(3):
            forward(images_BHW)
    torch.cuda.current_stream(images_BHW.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = forward(images_BHW)

    def replay(_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        graph.replay()
        return results

    return replay
