"""The networks on CPUs by OpenVINO beside the same networks by torch: time, answers, memory.

    python -m benchmarks.engine
    python -m benchmarks.engine --images ../shared/data/shoulder/images

In one process with the job's settings: batches of 16, two threads, one core each. Torch and
OpenVINO take turns, in float32 and in bfloat16, each from pictures to decisions, and CPU time is
counted. Answers of phantoms, and of the radiographs of a folder, are held against torch's in
float32. The result goes to benchmarks/engine.md. Exit codes: 0 in float32 all labels, sets and
outcomes are torch's; 3 some are not.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final, get_args

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import machine
from implant_model.classifier import Classifier
from implant_model.decode.prepare import picture_of
from implant_model.limits import Limits
from implant_model.networks.spec import Precision
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import ModelPackage, load_package
from implant_model.phantoms.files import write_png
from implant_model.phantoms.render import OTHERS, render, render_unknown
from jobs.entry.cluster import NODE
from jobs.entry.command import INCOMPLETE, OK, run_command

THREADS: Final = 2
BLOCK: Final = 256
UNKNOWN_SHARE: Final = 6
"""One phantom of so many shows what the catalogue lacks."""
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Answers:
    """How often answers differ from torch's in float32.

    Attributes:
        what: The pictures and the precision.
        labels: Pictures with another best candidate.
        sets: With another set of candidates.
        outcomes: With another outcome.
        probability: Greatest difference of a probability.
        novelty: Greatest difference of a novelty score, of the score.
    """

    what: str
    labels: int
    sets: int
    outcomes: int
    probability: float
    novelty: float

    @property
    def same(self) -> bool:
        """Whether labels, sets and outcomes are all torch's."""
        return not (self.labels or self.sets or self.outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/phantom")
    parser.add_argument("--images", type=Path, help="a folder of radiographs")
    parser.add_argument("--phantoms", type=int, default=360)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=100, help="of 256, to watch the memory over")
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    package = load_package(options.model)
    sets = {"phantoms": phantoms(package, options.phantoms)}
    if options.images:
        sets["radiographs"] = radiographs(package, options.images)
    classifiers = {
        (name, precision): Classifier(
            package, precision=precision, threads=THREADS, by_torch=name == "torch"
        )
        for name in ("torch", "OpenVINO")
        for precision in PRECISIONS
    }
    start_s = first_batch_s(classifiers["OpenVINO", "float32"], sets["phantoms"])
    block = np.resize(sets["phantoms"], (BLOCK, *sets["phantoms"].shape[1:]))
    times = by_turns(classifiers, block, options.turns)
    answers = [
        compare(f"{len(images)} {what}, {precision}", classifiers, images, precision)
        for what, images in sets.items()
        for precision in PRECISIONS
    ]
    memory = memory_mib(classifiers["OpenVINO", "float32"], block, options.blocks)
    text = report(options, times, answers, start_s, memory)
    options.result.write_text(text, encoding="utf-8")
    print(text)
    return OK if all(a.same for a in answers if a.what.endswith("float32")) else INCOMPLETE


def phantoms(package: ModelPackage, count: int) -> Images:
    """Draw phantoms and preprocess them as the package asks for."""
    drawn = []
    for number in range(count):
        rng = np.random.default_rng(20_000 + number)
        if number % UNKNOWN_SHARE:
            drawn.append(render(ORTHONET[number % len(ORTHONET)], rng))
        else:
            drawn.append(render_unknown(rng, kind=OTHERS[number % len(OTHERS)]))
    return _pictures(package, [write_png(each) for each in drawn])


def radiographs(package: ModelPackage, folder: Path) -> Images:
    """Read the files of a folder that have a picture."""
    return _pictures(package, [path.read_bytes() for path in sorted(folder.iterdir())])


def _pictures(package: ModelPackage, files: Sequence[bytes]) -> Images:
    found = [picture_of(data, package.preprocessing, Limits()).image for data in files]
    return np.stack([image for image in found if image is not None])


def first_batch_s(classifier: Classifier, images: Images) -> float:
    """Return seconds of CPU from the weights to the first batch: conversion, compilation, check."""
    begun = time.process_time()
    classifier.classify(images[:16])
    return time.process_time() - begun


