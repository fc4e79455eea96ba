"""Flags and formats can be asked for where there is no GPU; `benchmarks.gpu.run` measures them."""

import pytest
import torch

from implant_model.networks.precision import full_precision, memory_format


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


@pytest.mark.parametrize(
    ("device", "reduced", "form"),
    [
        ("cpu", False, torch.channels_last),
        ("cpu", True, torch.channels_last),
        ("cuda", False, torch.contiguous_format),
        ("cuda", True, torch.channels_last),
    ],
)
def test_images_lie_as_the_device_is_fast_with(
    device: str, reduced: bool, form: torch.memory_format
) -> None:
    assert memory_format(torch.device(device), reduced=reduced) is form
