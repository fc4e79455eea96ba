"""How long a reader waits for the workbench: its start, and the next case.

    python -m benchmarks.review.next_case

The real server of `jobs.review` in a process of its own, on an audit whose radiographs are phantoms
of 2,500 x 2,048 pixels, 12 bits in 16, two of each record, in one tar: uncompressed or JPEG 2000,
on disk or in moto's object store on this machine. Chromium reads by the keyboard: from Enter, with
which a finding is submitted, until the next case and its first radiograph are drawn. It looks at
each case for two seconds first, in which the page fetches the next one ahead, as it does for people
(`ahead`), or for none (`at once`). `cold` is a case that nothing has read ahead, asked for over
HTTP: its page and the samples of its first radiograph. Writes benchmarks/review/next_case.md.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Final
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import cv2
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from benchmarks.machine import machine
from implant_model.archives.pick import HEAD_BYTES
from implant_model.limits import MIB
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.dicom_files import write_dicom
from implant_model.phantoms.render import render
from jobs.entry.command import OK, run_command
from tests.support.object_store import ObjectStore, running_object_store
from tests.support.workbench.devtools import Browser
from tests.support.workbench.review_samples import EVERY, Reviewed, make_reviewed

ROOT: Final = Path(__file__).parents[2]
ROWS, COLUMNS = 2500, 2048
FORMS: Final = {"uncompressed": ExplicitVRLittleEndian, "JPEG 2000": JPEG2000Lossless}
LOOKED_S: Final = 2.0
BETWEEN_BYTES: Final = 8 * MIB
SHOWN: Final = "document.querySelector('#case').dataset.shown"
DRAWN: Final = (
    f"((c) => c && c.width > 1 && {SHOWN})(document.querySelector('figure.active canvas'))"
)


@dataclass(frozen=True)
class Waits:
    """Seconds that one audit's reader waited.

    Attributes:
        form: Of the radiographs, and where they are.
        start: From the command to the first page.
        ahead: From each Enter to the next case, which was fetched ahead.
        at_once: The same without a look at the case before.
        cold: Page and first radiograph of cases that nothing has read ahead.
        small_reads: 64 KB of the archive from its store, by a client of our own; () from a disk.
    """

    form: str
    start: float
    ahead: Sequence[float]
    at_once: Sequence[float]
    cold: Sequence[float]
    small_reads: Sequence[float] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=8, help="of each way of measuring")
    options = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        found = list(measure(Path(name), options.cases))
    text = report(found, options.cases, before, os.getloadavg()[0])
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return OK


def measure(folder: Path, cases: int) -> Iterator[Waits]:
    """Yield what a reader waits for each form of radiograph, on disk and in the object store."""
    with running_object_store(folder / "moto.log") as store:
        os.environ.update(store.environment)
        for form, syntax in FORMS.items():
            pictures = [drawn(number, syntax) for number in range(2)]
            for where in ("disk", "moto"):
                own = folder / f"{where}-{form.split()[0]}"
                own.mkdir()
                placed = str if where == "disk" else uploader(store)
                count = EVERY * 3 * cases
                made = make_reviewed(own, count, pictures=pictures * count, placed=placed)
                found = waits(f"{form}, {where}", made, cases, own)
                if where == "moto":
                    found = replace(found, small_reads=list(small_reads(store)))
                yield found
                made.archive.unlink()


def drawn(number: int, syntax: str) -> bytes:
    """Return a phantom as a DICOM file of the size of a radiograph."""
    rng = np.random.default_rng(number)
    phantom = render(ORTHONET[number], rng, ROWS)
    sized_HW = cv2.resize(phantom.pixels_HW, (COLUMNS, ROWS), interpolation=cv2.INTER_LINEAR)
    sized = replace(phantom, pixels_HW=np.asarray(sized_HW, np.uint16))
    return write_dicom(sized, rng, transfer_syntax=syntax)


def uploader(store: ObjectStore) -> Callable[[Path], str]:
    """Return what puts an archive into a new bucket and gives its URI."""
    bucket = store.new_bucket()

    def put(path: Path) -> str:
        store.client().upload_file(str(path), bucket, f"in/{path.name}")
        return f"s3://{bucket}/in/{path.name}"

    return put


def small_reads(store: ObjectStore) -> Iterator[float]:
    """Yield the seconds in which the store hands out 64 KB of the archive that came last.

    Moto copies the whole object for each read of a part of it.
    """
    client = store.client()
    buckets = sorted(client.list_buckets()["Buckets"], key=lambda bucket: bucket["CreationDate"])
    bucket = buckets[-1]["Name"]
    for offset in range(0, 5 * BETWEEN_BYTES, BETWEEN_BYTES):
        begun = time.monotonic()
        span = f"bytes={offset}-{offset + HEAD_BYTES - 1}"
        client.get_object(Bucket=bucket, Key="in/01.tar", Range=span)["Body"].read()
        yield time.monotonic() - begun


@contextmanager
def serving(made: Reviewed) -> Iterator[tuple[str, float]]:
    """Run `jobs.review`; give its address and how long it took until its page was there."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "jobs.review", *made.call, "--reviewer", "A. Reader"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout.readline, "") if process.stdout else iter(())
            address = next(m[0] for line in lines if (m := re.search(r"http://\S+", line)))
            opener().open(address).read()
            yield address, time.monotonic() - begun
        finally:
            process.terminate()
            process.wait(30)


