"""The table of the benchmark: ratios turn by turn, medians, and what was set as the least."""

from benchmarks.rivals.speed_table import ratios, report

MEASURED = {
    "dicom": {
        "job": [80.0, 100.0, 90.0],
        "loader": [10.0, 10.0, 10.0],
        "tuned": [50.0, 50.0, 50.0],
        "ray": [9.0, 12.0, 9.0],
        "limit": [100.0, 100.0, 100.0],
        "decode_ms": [8.0, 8.0, 8.0],
        "model_ms": [2.0, 2.0, 2.0],
        "bfloat16": [110.0, 120.0, 100.0],
        "bfloat16_ms": [1.0, 1.0, 1.0],
    },
    "start": {"warm": [12.0, 14.0, 13.0], "cold": [30.0, 50.0, 31.0]},
}


def test_ratios_are_of_one_turn() -> None:
    assert ratios(MEASURED["dicom"], "loader") == [8.0, 10.0, 9.0]


def test_report_says_what_is_met_and_what_is_not() -> None:
    text = report(MEASURED)
    row = next(line for line in text.splitlines() if line.startswith("| DICOM 16 bit"))
    assert "9.00 (8.00 to 10.00); 11 NOT met | 1.80 (1.60 to 2.00); 2 NOT met" in row
    assert "8.89 (8.33 to 10.00); 15 NOT met" in row
    assert "0.90 (0.80 to 1.00); 0.8 met |  | 8.0 | 2.0 |" in row
    assert "| warm | 13 s (12 to 14) | 10 s |" in text
    assert "| DICOM 16 bit uncompressed | 324,000 | 9 |" in text


def test_bfloat16_has_the_same_rivals_and_a_limit_of_its_own() -> None:
    _, text = report(MEASURED).split("--precision bfloat16")
    row = next(line for line in text.splitlines() if line.startswith("| DICOM 16 bit"))
    assert row.startswith("| DICOM 16 bit uncompressed | 110 | 11.00 (10.00 to 12.00); 11 met |")
    assert "0.99 (0.90 to 1.08); 0.8 met |  | 8.0 | 1.0 |" in row
    alone = {"dicom": {**MEASURED["dicom"], "bfloat16": []}}
    assert "bfloat16" not in report(alone)


def test_daft_has_a_ratio_for_pictures_and_no_least() -> None:
    text = report({"small": {"job": [300.0], "daft": [100.0]}})
    assert "|  |  |  |  | 3.00 (3.00 to 3.00) |" in text


def test_what_was_not_measured_has_no_row() -> None:
    assert "RLE" not in report(MEASURED)
    assert "Sizing" not in report({"start": MEASURED["start"]})
