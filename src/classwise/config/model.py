"""The config of the model: [model]."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from classwise.config.base import Probability, Section

NAMED_WEIGHTS = ("none", "pretrained")
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


class Model(Section):
    """[model]"""

    backbone: str = Field(
        "small_cnn",
        description="small_cnn, small_cnn_gn (built in; the second with group norm), the name of any timm model, or a"
        " module of your own, FILE.py:NAME",
    )
    weights: str = Field(
        "none",
        description="none | pretrained (timm's, from the hub) | path of a .safetensors file (`classwise convert`"
        ' makes one of a .pth) | the folder of a run, whose best weights it starts from | "package:NAME"',
    )
    image_size: Annotated[tuple[int, int], Field(strict=False)] = Field(
        (64, 64), description="height and width of the model's input, in pixels"
    )
    channels: Annotated[int, Field(ge=1, le=64)] = Field(
        3,
        description="channels of the images: 3 (RGB) | 1 (gray) | any other number that all files have, such as 2 or 4"
        " of TIFF files, as they are stored",
    )
    mean: Annotated[tuple[Probability, ...], Field(strict=False)] | None = Field(
        None,
        description="mean of each channel, of pixel values from 0 to 1, that images are normalized by (default: that of"
        " the pretrained weights; 0.5 for built-in backbones)",
    )
    std: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False)] | None = Field(
        None,
        description="standard deviation of each channel that images are normalized by (default: as for mean)",
    )
    fit: Literal["squash", "crop", "pad"] = Field(
        "squash", description="how images of other shapes are brought to image_size: squash | crop | pad"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="dropout rate between the backbone and the heads"
    )
    pooling: Literal["last", "layers"] = Field(
        "last",
        description="what the heads see: last (the backbone's last layer) | layers (also mean and standard deviation"
        " over the image of layers further down, where textures and small defects are seen)",
    )

    @property
    def starts_from_run(self) -> bool:
        """Whether `weights` is the folder of a run."""
        is_file = self.weights.lower().endswith(WEIGHT_SUFFIXES)
        return not (is_file or self.weights in NAMED_WEIGHTS or self.weights.startswith("package:"))

    @model_validator(mode="after")
    def _sizes(self) -> "Model":
        if not all(8 <= side <= 4096 for side in self.image_size):
            raise ValueError(f"image_size: found {list(self.image_size)}, each side must be from 8 to 4096")
        return self

    @model_validator(mode="after")
    def _a_number_for_each_channel(self) -> "Model":
        for key in ("mean", "std"):
            numbers = getattr(self, key)
            if numbers is not None and len(numbers) != self.channels:
                raise ValueError(
                    f"{key}: found {len(numbers)} numbers, but model.channels is {self.channels}; allowed: one for each"
                    " channel"
                )
        return self
