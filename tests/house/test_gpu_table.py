"""The table of the GPU's benchmark: shares turn by turn, and the cores that fill it."""

from benchmarks.gpu.table import report

MEASURED = {
    "machine": "A card",
    "tensors": {
        "full-size, float32": {
            "batch_size": 256,
            "alone": [1000.0, 1100.0, 900.0],
            "actor": [950.0, 1100.0, 810.0],
            "stage": [500.0, 550.0, 450.0],
        }
    },
    "job": {
        "a": {"kind": "dicom", "precision": "float32", "cores": 4, "images_s": 200.0, "busy": 0.25},
        "b": {
            "kind": "dicom",
            "precision": "float32",
            "cores": 32,
            "images_s": 980.0,
            "busy": 0.99,
        },
    },
}


def test_shares_and_cores() -> None:
    text = report(MEASURED)
    assert "| full-size, float32 | 256 | 1,000 | 950 | 0.95 (0.90 to 1.00) | 500 | 0.50 " in text
    assert "| dicom | float32 | 4 | 200 | 0.20 | 0.25 | 20 |" in text
    assert "| dicom | float32 | 32 | 980 | 0.98 | 0.99 | full |" in text


def test_a_part_that_was_not_measured_is_not_there() -> None:
    assert "The whole job" not in report({**MEASURED, "job": {}})
