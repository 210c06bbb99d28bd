"""The hub: its cache comes first, it is asked once and briefly, and not at all where that is switched off."""

import sys
import threading
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from classwise.suggest import hub
from classwise.suggest.backbone import HUB_BACKBONE


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own HF_HUB_OFFLINE taken back; each test replaces what would go to the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def cache_weights(folder: Path) -> None:
    """What the hub's client leaves behind when it has fetched the file."""
    repository = folder / f"models--timm--{HUB_BACKBONE}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / hub.WEIGHTS_FILE).touch()


def refuse(repository: str) -> bool:
    raise AssertionError(f"the hub was asked for {repository}")


@pytest.mark.usefixtures("online")
def test_the_hub_has_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of timm's own repository is asked for, without credentials."""
    asked = []

    def answer(url: str, token: bool, timeout: float) -> None:
        asked.append((url, token, timeout))

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
    assert hub.find_on_hub(HUB_BACKBONE) == (True, "the Hugging Face hub has them")
    url, token, timeout = asked.pop()
    assert url.endswith(f"/timm/{HUB_BACKBONE}/resolve/main/model.safetensors")
    assert token is False
    assert timeout == hub.TIMEOUT_SECONDS
    assert not asked


def test_the_repository_is_the_one_that_timm_loads_from() -> None:
    """timm's own entry for the backbone."""
    from classwise.model.timm_module import import_timm

    timm = import_timm()
    assert timm.get_pretrained_cfg(HUB_BACKBONE).hf_hub_id == f"timm/{HUB_BACKBONE}"
    assert timm.is_model(HUB_BACKBONE.partition(".")[0])


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("error", [TimeoutError("no network"), OSError("certificate"), ValueError("?")])
def test_any_error_means_no(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong on the way, `init` goes on without the hub."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    assert hub.find_on_hub(HUB_BACKBONE) == (False, "the Hugging Face hub does not answer")


@pytest.mark.usefixtures("online")
def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the look-up of its name takes minutes; the thread that still waits does not keep the program alive."""
    never = threading.Event()
    threads = []

    def hang(repository: str) -> bool:
        threads.append(threading.current_thread())
        never.wait()
        return True

    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(hub, "_has_weights", hang)
    try:
        assert hub.find_on_hub(HUB_BACKBONE) == (False, "the Hugging Face hub does not answer")
    finally:
        never.set()
    assert all(thread.daemon for thread in threads)


@pytest.mark.usefixtures("online")
def test_a_copy_on_this_machine_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found in the cache of the hub's client, also with HF_HUB_OFFLINE."""
    cache_weights(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_has_weights", refuse)
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert hub.find_on_hub(HUB_BACKBONE) == (True, "this machine has a copy from the Hugging Face hub")


def test_offline_keeps_off_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE, which these tests set for themselves."""
    monkeypatch.setattr(hub, "_has_weights", refuse)
    assert hub.find_on_hub(HUB_BACKBONE) == (False, "HF_HUB_OFFLINE keeps off the Hugging Face hub")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package may be missing, as it is timm's dependency and not ours."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert hub.find_on_hub(HUB_BACKBONE) == (False, "huggingface_hub is not installed")
