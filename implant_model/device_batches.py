"""Networks over images on a GPU: fixed batches, copies that overlap the compute.

Images cross to the device as uint8, a quarter of the bytes of float32, out of pinned memory, while
the batch before is computed; results come back the same way. One batch size means one shape, which
a CUDA graph replays without Python between its kernels. On a CPU the same code runs without streams
and graphs, which is how it is tested where there is no GPU.

Letters: N images, B batch, C classes, F features, H height, W width.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from implant_model.networks import Ensemble

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
    """Runs an ensemble over images in batches of one size.

    Args:
        networks: In evaluation mode, on `device`, channels last.
        device: Where the networks are.
        size_px: Side of the images.
        batch_size: Images of a batch; None finds the largest that fits the memory.
        reduced: Run convolutions in bfloat16; see `Classifier`.
    """

    def __init__(
        self,
        networks: Ensemble,
        device: torch.device,
        size_px: int,
        batch_size: int | None = None,
        *,
        reduced: bool = False,
    ) -> None:
        self.device = device
        self._on_gpu = device.type == "cuda"
        self._forward = _forward(networks, device, reduced=reduced)
        self.batch_size = batch_size or fit_batch(self._forward, device, size_px)
        shape = (self.batch_size, size_px, size_px)
        self._input = torch.zeros(shape, dtype=torch.uint8, device=device)
        if self._on_gpu:
            self._forward = _captured(self._forward, self._input)
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        logs_BC, features_BF = self._forward(self._input)
        self._slots = [_Slot.like(self._input, logs_BC, features_BF) for _ in range(SLOTS)]

    def run(self, images_NHW: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
        """Returns log probabilities, NC, and embeddings, NF, of the images; N is at least 1."""
        found: list[tuple[Array, Array]] = []
        starts = range(0, len(images_NHW), self.batch_size)
        for turn, start in enumerate(starts):
            slot = self._slots[turn % SLOTS]
            if turn >= SLOTS:
                found.append(slot.take())
            self._submit(slot, images_NHW[start : start + self.batch_size])
        for turn in range(max(0, len(starts) - SLOTS), len(starts)):
            found.append(self._slots[turn % SLOTS].take())
        logs, features = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return logs[: len(images_NHW)], features[: len(images_NHW)]

    def repeat(self) -> None:
        """Runs the batch that lies on the device once more: the networks alone, for benchmarks."""
        self._forward(self._input)

    def _submit(self, slot: "_Slot", part_NHW: npt.NDArray[np.uint8]) -> None:
        """Puts a batch under way; a last one that is not full keeps the shape of the others."""
        slot.images_BHW[: len(part_NHW)] = torch.from_numpy(np.array(part_NHW))
        slot.images_BHW[len(part_NHW) :] = 0
        with self._copying():
            on_device = slot.images_BHW.to(self.device, non_blocking=True)
        if self._on_gpu:
            torch.cuda.current_stream(self.device).wait_stream(self._copies)
            on_device.record_stream(torch.cuda.current_stream(self.device))
        self._input.copy_(on_device)
        logs_BC, features_BF = self._forward(self._input)
        slot.logs_BC.copy_(logs_BC, non_blocking=True)
        slot.features_BF.copy_(features_BF, non_blocking=True)
        if slot.done is not None:
            slot.done.record()

    def _copying(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._copies) if self._on_gpu else contextlib.nullcontext()


@dataclass
class _Slot:
    """Host memory of one batch under way; pinned where there is a GPU, so that copies overlap."""

    images_BHW: torch.Tensor
    logs_BC: torch.Tensor
    features_BF: torch.Tensor
    done: "torch.cuda.Event | None"

    @classmethod
    def like(cls, *tensors: torch.Tensor) -> "_Slot":
        pin = tensors[0].is_cuda
        images, logs, features = (
            torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=pin) for tensor in tensors
        )
        done = torch.cuda.Event() if pin else None  # type: ignore[no-untyped-call]
        return cls(images, logs, features, done)

    def take(self) -> tuple[Array, Array]:
        """Waits for the batch and returns copies of its results."""
        if self.done is not None:
            self.done.synchronize()
        return self.logs_BC.numpy().copy(), self.features_BF.numpy().copy()


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


def _forward(networks: Ensemble, device: torch.device, *, reduced: bool) -> Forward:
    """uint8 images on the device to float32 results; TF32 is off, see `classifier`."""

    def forward(images_BHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images_B1HW = images_BHW[:, None].to(memory_format=torch.channels_last).float() / 255
        precision = torch.autocast(device.type, torch.bfloat16, enabled=reduced)
        with torch.inference_mode(), precision, torch.backends.cudnn.flags(allow_tf32=False):
            logs_BC, features_BF = networks(images_B1HW)
        return logs_BC.float(), features_BF.float()

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
