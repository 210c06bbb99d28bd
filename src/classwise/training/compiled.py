"""The model's forward pass in training by torch.compile, such that a resumed run computes the same bits
(docs/decisions/0002-randomness-and-resume.md)."""

from collections.abc import Callable

from torch import Tensor

from classwise.errors import ConfigError
from classwise.model.classifier import Classifier


def compiled_sizes(batch_size: int, micro_batch: int) -> frozenset[int]:
    """Images in the pieces that whole batches are computed in, also when memory has run out some times (see
    `Batch.parts`)."""
    sizes, most = set[int](), micro_batch or batch_size
    while most:
        pieces = -(-batch_size // most)
        sizes |= {batch_size // pieces, -(-batch_size // pieces)}
        most = -(-most // 2) if most > 1 else 0
    return frozenset(sizes)


def compiled(model: Classifier, sizes: frozenset[int]) -> Callable[[Tensor], dict[str, Tensor]]:
    """The model's forward pass by torch.compile, which is done when images in such a number first come; for others,
    such as a short last batch, compiling would take longer than it saves. Raises ConfigError.

    Each number is compiled for itself, whatever came before: code for any number would depend on which numbers this
    process has seen, and so a resumed run's bits on where it was stopped.
    """
    import torch._dynamo  # a second, and only needed here
    from torch._dynamo.exc import BackendCompilerFailed

    # What was compiled before in this process counts against a limit, beyond which nothing more is.
    torch.compiler.reset()
    run = torch.compile(model, dynamic=False)
    unlimited = torch._dynamo.config.patch(recompile_limit=10_000)

    def compute(images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor]
        if images.ndim == 2 or len(images) not in sizes:  # features of a frozen backbone, or a short batch
            found = model(images)
            return found
        try:
            with unlimited:
                found = run(images)
        except BackendCompilerFailed as error:
            raise ConfigError(
                f"training.compile: found true, but torch cannot compile {model.metadata.backbone} here: {error}"
            ) from error
        return found

    return compute
