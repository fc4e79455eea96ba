"""Flags can be set where there is no GPU; what they do is measured by `benchmarks.gpu.run`."""

import pytest
import torch

from implant_model.full_precision import full_precision


@pytest.mark.parametrize("benchmark", [False, True])
def test_a_gpu_keeps_cudnn_and_loses_tf32(benchmark: bool) -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision(torch.device("cuda"), benchmark=benchmark):
        assert torch.backends.cudnn.enabled
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark is benchmark
    assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32 is before
    assert not torch.backends.cudnn.benchmark


def test_a_cpu_leaves_the_flags_of_the_process_alone() -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision(torch.device("cpu"), benchmark=True):
        assert torch.backends.cudnn.allow_tf32 is before
        assert not torch.backends.cudnn.benchmark
