"""The config of learning-rate schedules: one section for each. optim/schedules.py computes them."""

from typing import Annotated, Literal

from pydantic import Field

from classwise.config.base import Count, NotNegative, Positive, Section


class _Schedule(Section):
    """What all schedules have in common."""

    warmup_epochs: NotNegative = Field(
        0.0, description="epochs of linear warm-up from 0, before the schedule begins"
    )
    restart_after: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] | None = Field(
        None,
        description="epochs after which the schedule begins again, with its warm-up, over the epochs up to the next of"
        " these or the last one (default: never); `classwise resume --schedule restart` sets it",
    )


class Constant(_Schedule):
    """[schedule] name = "constant" """

    name: Literal["constant"]


class Step(_Schedule):
    """[schedule] name = "step" """

    name: Literal["step"]
    step_size: Count = Field(10, description="epochs between two reductions")
    gamma: Positive = Field(0.1, description="factor of the learning rate at each reduction")


class Cosine(_Schedule):
    """[schedule] name = "cosine" """

    name: Literal["cosine"]
    T_max: Positive | None = Field(
        None, description="epochs from lr down to eta_min (default: all after the warm-up)"
    )
    eta_min: NotNegative = Field(0.0, description="lowest learning rate")


class Restarts(_Schedule):
    """[schedule] name = "restarts" """

    name: Literal["restarts"]
    T_0: Count = Field(10, description="epochs of the first cycle")
    T_mult: Count = Field(1, description="each cycle is this many times as long as the one before")
    eta_min: NotNegative = Field(0.0, description="lowest learning rate")


class Polynomial(_Schedule):
    """[schedule] name = "polynomial" """

    name: Literal["polynomial"]
    power: Positive = Field(1.0, description="exponent of the decay; 1 = linear")
    total_epochs: Positive | None = Field(
        None, description="epochs until the learning rate is 0 (default: all after the warm-up)"
    )


class Plateau(_Schedule):
    """[schedule] name = "plateau" """

    name: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="factor of the learning rate at each reduction"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        10, description="epochs without improvement before a reduction"
    )
    threshold: NotNegative = Field(1e-4, description="smallest change that counts as an improvement")
    threshold_mode: Literal["rel", "abs"] = Field(
        "rel", description="rel: threshold is a fraction of the best value; abs: a difference from it"
    )
    cooldown: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs after a reduction in which patience does not count"
    )
    min_lr: NotNegative = Field(0.0, description="lowest learning rate")


class OneCycle(_Schedule):
    """[schedule] name = "onecycle" """

    name: Literal["onecycle"]
    max_lr: Positive | None = Field(None, description="highest learning rate (default: optimizer.lr)")
    pct_start: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="fraction of the cycle in which the learning rate rises"
    )
    anneal_strategy: Literal["cos", "linear"] = Field(
        "cos", description="shape of the rise and fall: cos | linear"
    )
    div_factor: Positive = Field(25.0, description="initial learning rate = max_lr / div_factor")
    final_div_factor: Positive = Field(
        1e4, description="final learning rate = initial one / final_div_factor"
    )


Schedule = Annotated[
    Constant | Step | Cosine | Restarts | Polynomial | Plateau | OneCycle, Field(discriminator="name")
]
