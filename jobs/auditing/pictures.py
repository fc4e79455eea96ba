"""Radiographs and saliency of the first contradictions, read again from their archives.

Only where pictures were asked for: torch is imported and archives are opened here alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from implant_model import storage
from implant_model.archives.read import read_members
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import ImplantError, UsageError
from implant_model.limits import Limits
from jobs.auditing.assemble import MAX_ROWS, Audited
from jobs.auditing.output import Output
from jobs.entry.ticker import ticking
from jobs.tables.loose_names import find_files, is_loose
from jobs.tables.records import PlannedArchive

if TYPE_CHECKING:
    from implant_model.classifier import Classifier

Wanted = Mapping[str, dict[int, list[int]]]
"""Places of records by archive and position in it."""
SIZE_PX: Final = 256


def draw_pictures(
    audited: Audited, output: Output, most: int, inputs: Sequence[str] = ()
) -> dict[int, bytes]:
    """PNGs of radiograph and what speaks for the implant that was seen, by place of the record.

    An image whose archive has changed or gone gets none: the page states how many it shows.

    Args:
        audited: What was found.
        output: Says where the archives are, and holds the package.
        most: How many lines of the worklist to illustrate.
        inputs: Normalised URIs that loose radiographs are found below; those whose names are keyed
            get no picture without.

    Raises:
        UsageError: There is no package to explain with.
    """
    if not most:
        return {}
    if output.model.package is None:
        raise UsageError("--pictures needs the package that made the predictions; give --model.")
    from implant_model.classifier import Classifier

    classifier = Classifier(output.model.package)
    wanted = _wanted(audited, min(most, MAX_ROWS))
    pictures: dict[int, bytes] = {}
    files = dict(find_files(output.uri, inputs)) if inputs else {}
    with ticking("Pictures", sum(map(len, wanted.values()))) as tick:
        for place, image_HW in _images(wanted, output, files, classifier.package.preprocessing):
            seen = int(audited.verdicts.seen_M[place])
            pictures[place] = _picture(classifier, image_HW, seen)
            tick(len(pictures))
    return pictures


def _wanted(audited: Audited, most: int) -> Wanted:
    wanted: dict[str, dict[int, list[int]]] = {}
    images = audited.images
    for place in audited.order[:most].tolist():
        at = int(audited.verdicts.first_image_M[place])
        archive = images.texts["archive"][at].as_py()
        members = wanted.setdefault(archive, {})
        members.setdefault(int(images.member_index_N[at]), []).append(place)
    return wanted


def _images(
    wanted: Wanted, output: Output, files: Mapping[str, PlannedArchive], spec: Preprocessing
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Read and prepare the wanted members; what cannot be read any more is passed over."""
    limits = Limits()
    with DecodeProcess(spec, limits) as decoder:
        for archive, members in wanted.items():
            if is_loose(archive) and archive not in files:
                continue
            try:
                found, row = files.get(archive), output.archives.row(archive)
                if row is None:
                    continue
                if found is None:
                    found = PlannedArchive(archive, storage.stat(row["source"]))
                if found.known.version != row["archive_version"]:
                    continue
                with storage.open_object(found.info) as reader:
                    for member in read_members(reader, archive.rsplit("/", 1)[-1], limits):
                        if member.index in members and member.data is not None:
                            image_HW = decoder.prepare(member.data).image
                            if image_HW is not None:
                                yield from ((place, image_HW) for place in members[member.index])
            except ImplantError:
                continue  # gone, or cut: the page states how many pictures it shows


def _picture(classifier: "Classifier", image_HW: npt.NDArray[np.uint8], label: int) -> bytes:
    from implant_model.saliency import explain
    from jobs.pages.saliency_picture import saliency_picture

    return saliency_picture(explain(classifier, image_HW, label), SIZE_PX)