def opener() -> OpenerDirector:
    """Return a client that keeps the workbench's cookie."""
    return build_opener(HTTPCookieProcessor(CookieJar()))


def waits(form: str, made: Reviewed, cases: int, folder: Path) -> Waits:
    """Measure one audit."""
    with serving(made) as (address, start), Browser(folder / "profile") as browser:
        cold = list(cold_cases(address, cases))
        browser.size(1400, 900)
        browser.open(address)
        browser.open(f"{address.partition('/?')[0]}/read/worklist")
        browser.wait(DRAWN)
        ahead = [decide(browser, LOOKED_S) for _ in range(cases)]
        at_once = [decide(browser, 0.0) for _ in range(cases)]
        browser.open("about:blank")
    return Waits(form, start, ahead, at_once, cold)


def cold_cases(address: str, cases: int) -> Iterator[float]:
    """Yield the seconds of cases from the end of the list, which nothing reads ahead."""
    base = address.partition("/?")[0]
    client = opener()
    client.open(address).read()
    listed = client.open(f"{base}/list/worklist").read().decode()
    ids = list(dict.fromkeys(re.findall(r"case=([0-9a-f]{16})", listed)))
    for case in ids[-cases:]:
        begun = time.monotonic()
        client.open(f"{base}/case/worklist/{case}").read()
        client.open(f"{base}/pixels/{case}/0").read()
        yield time.monotonic() - begun


def decide(browser: Browser, looked_s: float) -> float:
    """Submit a finding after a look; return seconds until the next case is drawn."""
    time.sleep(looked_s)
    before = browser.ask(SHOWN)
    browser.press("2")
    begun = time.monotonic()
    browser.press("Enter")
    browser.wait(f"{DRAWN} && {SHOWN} !== '{before}'")
    return time.monotonic() - begun


def report(found: Sequence[Waits], cases: int, before: float, after: float) -> str:
    """Return the page."""
    lines = [
        "# The next case",
        f"`python -m benchmarks.review.next_case --cases {cases}` on {datetime.now(UTC):%Y-%m-%d}, "
        f"{machine()}; load {before:.1f} over the minute before, {after:.1f} over the last one. "
        f"Milliseconds: median, and the longest of {cases}. Radiographs of {ROWS:,} x {COLUMNS:,} "
        "pixels, 16 bits, two of each record.",
        "\n".join(
            [
                "| radiographs | start | ahead | at once | cold | a read of 64 KB |",
                "|---|---|---|---|---|---|",
                *(
                    f"| {one.form} | {1000 * one.start:,.0f} | {_cell(one.ahead)} | "
                    f"{_cell(one.at_once)} | {_cell(one.cold)} | {_cell(one.small_reads)} |"
                    for one in found
                ),
            ]
        ),
        "`start`: from the command to the first page. `ahead`: from Enter until the next case and "
        f"its first radiograph are drawn in Chromium, after {LOOKED_S:g} s with the case before, "
        "in which the page fetched it. `at once`: the same with Enter as soon as a case is drawn. "
        "`cold`: page and samples of the first radiograph of a case that nothing read ahead, over "
        "HTTP, without drawing; the first one walks the headers of its tar, one read for each "
        "radiograph. Moto copies a whole object for each read of a part: the last column.",
    ]
    return "\n\n".join(lines) + "\n"


def _cell(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    return f"{1000 * float(np.median(seconds)):,.0f} ({1000 * max(seconds):,.0f})"


if __name__ == "__main__":
    run_command("next_case", main)
