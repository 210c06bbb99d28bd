"""The trainers of small_data.py, each as its own tutorial has it. A process runs one of them: trainers.py JOB ANSWER.

All start from the weights of one file and get the same training rows; each makes its own validation rows of them. What
differs from a tutorial is said at the trainer; for all, the model is tf_efficientnet_lite0, the images have the size of
the job, a batch has 32 of them, two worker processes load them, and there are as many epochs as the job says.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sidebyside.commands import classwise
from sidebyside.job import BATCH, WORKERS, Job, Marks, read_job, write_answer

BACKBONE = "tf_efficientnet_lite0"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # what these weights were trained with
VALID = 0.2

Pair = tuple[str, int]


def lightning(job: Job, marks: Marks) -> list[str]:
    """Lightning: the LightningModule of its introduction (Adam at 1e-3, cross entropy) with the transforms of its
    fine-tuning example (resized, mirrored), `random_split`, and ModelCheckpoint(monitor="val_loss")."""
    import pytorch_lightning as L
    import torch
    import torch.nn.functional as F
    from pytorch_lightning.callbacks import ModelCheckpoint

    L.seed_everything(job.seed)
    train, valid = random_parts(job)
    change, look = plain_transforms(job.size)

    class Module(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model(job)

        def training_step(self, batch: Any, index: int) -> Any:
            images, labels = batch
            loss = F.cross_entropy(self.model(images), labels)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            images, labels = batch
            self.log("val_loss", F.cross_entropy(self.model(images), labels))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:  # validated, and its checkpoint written
                marks.mark_first()

    checkpoint = ModelCheckpoint(monitor="val_loss")
    trainer = L.Trainer(
        max_epochs=job.epochs,
        default_root_dir=job.out,
        accelerator="cpu",
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    trainer.fit(
        module,
        new_loader(job, train, change, shuffle=True, persistent_workers=True),
        new_loader(job, valid, look, persistent_workers=True),
    )
    marks.mark_first()
    best = torch.load(checkpoint.best_model_path, weights_only=True)
    module.load_state_dict(best["state_dict"])
    marks.mark_whole()
    return predicted(job, module.model, look)


def hf_trainer(job: Job, marks: Marks) -> list[str]:
    """HF Trainer: the guide to image classification in the transformers documentation (RandomResizedCrop, learning
    rate 5e-5 falling linearly after a tenth of warm-up, the checkpoint with the best accuracy), without its
    accumulation over four batches of 16."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    import transformers
    from torchvision import transforms as t

    transformers.logging.set_verbosity_error()
    transformers.set_seed(job.seed)
    train, valid = random_parts(job)
    normal = [t.ToTensor(), t.Normalize(MEAN, STD)]
    change = t.Compose([t.RandomResizedCrop(job.size), *normal])
    look = t.Compose([t.Resize(job.size), t.CenterCrop(job.size), *normal])

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model(job)

        def forward(self, pixel_values: Any, labels: Any) -> Any:
            logits = self.model(pixel_values)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    class First(transformers.TrainerCallback):  # type: ignore[misc]
        def on_save(self, *_: Any, **__: Any) -> None:
            marks.mark_first()

    def collate(items: Any) -> Any:
        images, labels = zip(*items, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    def metrics(found: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(found.predictions.argmax(1) == found.label_ids))}

    model = Model()
    arguments = transformers.TrainingArguments(
        job.out,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        learning_rate=5e-5,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        num_train_epochs=job.epochs,
        warmup_steps=0.1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        save_total_limit=2,
        dataloader_num_workers=WORKERS,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=job.seed,
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=images_of(job, train, change),
        eval_dataset=images_of(job, valid, look),
        compute_metrics=metrics,
        callbacks=[First()],
    )
    trainer.train()
    marks.mark_whole()
    return predicted(job, model.model, look)


def fastai(job: Job, marks: Marks) -> list[str]:
    """fastai: ImageDataLoaders, vision_learner and fine_tune of its vision tutorial, which trains an epoch with the
    body frozen and then the epochs that it is told; the last model is taken. The list of classes is given, since a
    random split may leave none of a rare class for training."""
    import pandas as pd
    from fastai.vision import all as vision

    class First(vision.Callback):  # type: ignore[misc]
        def after_epoch(self) -> None:
            marks.mark_first()

    vision.set_seed(job.seed)
    labels = job.labels()
    loaders = vision.ImageDataLoaders.from_df(
        pd.DataFrame(job.train_rows()),
        job.folder,
        valid_pct=VALID,
        seed=job.seed,
        y_block=vision.CategoryBlock(vocab=labels),
        item_tfms=vision.Resize(job.size),
        bs=BATCH,
        num_workers=WORKERS,
    )
    learner = vision.vision_learner(
        loaders,
        BACKBONE,
        metrics=vision.error_rate,
        path=job.out,
        cbs=[First()],
        pretrained_cfg_overlay=weights_of(job),
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(job.epochs)
        marks.mark_whole()
        test = loaders.test_dl(pd.DataFrame([(path, "") for path in job.test_paths()]))
        found, _ = learner.get_preds(dl=test)
    return [labels[k] for k in found.argmax(1).tolist()]


def timm_script(job: Job, marks: Marks) -> list[str]:
    """timm: the steps of its training script, which cannot be imported, with the script's transforms (random resized
    crop, mirrored, colour jitter), label smoothing and cosine schedule. In place of its SGD from scratch a usual way to
    fine-tune with it: AdamW at 5e-4 with a weight decay of 0.05 and an epoch of warm-up. The epoch with the best
    accuracy is taken."""
    import timm
    from timm.data import create_transform
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter, CheckpointSaver, random_seed

    random_seed(job.seed)
    train, valid = random_parts(job)
    normal = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    change = create_transform(job.size, is_training=True, **normal)
    look = create_transform(job.size, crop_pct=0.875, **normal)
    train_loader = new_loader(
        job, train, change, shuffle=True, drop_last=len(train) >= BATCH, persistent_workers=True
    )
    valid_loader = new_loader(job, valid, look, persistent_workers=True)
    model = new_model(job)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.05)
    schedule, epochs = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=job.epochs,
        warmup_epochs=min(1, job.epochs - 1),
        warmup_lr=1e-5,
        step_on_epochs=False,
        updates_per_epoch=len(train_loader),
    )
    loss_of = LabelSmoothingCrossEntropy(0.1)
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=job.out, recovery_dir=job.out, max_history=1)
    updates = 0
    for epoch in range(epochs):
        model.train()
        losses = AverageMeter()
        for images, labels in train_loader:
            loss = loss_of(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(images))
            updates += 1
            schedule.step_update(num_updates=updates)
        schedule.step(epoch + 1)
        saver.save_checkpoint(epoch, metric=accuracy(model, valid_loader))
        marks.mark_first()
    best = Path(job.out) / "model_best.pth.tar"
    timm.models.load_checkpoint(model, str(best), weights_only=False)
    marks.mark_whole()
    return predicted(job, model, look)


