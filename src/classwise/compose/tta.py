"""Which test-time augmentation a config may have: only what the training has shown the model."""

from classwise.compose.loaders import augmentation
from classwise.config.schema import Config
from classwise.errors import ConfigError

CANDIDATES = ("flip", "flip+scale")
"""What `auto` chooses from, beside none, in this order."""


def refusal_of(config: Config, tta: str) -> str:
    """Why the augmentation `tta` is not for this training, as a message that names both keys; empty if it is.

    Who switches flips off in training says that left and right tell classes apart; who crops nothing, that a model sees
    all images at one scale.
    """
    augment = augmentation(config)
    allowed = 'allowed: "none", or train with it'
    if tta in CANDIDATES and not augment.flip:
        return (
            f"inference.tta: found {tta!r}, but training mirrors no image (data.augment.flip is 0), as for text and"
            f" wherever left and right tell classes apart; {allowed}"
        )
    if tta == "flip+scale" and augment.crop == 1:
        return (
            f"inference.tta: found {tta!r}, but training enlarges no image (data.augment.crop is 1);"
            ' allowed: "none" or "flip", or train with it'
        )
    return ""


def check_tta(config: Config) -> None:
    """Raise ConfigError where inference.tta contradicts the training."""
    if refusal := refusal_of(config, config.inference.tta):
        raise ConfigError(refusal)


def tta_of_run(config: Config) -> str:
    """The test-time augmentation of a single run. Raises ConfigError where it contradicts the training, and for `auto`:
    the validation rows have chosen the model's epoch, and the test rows must choose nothing."""
    if config.inference.tta == "auto":
        raise ConfigError(
            "inference.tta: found 'auto', which out-of-fold rows decide, and a single run has none; allowed: none,"
            " flip, flip+scale, or `classwise folds`"
        )
    check_tta(config)
    return config.inference.tta
