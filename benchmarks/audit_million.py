"""How long an audit of a million records and a million images takes, and how much memory.

    python -m benchmarks.audit_million
    python -m benchmarks.audit_million --records 100000 --folder /var/tmp

Makes predictions in units of 1,000 as `classify` leaves them, in 1,000 files with all columns, and
a CSV of as many records, 5 % of them wrong, with raw identifiers that the audit turns into
pseudonyms; joins once by study and once by patient, side and joint. Then it runs `jobs.audit` in a
process of its own, bound to two cores. The result goes to benchmarks/audit_million.md. It needs
Linux and 1 GB of disk. Exit codes: 0 within two minutes and 4 GiB; 3 not.
"""

import argparse
import hashlib
import hmac
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from implant_model import storage
from implant_model.package.load import load_package
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import Key
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.tables import delta
from jobs.tables.file_statistics import statistics_of
from jobs.tables.schema import (
    ARCHIVE_ROW,
    ARCHIVES,
    PREDICTION_ROW,
    PREDICTIONS,
    UNIT_MEMBERS,
    with_model,
)

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "phantom"
RESULT = ROOT / "benchmarks" / "audit_million.md"
KEY = hashlib.sha256(b"a benchmark's key, not a secret").hexdigest().encode()
MAX_S, MAX_BYTES = 120.0, 4 << 30
WRONG = 0.05
CORES = 2


@dataclass(frozen=True)
class Truth:
    """What the simulated images show, and whose they are; N of each."""

    implant_N: npt.NDArray[np.int64]
    is_right_side_N: npt.NDArray[np.bool_]
    claim_N: npt.NDArray[np.int64]
    is_wrong_N: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One audit."""

    key: str
    seconds: float
    cpu_s: float
    peak_bytes: int
    code: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables, audit them twice, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the tables lie")
    call = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=call.folder) as name:
        folder = Path(name)
        truth = draw(call.records)
        write_predictions(folder / "out", truth)
        write_registry(folder / "registry.csv", truth)
        (folder / "key").write_bytes(KEY)
        (folder / "key").chmod(0o600)
        runs = [measure(folder, key) for key in ("study", "patient")]
    text = describe(call.records, runs)
    print(text)
    if call.records == 1_000_000:
        RESULT.write_text(text, encoding="utf-8")
    is_within = all(run.seconds < MAX_S and run.peak_bytes < MAX_BYTES for run in runs)
    return OK if is_within and not any(run.code for run in runs) else INCOMPLETE


def draw(count: int) -> Truth:
    """Return implants by uneven shares; wrong records name another implant of the joint."""
    rng = np.random.default_rng(0)
    implants = load_package(str(MODEL), weights=False).catalogue.implants
    implant_N = rng.choice(len(implants), count, p=rng.dirichlet(np.full(len(implants), 3.0)))
    is_wrong_N = rng.random(count) < WRONG
    claim_N = implant_N.copy()
    for k, implant in enumerate(implants):
        others = [i for i, o in enumerate(implants) if o.joint == implant.joint and i != k]
        at = np.flatnonzero(is_wrong_N & (implant_N == k))
        claim_N[at] = rng.choice(others, len(at))
    return Truth(implant_N, rng.random(count) < 0.5, claim_N, is_wrong_N)


def write_predictions(folder: Path, truth: Truth) -> None:
    """Both Delta tables, a file for each unit of 1,000 members."""
    output, model = storage.normalise(str(folder)), load_package(str(MODEL), weights=False).id
    predictions, archives = (storage.join(output, name) for name in (PREDICTIONS, ARCHIVES))
    delta.create_table(predictions, with_model(PREDICTION_ROW))
    delta.create_table(archives, ARCHIVE_ROW)
    actions: list[AddAction | RemoveAction] = []
    for number, unit in enumerate(units(truth)):
        path, file = f"model={model}/{number:06d}.parquet", pa.BufferOutputStream()
        pq.write_table(unit, file, compression="zstd")
        data = file.getvalue().to_pybytes()
        storage.put_if_absent(storage.join(predictions, path), data)
        actions.append(delta.add_action(path, len(data), statistics_of(unit), model))
    delta.commit(predictions, lambda t: delta.replace_files(t, actions))


def units(truth: Truth) -> Iterator[pa.Table]:
    """Yield predictions of a simulated classifier, see `tests/support/audit_samples.py`."""
    rng = np.random.default_rng(1)
    implants = load_package(str(MODEL), weights=False).catalogue.implants
    strength, count = 4.5, len(truth.implant_N)
    for first in range(0, count, UNIT_MEMBERS):
        number_U = np.arange(first, min(first + UNIT_MEMBERS, count))
        scores_UK = rng.normal(size=(len(number_U), len(implants)))
        scores_UK[np.arange(len(number_U)), truth.implant_N[number_U]] += strength
        powers_UK = np.exp(strength * (scores_UK - scores_UK.max(axis=1, keepdims=True)))
        yield _unit(number_U, powers_UK / powers_UK.sum(axis=1, keepdims=True), truth)


def _unit(
    number_U: npt.NDArray[np.int64], chance_UK: npt.NDArray[np.float64], truth: Truth
) -> pa.Table:
    implants = load_package(str(MODEL), weights=False).catalogue.implants
    rows = []
    for number, chance_K in zip(number_U.tolist(), chance_UK, strict=True):
        order = np.argsort(-chance_K)[:3].tolist()
        best = implants[order[0]]
        is_left = chance_K[order[0]] >= 0.5
        rows.append(
            {
                "archive": f"site-{number // 100_000}/{number // UNIT_MEMBERS:04d}.tar",
                "archive_version": "v1",
                "member_index": number % UNIT_MEMBERS,
                "member": pseudonym("member", number),
                "frame": 0,
                **{kind: pseudonym(kind, number) for kind in ("patient", "study", "series")},
                "instance": pseudonym("instance", number),
                "modality": "DX",
                "body_part": implants[truth.implant_N[number]].joint.upper(),
                "laterality": "R" if truth.is_right_side_N[number] else "L",
                "rows": 2500,
                "columns": 2048,
                "outcome": "identified" if is_left else "unknown",
                "implant": best.name,
                "manufacturer": best.manufacturer,
                "product": best.product,
                "joint": best.joint,
                "probability": chance_K[order[0]],
                "candidates": [best.name] if is_left else [],
                "top": [{"implant": implants[k].name, "probability": chance_K[k]} for k in order],
                "novelty": 12.5,
                "content": pseudonym("content", number),
            }
        )
    return pa.Table.from_pylist(rows, PREDICTION_ROW)


def pseudonym(kind: str, number: int) -> str:
    """As `classify` writes it under the benchmark's key."""
    text = f"{kind}-{number:09d}".encode()
    return hmac.digest(KEY, kind.encode() + b"\0" + text, "sha256")[:16].hex()


