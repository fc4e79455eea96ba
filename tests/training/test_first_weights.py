"""What a network starts from is looked for as torch and torchvision would, and without them."""

import hashlib
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torchvision import models

from implant_model.errors import UsageError
from implant_model.networks.lite_trunk import LITE1, LITE2, LiteSize, LiteTrunk
from implant_model.networks.spec import BACKBONES, FISHER_LITE
from training import first_weights
from training.first_weights import (
    PRETRAINED,
    SITE,
    check_first_weights,
    hub_folder,
    trunks_of_files,
    weights_digest,
)
from training.settings import NetworkSettings


def test_files_are_those_of_torchvision() -> None:
    for name in BACKBONES:
        assert models.get_model_weights(name).DEFAULT.url == f"{SITE}/{PRETRAINED[name]}"


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_folder_is_that_of_torch(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    assert tmp_path in hub_folder().parents


class Weights(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/resnet18-f37072fd.pth" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A site with the weights of resnet18 alone, and no weights on this machine."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Weights) as server:
        monkeypatch.setattr(first_weights, "SITE", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.usefixtures("site")
def test_weights_are_there_or_can_be_fetched_or_are_refused(tmp_path: Path) -> None:
    check_first_weights(NetworkSettings("resnet18", pretrained=True))
    with pytest.raises(UsageError, match=r"of densenet121 are not in .* could not be fetched"):
        check_first_weights(NetworkSettings("densenet121", pretrained=True))
    hub_folder().mkdir(parents=True)
    (hub_folder() / PRETRAINED["densenet121"]).touch()
    check_first_weights(NetworkSettings("densenet121", pretrained=True))
    assert tmp_path in hub_folder().parents


def test_a_package_has_networks_to_start_from_or_is_refused(small_package: Path) -> None:
    with pytest.raises(UsageError, match="holds no resnet18 to start from; it holds "):
        check_first_weights(NetworkSettings("resnet18", start_from=str(small_package)))
    with pytest.raises(UsageError, match="There is nothing at the model package"):
        check_first_weights(NetworkSettings(start_from=str(small_package / "absent")))


def published(size: LiteSize) -> dict[str, torch.Tensor]:
    colours = torch.ones(32, 3, 3, 3)
    state = LiteTrunk(size).state_dict()
    return {**state, "_conv_stem.weight": colours, "_fc.bias": torch.zeros(9)}


def test_files_of_weights_give_the_trunks_in_any_order(tmp_path: Path) -> None:
    first, folder = tmp_path / "lite1.pth", tmp_path / "lite2"
    folder.mkdir()
    second = folder / "model.safetensors"
    torch.save(published(LITE1), first)
    safetensors.torch.save_file(published(LITE2), second)
    for paths in ([first, folder], [second, first]):
        trunks = trunks_of_files([str(path) for path in paths])
        for size, trunk in zip((LITE1, LITE2), trunks, strict=True):
            LiteTrunk(size).load_state_dict(trunk)
            assert (trunk["_conv_stem.weight"] == 3).all()
    with pytest.raises(UsageError, match="do not hold the weights of an EfficientNet-Lite2"):
        trunks_of_files([str(first), str(first)])
    assert weights_digest(str(first)) == hashlib.sha256(first.read_bytes()).hexdigest()


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("what came out of a file was run",)


def test_files_that_hold_no_trunk_are_refused(tmp_path: Path) -> None:
    other, damaged, harmful = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, other)
    damaged.write_bytes(b"not weights")
    harmful.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(
        UsageError, match=r"a\.pth .*do not hold the weights of an EfficientNet-Lite1"
    ):
        trunks_of_files([str(other)])
    for path in (damaged, harmful):
        with pytest.raises(UsageError, match=r"is no file of weights: safetensors, or"):
            trunks_of_files([str(path)])
    gone = NetworkSettings(FISHER_LITE, weights=(str(other), str(tmp_path / "gone.pth")))
    with pytest.raises(UsageError, match=r"gone\.pth \(network\.weights\) is not there"):
        check_first_weights(gone)
