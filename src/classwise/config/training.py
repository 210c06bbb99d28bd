"""The config of the training process: [training]."""

from typing import Annotated, Literal

from pydantic import Field

from classwise.config.base import Count, NotNegative, Positive, Section


class Training(Section):
    """[training]"""

    plan: Literal["auto", "probe_then_finetune", "probe", "finetune"] = Field(
        "auto",
        description="probe: fit the heads to the features of the frozen backbone, which takes seconds (the first"
        " answer) | probe_then_finetune: then fine-tune from there, and keep what is better | finetune: train at once |"
        " auto: probe_then_finetune with pretrained weights (probe where fewer than 30 rows validate); else, also from"
        " the weights of a run, finetune",
    )
    epochs: Count = Field(30, description="passes over the training rows")
    minutes: Positive | None = Field(
        None,
        description="about how many minutes training may take on this machine, which lowers epochs: measured at the"
        " start (default: as long as epochs take)",
    )
    batch_size: Count = Field(32, description="images per batch; with accumulate > 1, per micro-batch")
    micro_batch: Count | Literal["auto"] = Field(
        "auto",
        description="images computed at once; auto: the whole batch, halved whenever the device runs out of"
        " memory. The gradient stays that of the whole batch, unless the backbone has batch norm (see batch_norm)",
    )
    accumulate: Count = Field(
        1,
        description="gradient accumulation: micro-batches per update, in each process. The gradient is that of one"
        " large batch, unless the backbone has batch norm (see batch_norm)",
    )
    clip_norm: Positive | None = Field(
        None, description="maximum norm of the gradient (default: no clipping)"
    )
    freeze_epochs: Annotated[int, Field(ge=0)] = Field(
        0,
        description="initial epochs that train only the heads, on features computed once (linear probing); then"
        " everything is fine-tuned. If equal to epochs: a linear probe only",
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="decay of an exponential moving average of the weights, such as 0.999; the average is then"
        " evaluated (default: off)",
    )
    target_weights: Literal["fixed", "uncertainty"] = Field(
        "fixed",
        description="fixed: targets.NAME.weight; uncertainty: multiplied by learned weights (Kendall et al. 2018)",
    )
    checkpoint_minutes: NotNegative = Field(
        10.0,
        description="also save a checkpoint within an epoch, this many minutes after the last one; 0 = off",
    )
    checkpoint_updates: Count | None = Field(
        None,
        description="also save a checkpoint within an epoch, every so many updates (default: off)",
    )
    batch_norm: Literal["micro_batch", "frozen"] = Field(
        "micro_batch",
        description="what batch norm normalizes by: micro_batch: the images that are computed at once, so accumulation"
        " is not exact; frozen: the running statistics of the pretrained weights, so it is",
    )
    sync_batch_norm: bool = Field(
        False, description="compute batch norm's statistics over all processes (several GPUs only)"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto (the faster of fp32 and bf16, measured at the start or before; fp32 for a short run) | fp32 |"
        " bf16 | fp16",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto",
        description="memory layout of images and weights: channels_last | contiguous | auto (measured together with"
        " precision, else channels_last)",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="use torch.compile in training: true | false | auto (on a GPU measured together with precision,"
        " else false)",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="number of torch threads on a CPU; auto: measured together with precision"
    )
    device: str = Field("auto", description="auto | cpu | cuda (one GPU per process) | cuda:N")