def write_registry(path: Path, truth: Truth) -> None:
    """A record for each image, with raw identifiers and uneven names of hospitals."""
    example = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(KEY)).identifier(
        "study", "study-000000007"
    )
    if example != pseudonym("study", 7):
        raise RuntimeError("The benchmark makes other pseudonyms than the software.")
    implants = load_package(str(MODEL), weights=False).catalogue.implants
    count = len(truth.claim_N)
    number_N = [f"{number:09d}" for number in range(count)]
    hospital_N = np.random.default_rng(2).geometric(0.02, count)

    def of_claims(names: list[str]) -> pa.Array:
        return pa.array(names).take(pa.array(truth.claim_N))

    table = pa.table(
        {
            "record": [f"R{number}" for number in number_N],
            "patient": [f"patient-{number}" for number in number_N],
            "study": [f"study-{number}" for number in number_N],
            "side": np.where(truth.is_right_side_N, "right", "left"),
            "joint": of_claims([implant.joint for implant in implants]),
            "manufacturer": of_claims([implant.manufacturer for implant in implants]),
            "product": of_claims([str(implant.product) for implant in implants]),
            "hospital": [f"Hospital {number}" for number in hospital_N.tolist()],
            "date": [f"{2010 + number % 15}-03-01" for number in range(count)],
        }
    )
    pa_csv.write_csv(table, path)


def measure(folder: Path, key: str) -> Run:
    """One audit in a process of its own on two cores: wall time, and peak resident memory."""
    command = [sys.executable, "-m", "jobs.audit", "--predictions", str(folder / "out")]
    command += ["--registry", str(folder / "registry.csv"), "--report", str(folder / key)]
    command += ["--key", key, "--key-file", str(folder / "key"), "--model", str(MODEL)]
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    limits = {"OMP_NUM_THREADS": str(CORES), "POLARS_MAX_THREADS": str(CORES)}
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **limits},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    cpu_s = usage.ru_utime + usage.ru_stime
    return Run(key, seconds, cpu_s, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status))


def describe(count: int, runs: Sequence[Run]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# An audit of a million records",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `python -m benchmarks.audit_million`: "
        f"{count:,} records with raw identifiers (CSV) against {count:,} predictions in files of "
        f"{UNIT_MEMBERS:,}, on {CORES} cores of {platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}, pyarrow {version('pyarrow')}, numpy {version('numpy')}. "
        "Start of the process, all output files and the page included.",
        "",
        "| joined by | seconds | of processor | peak memory | exit code |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {'patient, side and joint' if run.key == 'patient' else run.key} | {run.seconds:.0f} | "
        f"{run.cpu_s:.0f} | {run.peak_bytes / 1e9:.1f} GB | {run.code} |"
        for run in runs
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_command("audit_million", lambda: main(sys.argv[1:]))
