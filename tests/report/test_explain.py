"""One radiograph explained: what is printed, what is drawn, and how mistakes read."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from implant_model import storage
from implant_model.classifier import Classifier
from implant_model.decode.preprocess import preprocess
from implant_model.errors import ArchiveError, MemberError, Reason, UsageError
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.files import draw_patient, write_dicom, write_png
from implant_model.phantoms.render import Phantom, render
from implant_model.privacy import IdentifierPolicy
from implant_model.saliency import explain
from jobs import explain as job
from jobs.entry.command import DISCLAIMER
from jobs.pages.saliency_picture import MARK, PANEL_PX, explanation_picture, overlay
from jobs.pages.wording import novelty_sentence
from jobs.pipeline.plan import make_plan
from jobs.tables.loose_names import LooseNames
from jobs.tables.state.record_index import Records
from tests.support.archive_samples import tar_of
from tests.support.object_store import ObjectStore
from tests.support.package_samples import save_sample


def opened(picture: Path) -> Image.Image:
    with Image.open(picture) as image:
        image.load()
        return image


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return render(ORTHONET[0], np.random.default_rng(0), 256)


@pytest.fixture(scope="module")
def radiograph(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "DOE^JANE.png"
    path.write_bytes(write_png(phantom))
    return path


@pytest.fixture(scope="module")
def with_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "both"
    save_sample(folder)
    return folder


def test_a_radiograph_is_explained(
    radiograph: Path,
    phantom: Phantom,
    with_segmenter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is printed is what the classifier states of the preprocessed picture."""
    picture = tmp_path / "why.png"
    assert (
        job.main(["--model", str(with_segmenter), str(radiograph), "--output", str(picture)]) == 0
    )
    printed = capsys.readouterr().out
    package = load_package(str(with_segmenter))
    pixels_HW = (phantom.pixels_HW << 4) | (phantom.pixels_HW >> 8)
    states = Classifier(package).classify(preprocess(pixels_HW, package.preprocessing)[None])
    assert printed.startswith(f"Outcome: {states.outcomes[0]}\n")
    scale = package.novelty
    novelty = float(states.novelty_N[0])
    assert novelty_sentence(novelty, scale.threshold, scale.known_pass_rate) in printed
    for name, share in zip(package.catalogue.names, states.probabilities_NC[0], strict=True):
        mark = "candidate" if package.catalogue.index(name) in states.candidates[0] else "no candid"
        assert f"{share:.3f}  {name} (a maker), {mark}" in printed
    assert DISCLAIMER in printed
    assert "DOE" not in printed
    assert opened(picture).size[0] > 3 * PANEL_PX, "radiograph, cut-out, saliency"


