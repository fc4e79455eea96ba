"""The main job as its users run it: real commands, a real Ray cluster, a real S3 API over HTTP."""

import io
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import deltalake
import duckdb
import numpy as np
import polars as pl
import pydicom.data
import pytest

from implant_model import storage
from implant_model.classifier import Classifier
from implant_model.decode.prepare import picture_of
from implant_model.errors import Outcome, Reason, UsageError
from implant_model.limits import Limits
from implant_model.networks.engine import CPUINFO, has_bfloat16
from implant_model.networks.spec import Precision
from implant_model.package.load import load_package
from implant_model.privacy import IdentifierPolicy
from jobs.classify import main
from jobs.tables.loose_names import LooseNames
from jobs.tables.schema import PREDICTION_ROW
from tests.support.archive_samples import tar_of, zip_of
from tests.support.object_store import ObjectStore
from tests.support.paths import ROOT
from tests.support.pictures import noise_png
from tests.support.ray_cluster import RayCluster, without_cluster

SHOULDER = str(ROOT / "models" / "shoulder")


def read(store: ObjectStore, uri: str) -> pl.DataFrame:
    """A table as Polars reads it."""
    options = {**store.environment, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    return pl.read_delta(uri, storage_options=options)


def put(store: ObjectStore, bucket: str, objects: dict[str, bytes]) -> None:
    for key, data in objects.items():
        store.client().put_object(Bucket=bucket, Key=key, Body=data)


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.real_data
def test_real_radiographs_in_a_bucket(
    object_store: ObjectStore,
    bucket: str,
    ray_cluster: RayCluster,
    shoulder_radiographs: dict[str, bytes],
) -> None:
    names = list(shoulder_radiographs)[::6]
    parts = [{name: shoulder_radiographs[name] for name in names[i::4]} for i in range(4)]
    put(
        object_store,
        bucket,
        {
            "in/a.tar": tar_of(parts[0]),
            "in/b.tar": tar_of(parts[1]),
            "in/c.tar.gz": tar_of(parts[2], mode="w:gz"),
            "in/deep/d.zip": zip_of(parts[3]),
        },
    )
    output = f"s3://{bucket}/out"
    command = ["jobs.classify", f"s3://{bucket}/in", "--output", output, "--model", SHOULDER]
    command += ["--identifiers", "keep"]

    first = ray_cluster.run(*command)
    assert first.returncode == 0, first.stderr
    predictions = read(object_store, f"{output}/predictions")
    archives = read(object_store, f"{output}/archives")
    assert predictions.columns == [*PREDICTION_ROW.names, "model"]
    assert sorted(predictions["member"]) == names
    assert set(archives["archive"]) == {"a.tar", "b.tar", "c.tar.gz", "deep/d.zip"}
    assert set(archives["status"]) == {"complete"}
    assert set(predictions["outcome"]) <= {"identified", "ambiguous", "unknown"}
    right = sum(
        member.split(".")[0].lower() in implant.lower()
        for member, implant in predictions[["member", "implant"]].iter_rows()
    )
    assert right / len(names) > 0.55  # a majority guess is 0.49; trained on these very images

    again = ray_cluster.run(*command)
    assert again.returncode == 0
    assert "Nothing to do." in again.stdout
    put(object_store, bucket, {"in/e.tar": tar_of(dict(list(parts[0].items())[:3]))})
    fifth = ray_cluster.run(*command, "--dry-run")
    assert fifth.returncode == 0
    assert "To do: 1 archives" in fifth.stdout

    assert ray_cluster.run("jobs.verify", output).returncode == 0
    flip_a_byte(object_store, bucket, path := archives["units"][0][0]["path"])
    found = ray_cluster.run("jobs.verify", output)
    assert found.returncode == 3
    assert path in found.stdout


IN_ROUNDS = """
import sys
from jobs.pipeline import plan
plan.ROUND = 2
from jobs.classify import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_very_many_archives_are_read_in_rounds(
    ray_cluster: RayCluster, small_package: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar_of({"1.png": noise_png(9)})[:700])
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_bytes(noise_png(number))
    call = [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(small_package)]
    done = subprocess.run(
        [sys.executable, "-c", IN_ROUNDS, *call],
        cwd=ROOT,
        env=ray_cluster.driver_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr  # of the round that has the archive which is cut
    assert "To do: 5 archives" in done.stdout
    assert "They are read in 3 rounds, a run each." in done.stdout
    assert done.stdout.count(" images in 2 archives: ") == 2
    assert done.stdout.count(" images in 1 archives: ") == 1
    rows = pl.read_delta(str(tmp_path / "out" / "predictions"))
    assert rows.group_by("archive").len()["len"].to_list() == [1] * 5
    runs = pl.read_delta(str(tmp_path / "out" / "archives"))["run"]
    assert sorted(Counter(runs).values()) == [1, 2, 2]
    assert ray_cluster.run("jobs.verify", str(tmp_path / "out")).returncode == 0


def flip_a_byte(store: ObjectStore, bucket: str, path: str) -> None:
    key = f"out/predictions/{path}"
    data = bytearray(store.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    put(store, bucket, {key: bytes(data)})


@pytest.mark.cluster
@pytest.mark.long
def test_submitted_job_ends_as_on_a_laptop(
    object_store: ObjectStore, bucket: str, ray_cluster: RayCluster, small_package: Path
) -> None:
    members = {f"{n}.png": noise_png(n) for n in range(20)}
    archives = {"in/whole.tar": tar_of(members), "in/cut.tar": tar_of(members)[:9000]}
    put(object_store, bucket, archives)
    command = ["jobs.classify", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out"]
    command += ["--model", str(small_package)]

    planned = ray_cluster.submit(*command, "--dry-run")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "classify: exit code 0" in planned.stdout
    done = ray_cluster.submit(*command)
    assert done.returncode == 1  # all that `ray job submit` states of a code that is not 0
    assert "classify: exit code 3" in done.stdout
    assert "cut.tar: salvaged (truncated)" in done.stdout
    predictions = read(object_store, f"s3://{bucket}/out/predictions")
    assert predictions.filter(pl.col("archive") == "whole.tar").height == 20


@pytest.mark.cluster
@pytest.mark.long
def test_every_dicom_file_of_pydicom_has_one_row(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path
) -> None:
    files = sorted(Path(pydicom.data.__file__).parent.glob("*_files/**/*"))
    members = {str(n): path.read_bytes() for n, path in enumerate(files) if path.is_file()}
    assert len(members) > 150
    (tmp_path / "all.zip").write_bytes(zip_of(members))
    command = ["jobs.classify", str(tmp_path / "all.zip"), "--output", str(tmp_path / "out")]
    command += ["--model", str(small_package), "--identifiers", "keep"]

    done = ray_cluster.run(*command)
    assert done.returncode == 0, done.stderr
    predictions = pl.read_delta(str(tmp_path / "out" / "predictions"))
    assert sorted(predictions["member"]) == sorted(members)
    assert predictions["member_index"].to_list() == list(range(len(members)))
    assert set(predictions["outcome"]) <= set(map(str, Outcome))
    assert set(predictions["reason"].drop_nulls()) <= set(map(str, Reason))
    assert predictions.filter(pl.col("outcome") == "rejected")["reason"].null_count() == 0
    strict = ray_cluster.run(*command, "--max-rejected", "0.01")
    assert strict.returncode == 3
    assert "Nothing to do." in strict.stdout


@pytest.mark.cluster
@pytest.mark.long
def test_each_broken_archive_gets_its_status_and_its_sentence(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    whole = tar_of({f"{n}.png": noise_png(n) for n in range(5)})
    (folder / "whole.tar").write_bytes(whole)
    (folder / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "encrypted.zip").write_bytes(encrypted_zip())
    (folder / "loose.png").write_bytes(noise_png(1))
    command = ["jobs.classify", str(folder), "--output", str(tmp_path / "out")]
    command += ["--model", str(small_package)]

    done = ray_cluster.run(*command)
    assert done.returncode == 3, done.stderr
    archives = pl.read_delta(str(tmp_path / "out" / "archives"))
    statuses = {row["archive"]: (row["status"], row["reason"]) for row in archives.to_dicts()}
    output = storage.normalise(str(tmp_path / "out"))
    loose = LooseNames(output, IdentifierPolicy.DROP).pseudonym("loose.png")
    assert statuses == {
        "whole.tar": ("complete", None),
        loose: ("complete", None),
        "cut.tar": ("salvaged", "truncated"),
        "encrypted.zip": ("failed", "encrypted"),
    }
    rows = Counter(pl.read_delta(str(tmp_path / "out" / "predictions"))["archive"])
    assert rows == {row["archive"]: row["members"] for row in archives.to_dicts() if row["members"]}
    for name in ("cut.tar", "encrypted.zip"):
        assert f"{name}: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert ray_cluster.run("jobs.verify", str(tmp_path / "out")).returncode == 0
    (folder / "cut.tar").write_bytes(whole)
    (folder / "encrypted.zip").unlink()
    assert ray_cluster.run(*command).returncode == 0
    archives = pl.read_delta(str(tmp_path / "out" / "archives"))
    assert dict(zip(*archives[["archive", "status"]], strict=True)) == {
        "whole.tar": "complete",
        loose: "complete",
        "cut.tar": "complete",
        "encrypted.zip": "failed",
    }


def encrypted_zip() -> bytes:
    """A zip of one stored entry whose flag states that it is encrypted."""
    data = bytearray(zip_of({"a.png": noise_png(1)}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


@pytest.fixture
def call(tmp_path: Path, small_package: Path) -> dict[str, str]:
    """A call without a mistake, by flag."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar_of({"a.png": noise_png(1)}))
    return {
        "INPUT": str(tmp_path / "in"),
        "--output": str(tmp_path / "out"),
        "--model": str(small_package),
    }


def arguments(call: dict[str, str], **changes: str) -> list[str]:
    flags = {**call, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    positional = flags.pop("INPUT")
    return [positional, *(part for flag in flags.items() for part in flag)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "{folder}/none"}, "model package"),
        ({"output": "{folder}/in/out"}, "lies in the INPUT"),
        ({"output": "ftp://host/out"}, "ftp"),
        ({"actors": "3:1"}, "--actors is '3:1'"),
        ({"batch_size": "0"}, "--batch-size is 0"),
        ({"limit": "0"}, "--limit is 0"),
        ({"max_rejected": "2"}, "--max-rejected is 2.0"),
        ({"retry": "bad_luck"}, "bad_luck is not a reason"),
        ({"identifiers": "pseudonymise"}, "needs a key"),
        ({"identifiers": "publish"}, "publish"),
        ({"key_file": "{folder}/none.key"}, "none.key"),
        ({"precision": "int8"}, "'float32', 'bfloat16'"),
        ({"colour": "blue"}, "--colour"),
    ],
)
def test_mistake_is_a_sentence(
    call: dict[str, str], tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    changes = {name: value.format(folder=tmp_path) for name, value in changes.items()}
    with pytest.raises(UsageError) as caught:
        main(arguments(call, **changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_mistake_ends_with_exit_code_2(call: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    output = str(tmp_path / "file" / "out")
    done = without_cluster("jobs.classify", *arguments(call, output=output))
    assert done.returncode == 2, done.stderr
    sentence, last = done.stderr.strip().splitlines()
    assert sentence.startswith("classify: The output")
    assert "is not usable" in sentence
    assert last == "classify: exit code 2"


def test_dry_run_says_what_would_be_done_and_writes_nothing(
    call: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(call), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "To do: 1 archives, 10.2 kB, at least 1 units of at most 1,000 members." in said
    assert "Already done: 0 archives, 0 members." in said
    assert not (tmp_path / "out").exists()


@pytest.mark.cluster
@pytest.mark.long
def test_patient_is_one_pseudonym_and_no_name_leaves_the_file(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path
) -> None:
    dicom = Path(str(pydicom.data.get_testdata_file("MR_small.dcm"))).read_bytes()
    (tmp_path / "in").mkdir()
    for name in ("a.tar", "b.tar"):
        (tmp_path / "in" / name).write_bytes(tar_of({f"{name}^Doe.dcm": dicom}))
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    done = ray_cluster.run(
        "jobs.classify",
        str(tmp_path / "in"),
        *("--output", str(tmp_path / "out"), "--model", str(small_package)),
        *("--key-file", str(tmp_path / "key")),
    )
    assert done.returncode == 0, done.stderr
    predictions = pl.read_delta(str(tmp_path / "out" / "predictions"))
    (patient,) = set(predictions["patient"])
    assert len(patient) == 32
    assert len(set(predictions["member"])) == 2
    assert len(set(predictions["content"])) == 1
    identifier = pydicom.dcmread(io.BytesIO(dicom)).PatientID
    table = deltalake.DeltaTable(str(tmp_path / "out" / "predictions"))
    database = duckdb.connect().register("predictions", table.to_pyarrow_dataset())
    rows = database.execute("select * from predictions").fetchall()
    text = str(rows) + done.stdout + done.stderr
    assert len(rows) == 2
    assert identifier not in text
    assert "Doe" not in text


@pytest.mark.cluster
@pytest.mark.slow
def test_precision_that_is_asked_for_is_that_of_the_networks(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path
) -> None:
    (tmp_path / "in").mkdir()
    pictures = [noise_png(number) for number in range(3)]
    members = {f"{number}.png": picture for number, picture in enumerate(pictures)}
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(members))
    done = ray_cluster.run(
        "jobs.classify",
        str(tmp_path / "in"),
        *("--output", str(tmp_path / "out"), "--model", str(small_package)),
        *("--precision", "bfloat16"),
    )
    assert done.returncode == 0, done.stderr
    rows = pl.read_delta(str(tmp_path / "out" / "predictions")).sort("member_index")
    package = load_package(str(small_package))
    made = [picture_of(data, package.preprocessing, Limits()).image for data in pictures]
    images_NHW = np.stack([image for image in made if image is not None])
    best = {
        precision: Classifier(package, precision=precision).classify(images_NHW)
        for precision in get_args(Precision)
    }
    reduced, exact = (best[name].novelty_N for name in ("bfloat16", "float32"))
    difference = np.abs(reduced - exact).max()
    assert (difference > 0) == has_bfloat16(CPUINFO.read_text(encoding="utf-8"))
    assert np.abs(rows["novelty"].to_numpy() - reduced).max() <= difference / 2


@pytest.mark.cluster
@pytest.mark.long
def test_terminated_run_leaves_whole_archives_and_the_next_goes_on(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path
) -> None:
    (tmp_path / "in").mkdir()
    picture = noise_png(1)
    for name in "abcdef":
        members = {f"{n}.png": picture for n in range(1000)}
        (tmp_path / "in" / f"{name}.tar").write_bytes(tar_of(members))
    output = tmp_path / "out"
    command = ["jobs.classify", str(tmp_path / "in"), "--output", str(output)]
    command += ["--model", str(small_package), "--batch-size", "1"]

    with ray_cluster.start(*command) as job:
        assert job.stderr is not None
        for line in job.stderr:
            if "archives" in line and "images/s" in line:
                break
        job.send_signal(signal.SIGTERM)
        said = job.stderr.read()
        assert job.wait(60) == 3, said
    assert "Stopped before the end; the same command goes on." in said
    left = Counter(pl.read_delta(str(output / "predictions"))["archive"])
    assert len(left) < 6
    assert set(left.values()) <= {1000}

    assert ray_cluster.run("jobs.verify", str(output)).returncode == 0
    done = ray_cluster.run(*command)
    assert done.returncode == 0, done.stderr
    assert f"Already done: {len(left)} archives" in done.stdout
    predictions = pl.read_delta(str(output / "predictions"))
    assert predictions.height == 6000
    assert predictions.unique(["archive", "member_index"]).height == 6000
