"""Makes tests/tables/output_0_1_0: archives, a package and an output, as commit b9eb25b wrote them.

    git worktree add /tmp/old b9eb25b && cp tests/tables/make_output_0_1_0.py /tmp/old/
    cd /tmp/old && python make_output_0_1_0.py .../tests/tables/output_0_1_0

That commit is the last before tables had a schema version, rows a decode version, and packages more
than format 1. It is run there, not here: what it made is kept as it is. An archive on disk has the
version size-mtime, so that whoever copies the archives sets their times to `MTIME_NS`.
"""

import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

MTIME_NS = 1_764_000_000_000_000_000
MAKERS = ("Cofield", "DePuy", "Tornier", "Zimmer")


def main(folder: Path) -> None:
    """Write `in/`, `package/` and `out/`."""
    from jobs import classify

    write_archives(folder / "in")
    write_package(folder / "package")
    names = [str(folder / "in"), "--output", str(folder / "out")]
    code = classify.main([*names, "--model", str(folder / "package"), "--actors", "1"])
    if code:
        sys.exit(code)


def write_archives(folder: Path) -> None:
    """Two tars of pictures and of what is none, and a loose picture."""
    folder.mkdir(parents=True)
    write_tar(folder / "a.tar", {"1.png": png(1), "2.png": png(2), "note.txt": b"no picture"})
    write_tar(folder / "b.tar", {"3.png": png(3), "empty.png": b"", ".DS_Store": b"\0"})
    (folder / "4.png").write_bytes(png(4))
    for file in folder.iterdir():
        os.utime(file, ns=(MTIME_NS, MTIME_NS))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Write a tar whose bytes follow from its members."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def png(seed: int) -> bytes:
    """Encode 48 x 40 greys."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (6, 5), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    return stream.getvalue()


def write_package(folder: Path) -> None:
    """Save an untrained package of format 1."""
    from implant_model.catalogue import Catalogue, Implant
    from implant_model.network_spec import NetworkSpec
    from implant_model.networks import build
    from implant_model.novelty import fit_novelty
    from implant_model.package import Calibration, save_package
    from implant_model.preprocess import Preprocessing
    from implant_model.weights import weights_bytes

    torch.manual_seed(0)
    spec = NetworkSpec("net.safetensors", "classifier", "shufflenet_v2_x0_5")
    network = build(spec, len(MAKERS)).eval()
    with torch.inference_mode():
        features_NF = network.features(torch.rand(32, 1, 32, 32)).numpy()
    save_package(
        folder,
        name="old",
        catalogue=Catalogue(tuple(Implant(m.lower(), "shoulder", m) for m in MAKERS)),
        preprocessing=Preprocessing(size_px=32),
        networks={spec: weights_bytes(network)},
        calibration=Calibration(1.0, 0.74, 0.9),
        novelty=fit_novelty(features_NF, np.arange(32) % len(MAKERS), len(MAKERS)),
        novelty_threshold=1e6,
        known_pass_rate=0.95,
        metrics={},
        provenance={"made": "untrained, for tests"},
        card="# Untrained\n\nFor tests. Not a medical device.\n",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
