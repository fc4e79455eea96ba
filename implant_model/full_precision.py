"""What float32 means on a GPU: cuDNN at work, its tensor cores' 10 bits not."""

import contextlib

import torch


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Convolutions in float32 as a CPU has it; those of autocast keep their precision.

    TF32, cuDNN's default for float32, keeps 10 bits: labels would differ between GPU and CPU.
    `torch.backends.cudnn.flags` turns off what it is not told to leave on, cuDNN itself, too, and
    without that a network takes 12 times as long. Its flags are those of the process, so where
    there is nothing to set they are left alone: several threads may be at work. Its `benchmark`,
    which chooses algorithms by trying them, took 47 s for ResNet-50 and gained nothing.

    Args:
        device: Where the convolutions run.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
