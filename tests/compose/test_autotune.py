"""No `auto` is left in the resolved config."""

from collections.abc import Callable

from classwise.compose.autotune import resolve_auto
from classwise.compose.loaders import augmentation
from classwise.config.load import make_config
from classwise.console import Console
from classwise.data.augment import PRESETS
from tests.helpers.noisy_images import KIND, Scene


def test_the_resolved_config_holds_no_auto(scene: Callable[..., Scene]) -> None:
    """The resolved config gives the same run again: every `auto` and every part of the augmentation is a value. How
    workers are started and where decoded images are kept is the machine's matter, and changes no
    number; the micro-batch falls where memory runs out."""
    training = {"precision": "auto", "threads": "auto", "device": "auto"}
    data = {"workers": "auto", "augment": {"preset": "standard", "flip": 0.25}}
    s = scene({"kind": KIND}, training=training, data=data)
    resolved, device, _plans = resolve_auto(s.config, s.splits, s.model, Console(quiet=True))
    for section in (resolved.data, resolved.training):
        assert "auto" not in section.model_dump(exclude={"start_method", "cache", "micro_batch"}).values()
    assert resolved.training.device == str(device)
    assert resolved.data.id == "path"
    parts = resolved.data.augment.model_dump()
    assert parts == {"preset": "standard"} | vars(PRESETS["standard"]) | {"flip": 0.25}
    assert augmentation(resolved) == augmentation(s.config)
    assert resolve_auto(resolved, s.splits, s.model, Console(quiet=True))[0] == resolved
    assert make_config(resolved.model_dump()) == resolved
