"""Model packages made to run code where they are loaded: each is refused or inert."""

import contextlib
import hashlib
import io
import json
import marshal
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from implant_model.errors import PackageError
from implant_model.package.load import load_package
from tests.privacy.conftest import Tell
from tests.support.small_package import save_small_package


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def payloads(mark: Path) -> Iterator[bytes]:
    """Files that run code for a reader who is not careful."""
    for protocol in range(6):
        plain = pickle.dumps(Touch(mark), protocol)
        yield plain
        yield plain + bytes(4096)
        yield (8).to_bytes(8, "little") + plain
    for legacy in (False, True):
        held = io.BytesIO()
        torch.save({"weights": Touch(mark)}, held, _use_new_zipfile_serialization=not legacy)
        yield held.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Touch(mark)))
        file.writestr("../../outside.py", "x")
    yield archive.getvalue()
    yield marshal.dumps(compile(f"open({str(mark)!r}, 'w')", "x", "exec"))
    yield b"\x93NUMPY\x01\x00v\x00" + repr({"descr": "|O", "shape": (1,)}).encode() + b"\n"
    for header in (
        *({"__metadata__": {"x": f"__import__('os').system('touch {mark}')"}}, {"a": 1}),
        *({"x": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, {"x": {"dtype": "F32"}}),
    ):
        text = json.dumps(header).encode()
        yield len(text).to_bytes(8, "little") + text
    yield (1 << 62).to_bytes(8, "little") + b"{}"


def texts(mark: Path) -> list[str]:
    return [
        "../../../../etc/passwd",
        f"; touch {mark}",
        f"$(touch {mark})",
        f"`touch {mark}`",
        f"{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}{mark}",
        f"{{% include '{mark}' %}}",
        f"<script>fetch('file://{mark}')</script>",
        f"__import__('os').system('touch {mark}')",
        f"!!python/object/apply:os.system ['touch {mark}']",
        f"file://{mark}",
        "\x1b]0;title\x07",
        "a\0b",
    ]


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each text in a JSON document."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from places(value, (*path, index))
    elif isinstance(document, str):
        yield path


def replaced(document: Any, path: tuple[Any, ...], value: str) -> Any:
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def write(folder: Path, document: Any, files: dict[str, bytes]) -> None:
    """Writes a package whose hashes are right, as an attacker would."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
        facts = document["files"].get(name)
        if facts is not None:
            facts.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "package.json").write_text(json.dumps(document))


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, Any, dict[str, bytes]]:
    folder = tmp_path / "package"
    save_small_package(folder)
    document = json.loads((folder / "package.json").read_text())
    return folder, document, {name: (folder / name).read_bytes() for name in document["files"]}


def test_no_package_runs_code(
    whole: tuple[Path, Any, dict[str, bytes]], tmp_path: Path, tell: Tell
) -> None:
    folder, document, files = whole
    mark = tmp_path / "ran"
    before = {path.name for path in tmp_path.iterdir()}
    attacks: list[tuple[Any, dict[str, bytes]]] = []
    for name in files:
        attacks += [(document, {**files, name: data}) for data in payloads(mark)]
    for path in places(document):
        attacks += [(replaced(document, path, text), files) for text in texts(mark)]
    assert len(attacks) >= 300
    ran = loaded = 0
    for changed, held in attacks:
        shutil.rmtree(folder)
        folder.mkdir()
        write(folder, json.loads(json.dumps(changed)), held)
        with contextlib.suppress(PackageError):
            load_package(str(folder))
            loaded += 1
        ran += mark.exists() or {path.name for path in tmp_path.iterdir()} != before
    tell("attacks on model packages that ran code", len(attacks), ran)
    assert ran == 0
    assert 0 < loaded < len(attacks)  # a maker's name, say, may be any text: pages escape it


def test_payloads_run_where_nobody_is_careful(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    pickle.loads(next(payloads(mark)))
    assert mark.exists()
