"""The bill of materials: whole, valid, and with no licence that nobody looked at."""

import importlib.util
import json
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.paths import ROOT

SITE = Path(pytest.__file__).parents[1]


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "deploy" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bill(sbom: ModuleType) -> dict[str, Any]:
    made: dict[str, Any] = sbom.make_bill()  # valid by the schema, or it raises
    return made


def test_bill_has_each_package_that_the_lock_installs_here(
    sbom: ModuleType, bill: dict[str, Any]
) -> None:
    there = {sbom.normal(part["name"]): part["version"] for part in bill["components"]}
    installed = {
        name: found.version
        for found in metadata.distributions(path=[str(SITE)])
        if (name := sbom.normal(found.metadata["Name"])) in sbom.locked_packages()
    }
    assert there == installed
    assert len(there) > 100
    assert {"torch", "pillow", "ray"} <= there.keys()


def test_bill_has_the_libraries_within_the_wheels(bill: dict[str, Any]) -> None:
    within = {
        (part["name"], inner["name"])
        for part in bill["components"]
        for inner in part.get("components", [])
    }
    assert {
        ("pyjpegls", "CharLS"),
        ("imagecodecs", "OpenJPEG"),
        ("opencv-python-headless", "FFmpeg"),
        ("pillow", "OpenJPEG"),
        ("deltalake", "deltalake-core"),
    } <= within


@pytest.mark.parametrize(("package", "file"), [("pyjpegls", "_CharLS"), ("isal", "isal/isal_zlib")])
def test_a_version_that_is_stated_is_the_librarys(
    package: str, file: str, sbom: ModuleType
) -> None:
    (binary,) = SITE.glob(f"{file}*.so")
    ((_, version, _),) = sbom.BUNDLED[package]
    assert version is None or version.encode() in binary.read_bytes()


def test_licences_are_accepted_and_others_are_named(sbom: ModuleType, bill: dict[str, Any]) -> None:
    assert sbom.licence_faults(bill) == []
    other = {"name": "x", "version": "1", "licenses": [{"license": {"id": "GPL-3.0-only"}}]}
    none: dict[str, Any] = {"name": "y", "version": "2"}
    inner = {
        "name": "z",
        "version": "3",
        "components": [other],
        "licenses": [{"expression": "MIT"}],
    }
    wrong = {"components": [other, none, inner]}
    assert sbom.licence_faults(wrong) == [
        *("x 1: GPL-3.0-only.", "y 2: no licence.", "x 1: GPL-3.0-only."),
    ]


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("LicenseRef-NVIDIA-Proprietary", True),
        ("AGPL-3.0-or-later", False),
        ("MIT License with more", False),
    ],
)
def test_expression(expression: str, accepted: bool, sbom: ModuleType) -> None:
    assert sbom.is_accepted(expression) is accepted


def test_command_writes_the_file(
    tmp_path: Path,
    sbom: ModuleType,
    bill: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sbom, "make_bill", lambda: bill)
    assert sbom.main(str(tmp_path / "sbom.json")) == 0
    assert json.loads((tmp_path / "sbom.json").read_text())["specVersion"] == "1.6"
    assert re.match(r"\d+ packages, [\d,]+ parts within them", capsys.readouterr().out)