def logistic(job: Job, marks: Marks) -> list[str]:
    """The script with scikit-learn: features of the frozen backbone for all training rows, standardized, and a
    logistic regression with balanced class weights. It holds no rows out; what it has at the end is its first model."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = job.train_rows()
    paths, labels = zip(*rows, strict=True)
    model = new_model(job, classes=0)
    head = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    head.fit(features(job, model, paths), labels)
    marks.mark_first()
    marks.mark_whole()
    return [str(label) for label in head.predict(features(job, model, job.test_paths()))]


def new_model(job: Job, classes: int | None = None) -> Any:
    """timm's model with the weights of the job and a new head; with `classes=0` it outputs its features."""
    import timm

    classes = len(job.labels()) if classes is None else classes
    return timm.create_model(
        BACKBONE, pretrained=True, num_classes=classes, pretrained_cfg_overlay=weights_of(job)
    )


def weights_of(job: Job) -> dict[str, Any]:
    """In place of timm's own entry for its hub."""
    return {"file": job.weights, "mean": MEAN, "std": STD}


def plain_transforms(size: int) -> tuple[Any, Any]:
    """For training and for validation: resized to `size` x `size`, the former mirrored at random."""
    from torchvision import transforms as t

    normal = [t.ToTensor(), t.Normalize(MEAN, STD)]
    resized = t.Resize((size, size))
    return t.Compose([resized, t.RandomHorizontalFlip(), *normal]), t.Compose([resized, *normal])


def random_parts(job: Job) -> tuple[list[Pair], list[Pair]]:
    """(path, class number) for training and for validation: a fifth, at random, as `random_split` does it."""
    import torch

    number = {label: k for k, label in enumerate(job.labels())}
    rows = [(path, number[label]) for path, label in job.train_rows()]
    generator = torch.Generator().manual_seed(job.seed)
    train, valid = torch.utils.data.random_split(rows, [1 - VALID, VALID], generator)  # type: ignore[arg-type]
    return list(train), list(valid)


def images_of(job: Job, rows: Sequence[Pair], transform: Any) -> Any:
    """A Dataset of (image, class number), decoded by Pillow."""
    from PIL import Image
    from torch.utils.data import Dataset

    class ImageDataset(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> Any:
            path, number = rows[i]
            with (job.folder / path).open("rb") as file:
                return transform(Image.open(file).convert("RGB")), number

    return ImageDataset()


def new_loader(job: Job, rows: Sequence[Pair], transform: Any, **options: Any) -> Any:
    from torch.utils.data import DataLoader

    dataset = images_of(job, rows, transform)
    return DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, **options)


def outputs(job: Job, model: Any, paths: Sequence[str], transform: Any) -> Any:
    """The model's outputs for all images, (N, K)."""
    import torch

    loader = new_loader(job, [(path, 0) for path in paths], transform)
    model.eval()
    with torch.no_grad():
        return torch.cat([model(images) for images, _ in loader])


def predicted(job: Job, model: Any, transform: Any) -> list[str]:
    """The labels of the test rows."""
    labels = job.labels()
    return [labels[k] for k in outputs(job, model, job.test_paths(), transform).argmax(1).tolist()]


def features(job: Job, model: Any, paths: Sequence[str]) -> Any:
    return outputs(job, model, paths, plain_transforms(job.size)[1]).numpy()


def accuracy(model: Any, loader: Any) -> float:
    """Percent of the rows."""
    import torch

    model.eval()
    with torch.no_grad():
        hits = [(model(images).argmax(1) == labels).float() for images, labels in loader]
    return 100 * float(torch.cat(hits).mean())


PEERS: dict[str, Callable[[Job, Marks], list[str]]] = {
    "lightning": lightning,
    "hf": hf_trainer,
    "fastai": fastai,
    "timm": timm_script,
}
TRAINERS = {**PEERS, "logistic": logistic, "classwise": classwise}


def main() -> None:
    job, answer = read_job(Path(sys.argv[1])), Path(sys.argv[2])
    warnings.simplefilter("ignore")  # the peers' own
    marks = Marks(job.started)
    with tempfile.TemporaryDirectory(dir=job.out) as folder:
        os.chdir(folder)  # whatever a trainer writes beside what it is told
        predictions = TRAINERS[job.trainer](job, marks)
    write_answer(marks, predictions, answer)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