def test_without_a_segmenter_there_are_two_panels(
    radiograph: Path, small_package: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "why.png"
    call = ["--model", str(small_package), str(radiograph), "--output", str(picture)]
    assert job.main(call) == 0
    assert 2 * PANEL_PX < opened(picture).size[0] < 3 * PANEL_PX
    assert job.main(call) == 0, "its own picture is replaced"


def test_nothing_of_the_header_is_shown(
    phantom: Phantom, small_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    patient = draw_patient(rng)
    source = tmp_path / f"{patient.identifier}.dcm"
    source.write_bytes(write_dicom(phantom, rng, patient=patient))
    picture = tmp_path / "out.png"
    job.main(["--model", str(small_package), str(source), "--output", str(picture)])
    shown = capsys.readouterr().out + str(opened(picture).info)
    for value in (patient.identifier, patient.name):
        assert value
        assert value not in shown
    assert DISCLAIMER in str(opened(picture).info)


def test_a_rejected_image_has_its_reason(
    radiograph: Path, small_package: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(radiograph.read_bytes()[:3000])
    picture = tmp_path / "out.png"
    with pytest.raises(MemberError, match=r"^The image is rejected as truncated: it ends too") as e:
        job.main(["--model", str(small_package), str(cut), "--output", str(picture)])
    assert e.value.reason is Reason.TRUNCATED
    assert not picture.exists()
    cut.write_bytes(b"")
    with pytest.raises(MemberError, match="rejected as empty"):
        job.main(["--model", str(small_package), str(cut), "--output", str(picture)])


def test_mistakes_are_sentences(radiograph: Path, small_package: Path, tmp_path: Path) -> None:
    def fails(match: str, image: Path | str = radiograph, output: Path | str = "o.png") -> None:
        with pytest.raises(UsageError, match=match):
            job.main(["--model", str(small_package), str(image), "--output", str(output)])

    before = radiograph.read_bytes()
    fails("is there already; choose another name", output=radiograph)
    assert radiograph.read_bytes() == before, "a radiograph is not drawn over"
    fails("a .png on this machine is expected", output=tmp_path / "o.jpg")
    fails("a .png on this machine is expected", output="s3://bucket/o.png")
    fails("The folder of --output", output=tmp_path / "nowhere" / "o.png")
    fails("IMAGE cannot be read", image=tmp_path / "missing.dcm", output=tmp_path / "o.png")
    two = tmp_path / "two.tar"
    two.write_bytes(tar_of({"a": before, "b": before}))
    fails("an archive of several members", image=two, output=tmp_path / "o.png")
    other = tmp_path / "other.7z"
    other.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    with pytest.raises(ArchiveError, match="of a kind that is not read"):
        job.main(["--model", str(small_package), str(other), "--output", str(tmp_path / "o.png")])
    with pytest.raises(UsageError, match="--model"):
        job.main([str(radiograph)])


def test_the_cut_out_is_what_the_networks_see(with_segmenter: Path) -> None:
    classifier = Classifier(load_package(str(with_segmenter)))
    image_HW = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    explanation = explain(classifier, image_HW, 1)
    cut_out_HW = explanation.cut_out_HW
    assert cut_out_HW is not None
    assert (cut_out_HW <= image_HW).all()
    assert cut_out_HW.any()
    with pytest.raises(ValueError, match="Label 3"):
        explain(classifier, image_HW, 3)


def test_the_overlay_leaves_what_is_cold_alone() -> None:
    image_HW = np.full((8, 8), 100, np.uint8)
    heat_HW = np.zeros((8, 8), np.float32)
    heat_HW[:4] = 1
    shown_HW3 = overlay(image_HW, heat_HW)
    assert (shown_HW3[4:] == 100).all()
    red, green, blue = shown_HW3[0, 0].tolist()
    assert min(red, green) > blue + 30, "the strongest heat is a bright yellow"


def test_the_picture_keeps_long_names_inside(with_segmenter: Path) -> None:
    """Two hundred letters without a blank are wrapped: nothing is drawn at the right edge."""
    classifier = Classifier(load_package(str(with_segmenter)))
    explanation = explain(classifier, np.eye(64, dtype=np.uint8) * 200, 0)
    data = explanation_picture(explanation, "W" * 200, ["w" * 400, "<b>&"], "x" * 200)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert len(np.unique(pixels[:, -15:].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(pixels[-10:].reshape(-1, 3), axis=0)) == 1
    assert MARK.encode() in data[:4096]


def test_a_radiograph_and_a_model_from_a_bucket(
    radiograph: Path,
    small_package: Path,
    bucket: str,
    object_store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for key, file in [("in/1.png", radiograph)] + [
        (f"model/{file.name}", file) for file in sorted(small_package.iterdir())
    ]:
        object_store.client().put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
    printed = []
    for name, model, image in (
        ("bucket", f"s3://{bucket}/model", f"s3://{bucket}/in/1.png"),
        ("local", str(small_package), str(radiograph)),
    ):
        picture = str(tmp_path / f"{name}.png")
        assert job.main(["--model", model, image, "--output", picture]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0].replace("bucket.png", "local.png") == printed[1]
    assert (tmp_path / "bucket.png").read_bytes() == (tmp_path / "local.png").read_bytes()


@pytest.fixture
def archives(phantom: Phantom, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    other = render(ORTHONET[1], np.random.default_rng(1), 256)
    members = {"a.png": write_png(phantom), "b.txt": b"no picture", "c.png": write_png(other)}
    (folder / "two.tar").write_bytes(tar_of(members))
    (folder / "DOE^JANE.png").write_bytes(write_png(other))
    return folder


def test_members_of_archives_by_their_index_and_several_at_once(
    archives: Path, small_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--model", str(small_package), "--output"]
    one = tmp_path / "one.png"
    assert job.main([*call, str(one), str(archives / "DOE^JANE.png")]) == 0
    alone = capsys.readouterr().out
    tar = str(archives / "two.tar")
    words = [tar, "2", str(archives / "DOE^JANE.png"), tar, "1", tar, "0"]
    assert job.main([*call, str(tmp_path / "why"), *words]) == 3, "a member is no picture"
    said = capsys.readouterr().out
    # An archive is read once, in its order.
    assert said.index("4. Outcome") < said.index("1. Outcome") < said.index("2. Outcome")
    assert "3. The image is rejected as not_an_image: " in said
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == ["1.png", "2.png", "4.png"]
    assert (tmp_path / "why" / "1.png").read_bytes() == one.read_bytes()
    assert (tmp_path / "why" / "2.png").read_bytes() == one.read_bytes()
    assert (tmp_path / "why" / "4.png").read_bytes() != one.read_bytes()
    assert said.count(alone.splitlines()[2]) >= 2
    assert said.count(DISCLAIMER) == 1
    assert "DOE" not in said
    assert job.main([*call, str(one), tar, "2"]) == 0
    assert (tmp_path / "why" / "1.png").read_bytes() == one.read_bytes()


def test_a_table_names_radiographs_as_the_predictions_do(
    archives: Path, small_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = storage.normalise(str(tmp_path / "out"))
    names = LooseNames(output, IdentifierPolicy.DROP)
    inputs = storage.normalise(str(archives))
    loose, tar = make_plan([inputs], Records.of(), names=names).todo
    names.keep_key()
    rows = {"record": ["x", "y"], "archive": [tar.name, loose.name], "member_index": [2, 0]}
    pq.write_table(pa.table(rows), tmp_path / "worklist.parquet")
    (tmp_path / "worklist.csv").write_text(
        f"archive,member_index\n{tar.name},2\n{loose.name},0\n", encoding="utf-8-sig"
    )
    for table in ("worklist.parquet", "worklist.csv"):
        call = ["--model", str(small_package), "--table", str(tmp_path / table), "--output"]
        call += [str(tmp_path / f"why-{table}"), "--images", str(archives)]
        assert job.main(call) == 0
        said = capsys.readouterr().out
        assert "1 of 2 rows of --table are loose radiographs under keyed names, and" in said
        assert "Picture: " in said
        assert [path.name for path in (tmp_path / f"why-{table}").iterdir()] == ["1.png"]
        (tmp_path / f"why-{table}" / "1.png").unlink()
        assert job.main([*call, "--predictions", output]) == 0
        one, two = (tmp_path / f"why-{table}" / f"{n}.png" for n in (1, 2))
        assert one.read_bytes() == two.read_bytes()
    assert "DOE" not in capsys.readouterr().out
    (tmp_path / "loose.csv").write_text(f"archive,member_index\n{loose.name},0\n")
    call = ["--model", str(small_package), "--table", str(tmp_path / "loose.csv")]
    with pytest.raises(UsageError, match="keyed names of loose radiographs alone: give --pred"):
        job.main([*call, "--output", str(tmp_path / "none"), "--images", str(archives)])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["7"], "The number 7 follows no archive"),
        (["{in}/two.tar", "1", "2"], "The number 2 follows no archive"),
        (["{in}/two.tar", "3"], "has 3 members, from 0; 3 is none of them"),
        (["{in}/none.tar", "3"], "The archive of No. 1 cannot be read"),
        ([], "either radiographs or a --table"),
        (["a.png", "--table", "b.csv"], "either radiographs or a --table"),
        (["--table", "{in}/none.csv"], "is not there"),
        (["--table", "{in}/two.tar"], "no CSV or Parquet with the columns"),
        (["--table", "{in}/short.csv"], "has no row, or one without"),
        (["--table", "{in}/far.csv", "--images", "{in}"], "Row 2 of --table names an archive"),
    ],
)
def test_what_cannot_be_found_is_a_sentence(
    words: list[str], match: str, archives: Path, small_package: Path, tmp_path: Path
) -> None:
    (archives / "short.csv").write_text("archive,member_index\ntwo.tar,\n")
    (archives / "far.csv").write_text("archive,member_index\ntwo.tar,0\nDOE.tar,0\n")
    call = ["--model", str(small_package), "--output", str(tmp_path / "o.png")]
    with pytest.raises(UsageError, match=match) as error:
        job.main([*call, *(word.replace("{in}", str(archives)) for word in words)])
    assert "DOE" not in str(error.value)
