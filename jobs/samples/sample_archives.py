"""Sample archives of every kind, and a record of what is where.

Written once: as long as the record fits the files, a later call leaves them as they are, so that
the next run of `classify` finds nothing to do.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from implant_model import __version__
from implant_model.errors import Reason, UsageError
from implant_model.phantoms.archive_files import archive_writer
from implant_model.storage.local_files import write_whole
from jobs.samples.sample_members import SampleMember, oddities, phantoms

SEED: Final = 20261123
"""Not one that a model was trained on, see `benchmarks/phantom_set.py`."""
PACKED: Final = (
    "clinic-a/january.tar",
    "clinic-a/february.tar.gz",
    "clinic-b/export.tar.zst",
    "clinic-c/radiographs.zip",
)
LOOSE: Final = "clinic-d"
CUT: Final = "clinic-e/interrupted.tar"
CUT_MEMBERS: Final = 4
"""Members of `CUT` in front of the one in which it ends."""
RECORD: Final = 2
"""Version of the record of what is where."""
_LOOSE_SHARE: Final = 12  # one phantom of so many lies loose
_BLOCK: Final = 512


@dataclass(frozen=True)
class Truth:
    """What is known of one member of the sample archives.

    Attributes:
        archive: As the tables name it.
        member_index: Its place.
        member: Its name; empty for a loose radiograph.
        label: Name of the implant it shows; empty for what is no radiograph.
        patient: Patient ID of a phantom.
        side: The side that it shows, L or R.
        joint: Its joint.
        reason: What must stand in its row.
    """

    archive: str
    member_index: int
    member: str
    label: str
    patient: str
    side: str
    joint: str
    reason: Reason | None

    @property
    def is_dicom(self) -> bool:
        """Return whether it is a file that states whose it is."""
        return (self.member or self.archive).endswith(".dcm")


@dataclass(frozen=True)
class Samples:
    """The sample archives of a folder.

    Attributes:
        archives: The folder to classify.
        labels: A labels file of the phantoms, for `jobs.train` and the like.
        truths: What is known of every member.
        are_new: Whether this call wrote them.
    """

    archives: Path
    labels: Path
    truths: Sequence[Truth]
    are_new: bool

    @property
    def num_archives(self) -> int:
        """Return archives and loose radiographs."""
        return len({truth.archive for truth in self.truths})


def make_samples(folder: Path, num_each: int) -> Samples:
    """Write `archives/`, `labels.csv` and `samples.json` into a folder, unless they are there.

    Args:
        folder: Where; it is made if need be.
        num_each: Phantoms of each implant of the catalogue.

    Raises:
        UsageError: The folder holds samples that were made by another recipe.
    """
    archives, labels, record = folder / "archives", folder / "labels.csv", folder / "samples.json"
    recipe = {"software": __version__, "seed": SEED, "num_each": num_each, "record": RECORD}
    truths = _recorded(record, archives, recipe)
    if truths is not None:
        return Samples(archives, labels, truths, are_new=False)
    truths = []
    for name, members in deal([*phantoms(num_each, SEED)], oddities(SEED)).items():
        write_whole(archives / name, _file(name, members))
        truths += _truths(name, members)
    write_whole(labels, _labels(truths))
    held = {
        "recipe": recipe,
        "bytes": {name: (archives / name).stat().st_size for name in {t.archive for t in truths}},
        "members": [asdict(truth) for truth in truths],
    }
    write_whole(record, json.dumps(held, indent=1).encode())
    return Samples(archives, labels, truths, are_new=True)


def deal(
    pictures: Sequence[SampleMember], odd: Sequence[SampleMember]
) -> dict[str, list[SampleMember]]:
    """Deal members to archives.

    Args:
        pictures: In the order in which they are dealt.
        odd: Spread over the packed archives.

    Returns:
        Members by archive, in their order; a loose file is an archive of one member.
    """
    cut, rest = list(pictures[: CUT_MEMBERS + 1]), pictures[CUT_MEMBERS + 1 :]
    dealt: dict[str, list[SampleMember]] = {name: [] for name in PACKED}
    for number, member in enumerate(rest):
        if number % _LOOSE_SHARE == 0:
            dealt[f"{LOOSE}/{member.name}"] = [member]
        else:
            dealt[PACKED[number % len(PACKED)]].append(member)
    for number, member in enumerate(odd):
        into = dealt[PACKED[number % len(PACKED)]]
        into.insert(number * len(into) // len(odd), member)
    dealt[CUT] = cut
    return dealt


def _file(name: str, members: Sequence[SampleMember]) -> bytes:
    if name.startswith(f"{LOOSE}/"):
        return members[0].data
    file = io.BytesIO()
    archive_writer(name)(file, ((member.name, member.data) for member in members))
    data = file.getvalue()
    return data[: _cut_at(members)] if name == CUT else data


def _cut_at(members: Sequence[SampleMember]) -> int:
    """Return where a tar of these members is in the middle of the last one's content."""
    whole = sum(_BLOCK + -(-len(m.data) // _BLOCK) * _BLOCK for m in members[:-1])
    return whole + _BLOCK + len(members[-1].data) // 2


def _truths(name: str, members: Iterable[SampleMember]) -> list[Truth]:
    is_loose = name.startswith(f"{LOOSE}/")
    truths = []
    for index, m in enumerate(members):
        member = "" if is_loose else m.name
        if name == CUT and index == CUT_MEMBERS:
            truths.append(Truth(name, index, member, "", "", "", "", Reason.TRUNCATED))
        else:
            known = (m.label, m.patient, m.side, m.joint)
            truths.append(Truth(name, index, member, *known, m.reason))
    return truths


def _labels(truths: Iterable[Truth]) -> bytes:
    text = io.StringIO(newline="")
    columns = ["archive", "member", "label", "patient"]
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(asdict(truth) for truth in truths if truth.label)
    return text.getvalue().encode()


def _recorded(record: Path, archives: Path, recipe: Mapping[str, object]) -> list[Truth] | None:
    """Return what the record states, if the files are those that it speaks of.

    Raises:
        UsageError: They were made by another recipe, so that tables beside them may hold archives
            that would no longer be there.
    """
    try:
        held: dict[str, Any] = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        return None  # not there, or not written to its end
    if held.get("recipe") != recipe:
        raise UsageError(
            f"{record.parent} holds samples of {held.get('recipe')}; these would be of {recipe}. "
            "Name another folder, or remove this one."
        )
    if held["bytes"] != _sizes(archives):
        return None
    return [
        Truth(**{**row, "reason": None if row["reason"] is None else Reason(row["reason"])})
        for row in held["members"]
    ]


def _sizes(archives: Path) -> dict[str, int]:
    files = (path for path in archives.rglob("*") if path.is_file())
    return {path.relative_to(archives).as_posix(): path.stat().st_size for path in files}