def by_turns(
    classifiers: dict[tuple[str, Precision], Classifier], block: Images, turns: int
) -> dict[tuple[str, Precision], list[tuple[float, float]]]:
    """Return CPU milliseconds an image and images a second of each turn."""
    found: dict[tuple[str, Precision], list[tuple[float, float]]]
    found = {way: [] for way in classifiers}
    for turn in range(turns + 1):
        for way, classifier in classifiers.items():
            begun, used = time.monotonic(), time.process_time()
            classifier.classify(block)
            used, seconds = time.process_time() - used, time.monotonic() - begun
            if turn:  # the first warms up
                found[way].append((1000 * used / BLOCK, BLOCK / seconds))
    return found


def compare(
    what: str,
    classifiers: dict[tuple[str, Precision], Classifier],
    images: Images,
    precision: Precision,
) -> Answers:
    """Hold OpenVINO's answers in a precision against torch's in float32."""
    expected = classifiers["torch", "float32"].classify(images)
    found = classifiers["OpenVINO", precision].classify(images)
    novelty_N = np.abs(found.novelty_N - expected.novelty_N) / np.abs(expected.novelty_N)
    labels_2N = [each.probabilities_NC.argmax(axis=1) for each in (found, expected)]
    return Answers(
        what,
        labels=int((labels_2N[0] != labels_2N[1]).sum()),
        sets=sum(a != b for a, b in zip(found.candidates, expected.candidates, strict=True)),
        outcomes=sum(a != b for a, b in zip(found.outcomes, expected.outcomes, strict=True)),
        probability=float(np.abs(found.probabilities_NC - expected.probabilities_NC).max()),
        novelty=float(novelty_N.max()),
    )


def memory_mib(classifier: Classifier, block: Images, blocks: int) -> dict[int, float]:
    """Return the process's resident memory after a tenth of the blocks and after all of them."""
    found = {}
    for number in range(1, blocks + 1):
        classifier.classify(block)
        if number in (max(blocks // 10, 1), blocks):
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
            found[number] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return found


def report(
    options: argparse.Namespace,
    times: dict[tuple[str, Precision], list[tuple[float, float]]],
    answers: Sequence[Answers],
    start_s: float,
    memory: dict[int, float],
) -> str:
    """Return the page of the result."""
    first = median(cpu_ms for cpu_ms, _ in times["torch", "float32"])
    lines = [
        "# The networks on CPUs, by OpenVINO and by torch",
        "",
        f"`python -m benchmarks.engine --model {options.model} --turns {options.turns}`, "
        f"{datetime.now(UTC):%Y-%m-%d}: {BLOCK} pictures in batches of 16, {THREADS} threads.",
        "",
        "| networks by | precision | CPU ms an image (range) | images/s | torch in float32 takes |",
        "|---|---|---|---|---|",
    ]
    for (name, precision), turns in times.items():
        used = [cpu_ms for cpu_ms, _ in turns]
        rate = median(images_s for _, images_s in turns)
        lines.append(
            f"| {name} | {precision} | {median(used):.2f} ({min(used):.2f} to {max(used):.2f}) | "
            f"{rate:.0f} | {first / median(used):.2f} times as long |"
        )
    lines += [
        "",
        "Answers by OpenVINO that differ from torch's in float32:",
        "",
        "| pictures, precision | labels | sets | outcomes | probability up to | novelty up to |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.what} | {each.labels} | {each.sets} | {each.outcomes} | {each.probability:.1e} | "
        f"{each.novelty:.1e} of it |"
        for each in answers
    ]
    resident = ", ".join(f"{mib:.0f} MiB after {blocks}" for blocks, mib in memory.items())
    lines += [
        "",
        f"From the weights to the first batch: {start_s:.1f} s of CPU. Memory of this process, all "
        f"ways in it, over blocks of {BLOCK} pictures: {resident}.",
        "",
        f"Machine: {machine()}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if not NODE.items() <= os.environ.items():  # the C library reads them when a process starts
        call = [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:]]
        os.execve(sys.executable, call, {**os.environ, **NODE})
    run_command("engine", lambda: main(sys.argv[1:]))
