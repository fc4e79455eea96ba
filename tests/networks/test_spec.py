from typing import Any

import pytest

from implant_model.errors import PackageError, UsageError
from implant_model.networks.spec import NetworkSpec, check_specs

SEGMENTER = NetworkSpec("s.safetensors", "segmenter", "unet", width=8, reduction=2)
ONE = NetworkSpec("a.safetensors", "classifier", "resnet18")
TWO = NetworkSpec("b.safetensors", "classifier", "densenet121", channels=2, mean=0.5, std=0.25)


@pytest.mark.parametrize("spec", [SEGMENTER, ONE, TWO])
def test_all_fields_survive_json(spec: NetworkSpec) -> None:
    assert NetworkSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "judge"}, "its role is 'judge'"),
        ({"architecture": "regnet_y_128gf"}, "a classifier 'regnet_y_128gf' is not known"),
        ({"architecture": "unet"}, "a classifier 'unet' is not known"),
        ({"role": "segmenter"}, "a segmenter 'resnet18' is not known"),
        ({"channels": 3}, "it has 3 input channels"),
        ({"width": 8}, "for a segmenter only"),
        ({"reduction": 2}, "for a segmenter only"),
        ({"mean": 1000.0}, "is senseless for a picture"),
        ({"std": 0.0}, "is senseless for a picture"),
        ({"std": float("nan")}, "is senseless for a picture"),
        ({"role": "segmenter", "architecture": "unet"}, "its width is None"),
        ({"role": "segmenter", "architecture": "unet", "width": 4096}, "its width is 4096"),
        ({"role": "segmenter", "architecture": "unet", "width": 8, "channels": 2}, "1 input chan"),
        ({"role": "segmenter", "architecture": "unet", "width": 8, "reduction": 0}, "reduction is"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"file": "a.safetensors", "role": "classifier", "architecture": "resnet18", **changes}
    with pytest.raises(UsageError, match=f"'a.safetensors' cannot be built: .*{message}"):
        NetworkSpec(**values)


@pytest.mark.parametrize("field", list(ONE.to_json()))
@pytest.mark.parametrize("value", [[], {}, "x" * 5000, -50, 1e9, True])
def test_wrong_json_is_refused(field: str, value: object) -> None:
    with pytest.raises(PackageError, match=f"network: {field} is "):
        NetworkSpec.from_json({**ONE.to_json(), field: value})


def test_missing_and_unknown_fields_are_refused() -> None:
    with pytest.raises(PackageError, match="lacks the field 'std'"):
        NetworkSpec.from_json({k: v for k, v in ONE.to_json().items() if k != "std"})
    with pytest.raises(PackageError, match="unknown fields"):
        NetworkSpec.from_json({**ONE.to_json(), "script": "x"})


def test_networks_must_make_an_ensemble() -> None:
    check_specs([ONE])
    check_specs([SEGMENTER, ONE, TWO])
    with pytest.raises(UsageError, match="has no classifier"):
        check_specs([SEGMENTER])
    with pytest.raises(UsageError, match="has 2 segmenters"):
        check_specs([SEGMENTER, SEGMENTER, ONE])
    with pytest.raises(UsageError, match="there is no segmenter to cut"):
        check_specs([ONE, TWO])
