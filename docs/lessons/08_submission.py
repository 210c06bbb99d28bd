# %% [markdown]
# # 8. The submission
#
# At the end of a competition stands a file: a template with an id in every row, into which your answers go. It is
# where good models are lost, since nobody tells you that the rows are in another order. Here you write the file by
# hand, look at what can go wrong, and compare it with that of `classwise submit`.

# %%
import csv
import io
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import classwise
from classwise.data.pixel_format import PixelFormat
from classwise.demo.fashion import LABELS, read_bundle, write_fashion
from classwise.model.classifier import build_classifier

torch.set_num_threads(1)
folder = tempfile.TemporaryDirectory()
place = Path(folder.name)
write_fashion(place)

# %% [markdown]
# ## The template
#
# 1,000 rows. The ids are the paths of the test images; the column `label` has T-shirt everywhere, as a placeholder.
# The rows are *not* in the order of the file names.

# %%
with (place / "template.csv").open(newline="") as file:
    template = list(csv.DictReader(file))
ids = [row["path"] for row in template]
assert len(ids) == len(set(ids)) == 1000
assert {row["label"] for row in template} == {"T-shirt"}
assert ids != sorted(ids)

# %% [markdown]
# ## A model
#
# One epoch is enough to have answers.

# %%
config = classwise.make_config(
    {
        "data": {"source": str(place / "train.csv"), "images": str(place), "valid": 0.1, "augment": "none"},
        "targets": {"label": {"column": "label", "labels": list(LABELS)}},
        "model": {"backbone": "small_cnn_gn", "image_size": [28, 28], "channels": 1},
        "optimizer": {"name": "adamw", "lr": 2e-3},
        "training": {"epochs": 1, "batch_size": 32, "precision": "fp32", "threads": 1},
        "report": {"baselines": False, "resamples": 0},
    }
)
run = classwise.train(config, place / "run", quiet=True)

# %% [markdown]
# ## The answers by hand
#
# Inference as in lesson 6. The answers belong to the images in the order of *our* data: keep each with its id, and
# look it up for each row of the template.

# %%
model = build_classifier(
    backbone="small_cnn_gn",
    weights="none",
    image_size=(28, 28),
    fit="squash",
    dropout=0.0,
    heads={"label": 10},
    seed=0,
    pixels=PixelFormat(1),
)
model.load_state_dict(load_file(run.path / "checkpoints" / "best" / "model.safetensors"))
pixels, labels = (torch.from_numpy(array) for array in read_bundle("test"))
model.eval()
with torch.no_grad():
    predicted = torch.cat([model(batch)["label"] for batch in pixels[:, None].split(32)]).argmax(dim=1)
answer_of = {f"images/test/{number:04d}.png": LABELS[k] for number, k in enumerate(predicted)}

text = io.StringIO()
writer = csv.DictWriter(text, ["path", "label"], lineterminator="\n")
writer.writeheader()
writer.writerows({"path": id, "label": answer_of[id]} for id in ids)

# %% [markdown]
# Writing the answers below each other in the order of the file names would have given a file that looks right, with
# the right ids, and answers that belong to other rows. Its score is that of guessing: with ten classes of the same
# size, near 0.1.

# %%
truth_of = {f"images/test/{number:04d}.png": LABELS[k] for number, k in enumerate(labels)}
in_file_order = dict(zip(ids, answer_of.values(), strict=True))


def accuracy(answers: dict[str, str]) -> float:
    return sum(answers[id] == truth_of[id] for id in ids) / len(ids)


assert accuracy(answer_of) > 0.3
assert abs(accuracy(in_file_order) - 0.1) < 0.05

# %% [markdown]
# ## The same with classwise
#
# `run.submit` (on the command line `classwise submit`) fills in the answers by id, in the order of the template,
# and writes nothing if the result would contradict it.

# %%
run.submit(place / "template.csv", images=place, out=place / "submission.csv")
assert (place / "submission.csv").read_text() == text.getvalue()

# %% [markdown]
# Ids are text. `007` and `7` are two different ids, and a spreadsheet or pandas makes a number of both. Read the
# file as text, as `csv` does.

# %%
rows = list(csv.DictReader(io.StringIO("id,answer\n007,1\n7,2\n")))
assert {row["id"] for row in rows} == {"007", "7"}

# %% [markdown]
# The checks are in `infer/submission.py`.
#
# ## Exercise
#
# A test image is missing on your disk. What should a program do, and what does classwise do? Try it.

# %% [markdown]
# ### Answer
#
# Not leave the row out, and not write a placeholder silently: the file would be refused, or score less, and you
# would not know why. classwise stops, names the row and the file, and leaves no file behind. (`--bad-images skip
# --fallback LABEL` writes an answer of your choice in such rows, and says so.)

# %%
(place / "images/test/0007.png").unlink()
message = ""
try:
    run.submit(place / "template.csv", images=place, out=place / "second.csv")
except classwise.ClasswiseError as error:
    message = str(error)
assert "0007.png" in message
assert not (place / "second.csv").exists()

# %%
folder.cleanup()
