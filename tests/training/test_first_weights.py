"""What a network starts from is looked for as torch and torchvision would, and without them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from torchvision import models

from implant_model.errors import UsageError
from implant_model.networks.spec import BACKBONES
from training import first_weights
from training.config import NetworkSettings
from training.first_weights import PRETRAINED, SITE, check_first_weights, hub_folder


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
