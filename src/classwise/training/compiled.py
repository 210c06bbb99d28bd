"""The model's forward pass by torch.compile, in such a way that a resumed run computes the same bits.

See docs/decisions/0002-randomness-and-resume.md.
"""

from collections.abc import Callable

from torch import Tensor

from classwise.errors import ConfigError
from classwise.model.classifier import Classifier
from classwise.own_parts.reference import short


def compiled_sizes(batch_size: int, micro_batch: int) -> frozenset[int]:
    """The numbers of images in the chunks that whole batches are computed in, however often memory runs out (see
    `Batch.parts`)."""
    sizes = set[int]()
    chunk_size = micro_batch or batch_size
    while chunk_size:
        chunks = -(-batch_size // chunk_size)
        sizes |= {batch_size // chunks, -(-batch_size // chunks)}
        chunk_size = -(-chunk_size // 2) if chunk_size > 1 else 0
    return frozenset(sizes)


def compiled(model: Classifier, sizes: frozenset[int]) -> Callable[[Tensor], dict[str, Tensor]]:
    """The model's forward pass, compiled for batches of these `sizes` when one first comes. Other batches, such as a
    short last one, are computed by the model as it is: compiling would take longer than it saves. Raises ConfigError.

    Each size is compiled for itself, whatever came before. Code for any size would depend on the sizes that this
    process has seen, and so would a resumed run's bits on where it was stopped.
    """
    import torch._dynamo  # a second, and only needed here
    from torch._dynamo.exc import BackendCompilerFailed

    # What was compiled before in this process counts against a limit, beyond which nothing is compiled any more.
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
                f"training.compile: found true, but torch cannot compile {short(model.metadata.backbone)} here: {error}"
            ) from error
        return found

    return compute
