"""The demo's registry: what is wrong in it is known, and the audit finds it; no Ray."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import Key
from jobs.samples.demonstration import MODEL
from jobs.samples.sample_archives import Truth
from jobs.samples.sample_audit import DemoAudit, audit_samples, describe, find_faults
from jobs.samples.sample_registry import COLUMNS, REGISTRIES_SHARE, make_registry
from tests.support.audit_samples import sure, write_output

KEY = hashlib.sha256(b"a test's key").hexdigest().encode()


@pytest.fixture
def truths() -> list[Truth]:
    """240 phantoms of the catalogue and 20 others, two of three as DICOM; and a text."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(260):
        implant = ORTHONET[number % 12]
        label, joint = (implant.name, implant.joint) if number < 240 else ("other-plate", "hip")
        ending = ("dcm", "dcm", "png")[number % 3]
        side = str(rng.choice(["L", "R"]))
        name = f"images/{number}.{ending}"
        found.append(Truth("clinic-a/1.tar", number, name, label, f"PH{number}", side, joint, None))
    return [*found, Truth("clinic-a/1.tar", 260, "README.txt", "", "", "", "", None)]


def test_a_known_share_is_wrong(tmp_path: Path, truths: list[Truth]) -> None:
    registry = make_registry(tmp_path / "registry.csv", truths)
    with registry.path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 261, "one of the 260 occurs twice"
    assert rows[-1] == rows[0]
    assert len(registry.wrong) == 12 == round(0.05 * 240)
    assert len(registry.wrong & registry.visible) == 8 == round(0.05 * 160)
    again = make_registry(tmp_path / "again.csv", truths)
    assert again.path.read_bytes() == registry.path.read_bytes()
    assert again.wrong == registry.wrong


def test_the_demos_audit_finds_what_is_wrong(tmp_path: Path, truths: list[Truth]) -> None:
    """The images show what they show, with a probability of 0.98 in every row."""
    done = audit_of(tmp_path, truths)
    assert find_faults(done) == []
    assert done.summary["model"] == load_package(str(MODEL), weights=False).id
    assert done.summary["verdicts"]["not_in_catalogue"] == 20
    assert done.summary["verdicts"]["no_image"] == 80
    assert done.summary["excluded"] == {"duplicate": 1}
    assert (done.finding.recall.value, done.finding.recall.count) == (1.0, 8)
    assert done.finding.precision.value == 1.0
    assert done.finding.true_rate == pytest.approx(8 / 160)
    said = describe(done)
    assert "12 were made wrong, 8 of them" in said
    assert "recall is 8 of 8 (100 %)" in said
    assert "lies in it" in said


def test_a_registry_that_is_nearly_right_is_covered_too(
    tmp_path: Path, truths: list[Truth]
) -> None:
    done = audit_of(tmp_path, truths, REGISTRIES_SHARE)
    assert find_faults(done) == []
    assert len(done.registry.wrong) == 2, "one with an image, one without"
    assert done.finding.true_rate == pytest.approx(1 / 160)
    assert done.summary["error_rate"]["low"] == 0.0
    assert done.is_covered


def audit_of(tmp_path: Path, truths: list[Truth], *wrong_share: float) -> DemoAudit:
    protector = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(KEY))
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    rows = [
        sure(
            truth.label if truth.label in ORTHONET.names else "stryker-exeter",
            0.98,
            patient=protector.identifier("patient", truth.patient),
            laterality=truth.side,
            body_part=truth.joint.upper(),
        )
        for truth in truths
        if truth.label and truth.is_dicom
    ]
    model = load_package(str(MODEL), weights=False).id
    output = write_output(tmp_path / "out", rows, model)
    return audit_samples(tmp_path, truths, output, str(tmp_path / "key"), str(MODEL), *wrong_share)
