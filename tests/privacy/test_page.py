"""The page on privacy names what the code reads, and no more."""

import re

from implant_model.decode.attributes import WANTED
from implant_model.decode.dicom import ENCAPSULATED_NATIVE, JPEG_FAMILY, NATIVE, RLE
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "privacy.md").read_text()


def test_each_attribute_that_is_read_has_its_line() -> None:
    listed = re.findall(r"^\| \(([0-9A-F]{4}),([0-9A-F]{4})\) ", PAGE, re.MULTILINE)
    tags = [int(group + element, 16) for group, element in listed]
    assert sorted(tags) == sorted([*WANTED, 0x7FE00010])
    assert f"keeps the values of {len(WANTED)} attributes" in PAGE


def test_each_transfer_syntax_that_is_read_is_named() -> None:
    named = set(re.findall(r"1\.2\.840\.10008\.1\.2(?:\.\d+)*", PAGE))
    assert named == {*NATIVE, ENCAPSULATED_NATIVE, RLE, *JPEG_FAMILY}


def test_columns_are_those_of_the_table() -> None:
    columns = set(re.findall(r"column `(\w+)`", PAGE))
    assert columns >= {"patient", "study", "series", "instance", "accession", "modality"}
