"""Settings of a training: read from a file, checked one by one and together."""

import json
import math
from pathlib import Path

import pytest

from implant_model.errors import UsageError
from tests.support.paths import ROOT
from training.config import from_document, load_config


def test_settings_are_read_from_toml_and_json_alike(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "x"\n[fit]\nepochs = 3\n[implants.a]\njoint = "hip"\n')
    document = {"name": "x", "fit": {"epochs": 3}, "implants": {"a": {"joint": "hip"}}}
    (tmp_path / "a.json").write_text(json.dumps(document))
    config = load_config(str(tmp_path / "a.toml"))
    assert config == load_config(str(tmp_path / "a.json"))
    assert config.fit.epochs == 3
    assert from_document(json.loads(json.dumps(config.to_json())), "a copy") == config


def test_settings_with_a_byte_order_mark_are_read_and_none_is_stated_twice(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[fit]\r\nepochs = 3\r\n")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"fit": {"epochs": 3}}')
    (tmp_path / "b.json").write_text('{"fit": {"epochs": 3, "epochs": 7}}')
    assert load_config(str(tmp_path / "a.toml")) == load_config(str(tmp_path / "a.json"))
    with pytest.raises(UsageError, match=r"b.json has 'epochs' twice in a table; leave one"):
        load_config(str(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"fitt": {}}, "fitt is no setting; accepted are name"),
        ({"fit": {"epoch": 3}}, "fit.epoch is no setting"),
        ({"fit": {"epochs": 2.5}}, "fit.epochs is 2.5; a value of type int"),
        ({"fit": {"epochs": -1}}, "fit.epochs is -1; a whole number >= 0"),
        ({"fit": {"learning_rate": math.nan}}, "fit.learning_rate is nan"),
        ({"split": {"folds": 2}}, "split.folds is 2"),
        ({"split": {"seed": -1}}, r"split.seed is -1; 0 to 2\^32 - 1 is expected"),
        ({"segmenter": {"seed": 2**32}}, "segmenter.seed is 4294967296"),
        ({"fit": {"seed": -1}}, "fit.seed is -1"),
        ({"split": {"calibration": 0.6, "test": 0.4}}, "less than 1"),
        ({"augment": {"flip": 2}}, "augment.flip is 2"),
        ({"network": {"pretrained": True, "start_from": "models/phantom"}}, "start_from"),
        ({"implants": {"a": 3}}, "implants.a is 3; a table is expected"),
        ([], "the file is"),
        ({"fit": {"mixed_precision": 1}}, "fit.mixed_precision is 1; a value of type bool"),
        ({"network": {"std": 0.0}}, "network.std is 0.0; 0.001 to 10 is expected"),
        ({"name": "a b"}, "settings in train.toml cannot be used: The name 'a b' is not accepted"),
        ({"implants": {"a": {"hip": 1}}}, r"settings in train.toml .*implants\.a"),
        ({"preprocessing": {"size_px": 7}}, r"train.toml .*: preprocessing.size_px is 7; 16 to"),
        ({"preprocessing": {"size": 64}}, "preprocessing.size is no setting; accepted are size_px"),
        ({"preprocessing": {"fit": "crop"}}, "preprocessing.fit is 'crop'; squash or pad"),
        (
            {"calibration": {"folds": 3}, "network": {"architecture": "densenet11"}},
            "network.architecture is 'densenet11'; one of resnet18, .*, fisher_eff.* is expected",
        ),
        (
            {"calibration": {"folds": 3}},
            "calibration.folds is 3 and network.architecture 'resnet18'; .* Set the folds to 0, or",
        ),
        (
            {"segmenter": {"width": 8}, "network": {"architecture": "fisher"}},
            "segmenter.width is 8 and network.architecture 'fisher', which needs no segmenter",
        ),
        (
            {"network": {"architecture": "fisher", "pretrained": True}},
            "network.pretrained is true and network.architecture 'fisher', which has no such first",
        ),
        (
            {"network": {"architecture": "fisher_efficientnet_lite", "weights": "a.pth"}},
            r"network.weights is \['a.pth'\] and network.architecture 'fisher_efficientnet_lite'; ",
        ),
        (
            {"network": {"architecture": "fisher", "weights": "a.pth"}},
            r"network.weights is \['a.pth'\] and .* 'fisher'; .* fisher takes none",
        ),
        (
            {"network": {"weights": ["a.pth", "b.pth"]}},
            r"network.weights is \['a.pth', 'b.pth'\] and .* 'resnet18'; .* all others one at most",
        ),
        (
            {"network": {"weights": ["a.pth", 1]}},
            r"network.weights is \['a.pth', 1\]; a text, or a list of texts, is expected",
        ),
        (
            {"network": {"pretrained": True, "weights": "a.pth"}},
            "network.pretrained and network.weights are set; each states the first weights",
        ),
        (
            {"network": {"start_from": "a", "weights": "a.pth"}},
            "network.start_from and network.weights are set; each states the first weights",
        ),
        (
            {"network": {"architecture": "convnextv2_atto", "pretrained": True}},
            "network.pretrained is true and network.architecture 'convnextv2_atto', which has no",
        ),
        ({"fit": {"epochs": 0}}, "fit.epochs is 0, which takes the weights of a file"),
        (
            {"fit": {"epochs": 0}, "network": {"weights": "a.pth"}, "segmenter": {"width": 8}},
            "fit.epochs is 0, which takes the weights of a file",
        ),
    ],
)
def test_a_senseless_setting_is_named(document: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_document(document, "train.toml")


@pytest.mark.parametrize(("name", "text"), [("a.toml", "x = ["), ("a.json", "{"), ("b.toml", None)])
def test_a_settings_file_that_cannot_be_read(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"The settings file .*{name}"):
        load_config(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("a.toml", b"# a\n[preprocessing]\nsize_px = 128 px\n", "TOML at its line 3, column 15"),
        ("a.toml", b"x = [", "TOML at its end of document"),
        ("a.toml", b'# a\nname = "\xff"\n', "UTF-8 at its line 2"),
        ("a.json", b'{\n"name": }', "JSON at its line 2 column 9"),
    ],
)
def test_the_place_of_a_fault_in_a_settings_file_is_said(
    tmp_path: Path, name: str, data: bytes, place: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=f"{name} is not (valid )?{place}\\.$"):
        load_config(str(tmp_path / name))


def test_the_settings_that_ship_are_valid() -> None:
    files = sorted((ROOT / "benchmarks" / "configs").glob("*.toml"))
    assert {file.stem for file in files} >= {"phantom", "shoulder"}
    for file in files:
        config = load_config(str(file))
        if config.implants:  # without them the labels are the catalogue
            assert len(config.catalogue(tuple(sorted(config.implants)))) == len(config.implants)


def test_an_implant_without_images_is_refused() -> None:
    config = from_document({"implants": {"stem": {"joint": "hip"}}}, "train.toml")
    with pytest.raises(UsageError, match="'stem', of which there is no image"):
        config.catalogue(("cup", "screw"))
