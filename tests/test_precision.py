"""Flags can be set where there is no GPU; what they do is measured by `benchmarks.gpu.run`."""

import torch

from implant_model.precision import full_precision


def test_a_gpu_keeps_cudnn_and_loses_tf32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision(torch.device("cuda")):
        assert torch.backends.cudnn.enabled
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32 is before


def test_a_cpu_leaves_the_flags_of_the_process_alone() -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 is before
