"""What the service answers, as models that also make its OpenAPI description."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class LabelProbability(BaseModel):
    """One label and its probability."""

    label: str
    probability: float


class ClassAnswer(BaseModel):
    """Of a target whose images have exactly one label."""

    type: Literal["class", "ordinal"]
    label: str = Field(description="The predicted label, as a decision of folds has it where there is one.")
    probability: float = Field(description="That of the predicted label.")
    probabilities: dict[str, float] | None = Field(
        None, description="Of every label, in the order of the label list; only up to 200 labels."
    )
    top: list[LabelProbability] | None = Field(
        None, description="The five most probable labels, where there are more than 200."
    )
    abstain: bool | None = Field(
        None,
        description="Whether the answer is less probable than `decision.abstain`; only where that is set.",
    )


class LabelsAnswer(BaseModel):
    """Of a target whose images have any number of labels."""

    type: Literal["multilabel"]
    labels: list[str] = Field(description="The predicted labels; may be none.")
    probabilities: dict[str, float] = Field(description="Of every label, each for itself.")
    abstain: bool | None = Field(None, description="As of a class.")


class ValueAnswer(BaseModel):
    """Of a target that is a number."""

    type: Literal["regression"]
    value: float = Field(description="In the unit of the training table.")


class ScoreAnswer(BaseModel):
    """Of a target that ranks images."""

    type: Literal["ranking"]
    score: float = Field(description="Higher is more relevant; it has no unit.")


TargetAnswer = Annotated[ClassAnswer | LabelsAnswer | ValueAnswer | ScoreAnswer, Field(discriminator="type")]


class JointAnswer(BaseModel):
    """Of the class that several targets make together."""

    number: int = Field(description="The number of the joint class, from 0.")
    probability: float | None = Field(
        None, description="The product of the targets' probabilities; not where a target is a number."
    )
    abstain: bool | None = Field(None, description="Whether one of its targets abstains.")


class ImageAnswer(BaseModel):
    """Of one image: `targets`, or `error`."""

    name: str | None = Field(None, description="The file name as it was sent; null where there was none.")
    targets: dict[str, TargetAnswer] | None = Field(None, description="The predictions by target.")
    joint: JointAnswer | None = None
    error: str | None = Field(None, description="Why this image cannot be used.")


class Answer(BaseModel):
    """Of one request: an entry for each image, in the order in which they were sent."""

    images: list[ImageAnswer]


class Problem(BaseModel):
    """Why a request was not answered: what was found, and what is allowed."""

    error: str


class TargetInfo(BaseModel):
    """One target of the model."""

    type: str
    labels: list[str]
    training_images: dict[str, int] | None = Field(
        None, description="How many training images each label has, where the run says so."
    )


class Health(BaseModel):
    """That the service answers, and with what."""

    status: Literal["ready"]
    version: str = Field(description="Of classwise.")
    model: str = Field(description="The name of the run, or of the folds.")
    backbone: str
    image_size: tuple[int, int] = Field(
        description="Height and width, in pixels, that images are brought to."
    )
    models: int = Field(description="How many models are averaged.")
    engine: str = Field(description="torch or onnx.")
    targets: dict[str, TargetInfo]
    max_images: int = Field(description="Of one request.")
    max_bytes: int = Field(description="Of the body of one request.")
