"""What convolutions are computed in, float32 as a CPU has it or bfloat16, and how images lie."""

import contextlib

import torch


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return convolutions in float32 as a CPU has it; those in bfloat16 stay so.

    TF32, cuDNN's default for float32, keeps 10 bits: labels would differ between GPU and CPU.
    `torch.backends.cudnn.flags` turns off what it is not asked to leave on, cuDNN itself, too, and
    without that a network takes 12 times as long. Its flags are those of the process, so where
    there is nothing to set they are left alone: several threads may be at work. Its `benchmark`,
    which chooses algorithms by trying them, took 47 s for ResNet-50 and gained nothing.

    Args:
        device: Where the convolutions run.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def reduced_precision(device: torch.device, *, enabled: bool) -> torch.autocast:
    """Return convolutions in bfloat16, where that is asked for.

    Without autocast's cache of weights, which is the process's, not the thread's: a pass uses each
    weight once, and a CUDA graph must not read what a cache has dropped since.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def memory_format(device: torch.device, *, reduced: bool) -> torch.memory_format:
    """Return how weights and images of an ensemble lie, for convolutions to be fast.

    On an H100, full-size networks pass 480 images a second in float32 channels first, 403 channels
    last, and 1,329 and 1,589 in bfloat16; the sample package's are as far apart on an H200. CPUs
    are faster channels last.

    Args:
        device: Where the convolutions run.
        reduced: They run in bfloat16.
    """
    channels_first = device.type == "cuda" and not reduced
    return torch.contiguous_format if channels_first else torch.channels_last
