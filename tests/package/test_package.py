import hashlib
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from implant_model import storage
from implant_model.errors import PackageError, UsageError
from implant_model.novelty import fit_novelty
from implant_model.package.load import check_weights, load_package
from implant_model.package.manifest import Calibration, Manifest
from tests.support.object_store import ObjectStore
from tests.support.package_samples import CARD, NAMES, SIZE_PX, SPECS, save_sample
from tests.support.paths import ROOT

Document = dict[str, Any]
FILES = (*(spec.file for spec in SPECS), "novelty.safetensors", "MODEL_CARD.md")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "sample"
    save_sample(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def manifest(folder: Path) -> Document:
    document: Document = json.loads((folder / "package.json").read_text())
    return document


def write(folder: Path, document: object) -> None:
    (folder / "package.json").write_text(json.dumps(document))


def replace(folder: Path, name: str, data: bytes) -> None:
    """Changes a file and its hash with it, as one would who makes a hostile package."""
    (folder / name).write_bytes(data)
    document = manifest(folder)
    digest = hashlib.sha256(data).hexdigest()
    document["files"][name] = {"bytes": len(data), "sha256": digest}
    write(folder, document)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        load_package(str(folder))
    assert str(caught.value).endswith(".")
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 2500


def test_a_package_holds_what_was_saved(whole: Path) -> None:
    package = load_package(str(whole))
    assert sorted(path.name for path in whole.iterdir()) == sorted(["package.json", *FILES])
    assert (package.name, package.networks) == ("sample", SPECS)
    assert package.catalogue.names == NAMES
    assert package.preprocessing.size_px == SIZE_PX
    assert (package.temperature, package.conformal_quantile, package.coverage) == (1.5, 0.7, 0.9)
    assert (package.novelty.threshold, package.novelty.known_pass_rate) == (12.5, 0.95)
    assert package.metrics == {"test": {"data": "random pictures", "accuracy": 0.31}}
    assert package.card == CARD
    assert package.hash == hashlib.sha256((whole / "package.json").read_bytes()).hexdigest()
    assert package.id == f"sample@{package.hash[:12]}"
    assert sorted(package.files) == sorted(FILES)


def test_each_implant_may_have_a_quantile_of_its_own(folder: Path, tmp_path: Path) -> None:
    assert load_package(str(folder)).quantiles_C.tolist() == [0.7] * len(NAMES)
    document = manifest(folder)
    document["calibration"]["class_quantiles"] = [0.5 + n / 100 for n in range(len(NAMES))]
    package = read(document)
    assert package.calibration.class_quantiles == tuple(document["calibration"]["class_quantiles"])
    document["calibration"]["class_quantiles"].pop()
    with pytest.raises(UsageError, match=f"the catalogue has {len(NAMES)}"):
        read(document)
    document["calibration"]["class_quantiles"] = [0.5] * (len(NAMES) - 1) + [1.5]
    with pytest.raises(PackageError, match="a number from 0 to 1"):
        read(document)


def test_others_may_read_a_package(whole: Path) -> None:
    assert whole.stat().st_mode & 0o755 == 0o755


def test_a_package_in_object_storage_is_the_same(
    whole: Path, bucket: str, object_store: ObjectStore
) -> None:
    for path in whole.iterdir():
        storage.put_if_absent(f"s3://{bucket}/models/one/{path.name}", path.read_bytes())
    assert load_package(f"s3://{bucket}/models/one") == load_package(whole.as_uri())
    absent = (
        f"nothing at the model package s3://{bucket}/models/tow; nearest is s3://{bucket}/models/"
    )
    with pytest.raises(PackageError, match=absent):
        load_package(f"s3://{bucket}/models/tow")
    file = f"s3://{bucket}/models/one/package.json"
    with pytest.raises(PackageError, match=f"{file} cannot be used: it is a file; a folder"):
        load_package(file)
    with pytest.raises(PackageError, match=r"The bucket of the model package .* is not there"):
        load_package("s3://no-such-bucket-here/models/two")


def test_a_package_travels_to_other_processes(whole: Path) -> None:
    package = load_package(str(whole))
    assert pickle.loads(pickle.dumps(package)) == package  # our own, from this process
    assert "safetensors" not in repr(package)


def test_carrying_a_package_does_not_load_torch() -> None:
    program = "import sys, implant_model.package.save; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_same_content_has_the_same_id_and_other_content_another(tmp_path: Path) -> None:
    ids = [
        save_sample(tmp_path / "a").id,
        save_sample(tmp_path / "b").id,
        save_sample(tmp_path / "c", card=CARD + "more").id,
        save_sample(tmp_path / "d", calibration=Calibration(1.6, 0.7, 0.9)).id,
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["bit", "cut", "grown", "empty", "absent", "folder"])
def test_a_file_that_was_changed_is_refused_by_name(folder: Path, name: str, how: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "absent":
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes(
            {"bit": changed, "cut": data[:-1], "grown": data + b"x", "empty": b""}[how]
        )
    message = "has no" if how in ("absent", "folder") else "size or SHA-256 differs"
    with pytest.raises(PackageError, match=message) as caught:
        load_package(str(folder))
    assert name in str(caught.value)


def test_files_of_two_networks_cannot_change_places(folder: Path) -> None:
    one, two = (folder / spec.file for spec in SPECS[1:])
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)
    refused(folder, "size or SHA-256 differs")


def test_a_file_that_is_not_listed_is_not_looked_at(whole: Path, folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "evil.pkl").write_bytes(b"x")
    assert load_package(str(folder)) == load_package(str(whole))


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """All places of a document, objects and lists themselves included."""
    if path:
        yield path
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def place(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


FREE = ("metrics", "provenance")  # any JSON, but objects


def read(document: Document) -> Manifest:
    return Manifest.from_bytes(json.dumps(document).encode())


WRONG: tuple[Any, ...] = (
    None, True, -1e13, 10**30, "", "\u0000", [], {}, [[]], "x" * 10_000,
)  # fmt: skip


def test_every_field_counts(whole: Path, tmp_path: Path) -> None:
    """Whatever is missing is refused, and whatever is changed is refused or another model."""
    original = manifest(whole)
    before = read(original)
    checked = 0
    for path in leaves(original):
        if path[0] in FREE and len(path) > 1:
            continue
        missing = manifest(whole)
        del place(missing, path)[path[-1]]
        if isinstance(path[-1], str) and path[-1] not in ("width",):
            with pytest.raises(UsageError):
                read(missing)
        for value in WRONG:
            changed = manifest(whole)
            place(changed, path)[path[-1]] = value
            if (path[-1], value) in (("width", None), ("trim_borders", True)):
                continue
            if path[-1] in FREE and value == {}:
                continue
            with pytest.raises(UsageError):
                pytest.fail(f"{path} = {value!r} was read: {read(changed).name}")
            checked += 1
    assert before.to_bytes() == (whole / "package.json").read_bytes()
    assert checked > 400


def test_unknown_fields_are_refused_everywhere(whole: Path) -> None:
    original = manifest(whole)
    objects = [()] + [p for p in leaves(original) if isinstance(place(original, p)[p[-1]], dict)]
    for path in objects:
        if path and path[0] in FREE:
            continue
        changed = manifest(whole)
        inner = place(changed, path)[path[-1]] if path else changed
        inner["pickle"] = {"bytes": 1, "sha256": "0" * 64}
        with pytest.raises(UsageError, match="pickle"):
            Manifest.from_bytes(json.dumps(changed).encode())


@pytest.mark.parametrize("version", [0, 3, "1", 1.5, None, True, [1]])
def test_another_format_version_is_refused(folder: Path, version: object) -> None:
    document = manifest(folder)
    document["format_version"] = version
    write(folder, document)
    refused(folder, "format version is .*; this software reads versions 1 and 2")


@pytest.mark.parametrize("document", [[], 1, "x", None, {}, {"format": "onnx"}])
def test_another_document_is_refused(folder: Path, document: object) -> None:
    write(folder, document)
    refused(folder, "an object is expected|does not say that its format is 'implant-package'")


BAD_NAMES = [
    "../whole.safetensors",
    "/etc/passwd",
    "/tmp/x.safetensors",
    "a/b.safetensors",
    "a\\b.safetensors",
    "C:x.safetensors",
    "..",
    ".safetensors",
    ".hidden.safetensors",
    "x.safetensors/..",
    "x.pt",
    "x.pkl",
    "x.safetensors\n",
    "x\u0000.safetensors",
    "%2e%2e%2fx.safetensors",
    "s3://other/x.safetensors",
    "file:///x.safetensors",
    "\u202ex.safetensors",
    "x" * 300 + ".safetensors",
    "package.json",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("where", ["networks", "novelty"])
def test_a_file_name_names_nothing_outside(folder: Path, name: str, where: str) -> None:
    document = manifest(folder)
    entry = document["networks"][1] if where == "networks" else document["novelty"]
    document["files"][name] = document["files"].pop(entry["file"])
    entry["file"] = name
    write(folder, document)
    refused(folder, "The file name .* is not accepted")


def test_a_listed_file_that_nothing_uses_is_refused(folder: Path) -> None:
    document = manifest(folder)
    document["files"]["../../secret"] = {"bytes": 1, "sha256": "0" * 64}
    write(folder, document)
    refused(folder, r"'\.\./\.\./secret' is missing or too many")


@pytest.mark.parametrize("name", ["whole.safetensors", "WHOLE.safetensors", "novelty.safetensors"])
def test_a_file_serves_once(folder: Path, name: str) -> None:
    document = manifest(folder)
    document["networks"][2]["file"] = name
    write(folder, document)
    refused(folder, "A file is named twice")


def test_a_name_twice_in_the_json_is_refused(folder: Path) -> None:
    path = folder / "package.json"
    path.write_text(path.read_text().replace('"name": "sample",', '"name": "a", "name": "sample",'))
    refused(folder, "'name' occurs twice")


def test_absurd_sizes_are_refused_before_anything_is_read(folder: Path) -> None:
    document = manifest(folder)
    document["files"]["whole.safetensors"]["bytes"] = 1 << 31
    write(folder, document)
    refused(folder, "bytes is 2147483648; a whole number from 0 to 1073741824")
    for name in FILES[:-1]:
        document["files"][name]["bytes"] = 1 << 29
    write(folder, document)
    refused(folder, "more than 1073741824 bytes together")


def test_a_huge_manifest_is_refused_unread(folder: Path) -> None:
    os.truncate(folder / "package.json", 1 << 40)  # sparse: a terabyte on paper
    refused(folder, r"package.json has 1099511627776 bytes; at most 16777216")


def test_a_huge_file_is_refused_unread(folder: Path) -> None:
    os.truncate(folder / "whole.safetensors", 1 << 40)
    refused(folder, "whole.safetensors is not the file that package.json lists")


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a b", "a@b", ".x", "a\n", "x" * 65, "m\u00fcller", "a=b"]
)
def test_a_name_fits_a_partition(folder: Path, name: str) -> None:
    document = manifest(folder)
    document["name"] = name
    write(folder, document)
    refused(folder, "is not accepted|a text of 1 to")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    tensors = safetensors.torch.load((folder / "both.safetensors").read_bytes())
    tensors["head.weight"][0, 0] = value
    replace(folder, "both.safetensors", safetensors.torch.save(tensors))
    refused(folder, "both.safetensors: head.weight holds a NaN or an infinity")


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_file_of_another_kind_is_refused(folder: Path, name: str) -> None:
    replace(folder, name, b"\x80\x04K\x01.")
    refused(folder, "not .*safetensors")


def test_weights_can_be_checked_later(folder: Path) -> None:
    replace(folder, "both.safetensors", b"x")
    package = load_package(str(folder), weights=False)
    with pytest.raises(PackageError, match=f"{package.id} cannot be used: both.safetensors is not"):
        check_weights(package)


def test_a_catalogue_that_the_networks_do_not_know_is_refused(folder: Path) -> None:
    document = manifest(folder)
    document["implants"].append({"name": "new", "joint": "hip", "manufacturer": "x"})
    write(folder, document)
    refused(folder, r"head.(weight|bias) has the shape")


def test_a_novelty_reference_of_other_networks_is_refused(folder: Path) -> None:
    other = fit_novelty(np.random.default_rng(0).random((9, 10)), np.arange(9) % 3, 3)
    replace(folder, "novelty.safetensors", other.to_bytes())
    refused(folder, "is for embeddings of 10 values; the classifiers give 2048")


def test_what_is_not_a_package_is_said_in_a_sentence(tmp_path: Path, whole: Path) -> None:
    refused(tmp_path, "is empty; a folder or prefix that holds package.json")
    near = f"nearest is {tmp_path.as_uri()}"
    refused(tmp_path / "absent", f"There is nothing at the model package .*absent; {near}")
    refused(whole / "package.json", "it is a file; a folder or prefix that holds package.json")
    (tmp_path / "package.json").mkdir()
    (tmp_path / "package.json" / "labels.csv").touch()
    refused(tmp_path, "has no package.json")


@given(data=st.binary(max_size=300))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_manifest_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "package.json").write_bytes(data)
    refused(tmp_path, "package.json")


@given(cut=st.integers(0, 3000), byte=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_wrong_byte_is_refused_or_another_model(whole: Path, cut: int, byte: int) -> None:
    data = bytearray((whole / "package.json").read_bytes())
    data[cut % len(data)] = byte
    try:
        again = Manifest.from_bytes(bytes(data))
    except UsageError:
        return
    assert isinstance(again, Manifest)


def test_saving_never_overwrites(tmp_path: Path) -> None:
    first = save_sample(tmp_path / "p")
    assert save_sample(tmp_path / "p") == first  # the very same is no conflict
    with pytest.raises(UsageError, match="already holds something else"):
        save_sample(tmp_path / "p", card=CARD + "x")
    assert load_package(str(tmp_path / "p")) == first
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds something else"):
        save_sample(tmp_path / "q")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "'a/b' is not accepted"),
        ({"card": "# Model"}, "must say that the model is not a medical device"),
        ({"calibration": Calibration(0, 0.5, 0.9)}, "temperature is 0"),
        ({"novelty_threshold": math.nan}, "not JSON compliant: nan"),
        ({"metrics": {"accuracy": math.inf}}, "cannot hold a value of the model: .*inf"),
        ({"provenance": {"at": object()}}, "cannot hold a value of the model: .*serializable"),
        ({"networks": {SPECS[1]: b"x"}}, "whole.safetensors is not a readable"),
        ({"networks": {}}, "has no classifier|no classifier"),
    ],
)
def test_what_could_not_be_read_back_is_not_saved(
    tmp_path: Path, changes: Document, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        save_sample(tmp_path / "p", **changes)
    assert list(tmp_path.iterdir()) == []
