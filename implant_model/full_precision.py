"""What float32 means on a GPU: cuDNN at work, its tensor cores' 10 bits not."""

import contextlib

import torch


def full_precision(
    device: torch.device, *, benchmark: bool = False
) -> contextlib.AbstractContextManager[object]:
    """Convolutions in float32 as a CPU has it; those of autocast keep their precision.

    TF32, cuDNN's default for float32, keeps 10 bits: labels would differ between GPU and CPU.
    `torch.backends.cudnn.flags` turns off what it is not told to leave on, cuDNN itself, too, and
    without that a network takes 12 times as long. Its flags are those of the process, so where
    there is nothing to set they are left alone: several threads may be at work.

    Args:
        device: Where the convolutions run.
        benchmark: Let cuDNN choose its algorithms by trying them, once for each shape.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False)
