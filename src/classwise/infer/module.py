"""A trained model as a plain `nn.Module`: for a loop, a server or a script that knows nothing of classwise."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from classwise.data.transform import ImageTransform
from classwise.infer.ensemble import COLUMN, decoded_outputs, mean_outputs
from classwise.infer.tta import VIEWS
from classwise.model.classifier import Classifier
from classwise.model.heads import Head, chosen_labels, probabilities
from classwise.training.loop import PRECISIONS


class TrainedModel(nn.Module):
    """images_BCHW, uint8 or numbers from 0 to 255, in; decoded outputs by target out:

        class        logits (B, K), whose softmax are the probabilities
        ordinal      log-probabilities (B, K) of the levels
        multilabel   logits (B, L), one for each label
        regression   values (B,) in the user's unit
        ranking      scores (B,)

    The normalization is inside. Of several models (of folds) they are the mean's: log-probabilities in place of logits.
    `forward` is a plain pass in the precision of the weights, through which gradients flow; `probabilities` and
    `predicted` give what `predict` gives, in its precision, with its views and decisions.

    models: for the same targets; one, or several whose mean is the answer. In the state dict their weights are
    `models.0.backbone...`, `models.0.heads...`.
    heads: of each model, as they take its raw outputs. `answer_heads`: as they take the outputs of the whole.
    transform: makes (C, H, W) uint8 of an image of any kind, as these models take it.
    labels: the label list of every target that has one.
    joint: the targets that are read as one class, in order.
    precision: what `predict` computes in: fp32, bf16, fp16.
    tta: the views that `predict` sees of each image: none, flip, flip+scale.
    ensemble: what is averaged over several models: probabilities or logits.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        heads: Sequence[Mapping[str, Head]],
        answer_heads: Mapping[str, Head],
        transform: ImageTransform,
        labels: Mapping[str, Sequence[str]],
        joint: Sequence[str] = (),
        precision: str = "fp32",
        tta: str = "none",
        ensemble: str = "probabilities",
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.heads = [dict(own) for own in heads]
        self.answer_heads = dict(answer_heads)
        self.transform = transform
        self.labels = {name: tuple(names) for name, names in labels.items()}
        self.joint = tuple(joint)
        self.precision = precision
        self.tta = tta
        self.ensemble = ensemble
        self.shares_backbone = len(models) > 1 and all(
            model.backbone is models[0].backbone for model in models
        )

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Decoded outputs by target, see the class; of the images as they are, whatever `tta` is."""
        if len(self.models) == 1:
            raw = self.models[0](images_BCHW)
            return {name: head.decode(raw[name]) for name, head in self.heads[0].items()}
        mean = self._mean([images_BCHW])
        return {
            name: mean[name][:, 0] if head.type in COLUMN else mean[name]
            for name, head in self.heads[0].items()
        }

    @torch.no_grad()
    def probabilities(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """What `predict` writes, by target, float64 on the host: of classes, levels and labels their probabilities
        (B, K), of regressions and rankings the numbers (B,)."""
        answers = self._answers(images_BCHW)
        return {
            name: probabilities(decoded, self.answer_heads[name].type).double()
            for name, decoded in answers.items()
        }

    @torch.no_grad()
    def predicted(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """The predictions of `predict` on the host, by target: of a target with classes their numbers (B,), which
        `labels` names; of a multilabel target which labels are there, (B, L) bool. Targets without labels have no
        entry."""
        found = {}
        for name, decoded in self._answers(images_BCHW).items():
            head = self.answer_heads[name]
            if head.type == "multilabel":
                found[name] = chosen_labels(head, decoded)
            elif head.classes:
                found[name] = head.predicted(decoded)
        return found

    def _answers(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Decoded outputs on the host, as `predict` computes them: in eval mode, in its precision, with its views."""
        device = next(self.parameters()).device
        dtype = PRECISIONS[self.precision]
        with _evaluating(self), torch.autocast(device.type, dtype=dtype, enabled=dtype.itemsize < 4):
            if len(self.models) == 1 and self.tta == "none":
                outputs = self.models[0](images_BCHW.to(device))
            else:
                # Views are made from pixels on the host.
                images_BCHW = images_BCHW.cpu()
                outputs = self._mean([view(images_BCHW).to(device) for view in VIEWS[self.tta]])
        return {name: head.decode(outputs[name].cpu()) for name, head in self.answer_heads.items()}

    def _mean(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """The mean of what all models say, each of all views (B, C, H, W), as a `DecodedHead` takes it."""
        # A model takes features in place of images, so that a common backbone sees each view once.
        first = cast(Classifier, self.models[0])
        given = [first.features(view) for view in views] if self.shares_backbone else views
        means = []
        for model, heads in zip(self.models, self.heads, strict=True):
            decoded = [decoded_outputs(model(view), heads) for view in given]
            means.append(mean_outputs(decoded, heads))
        return mean_outputs(means, self.heads[0], self.ensemble)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode until the end of the block; then every part has its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
