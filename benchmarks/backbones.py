"""One small backbone of each of timm's modules: is it built, trained, resumed to the same bytes, used and exported?

    python benchmarks/backbones.py WORK [--only NAME ...] [--every 10] [--again] [--write]

Each is built with random weights at 96 x 128 and at the size of its own pretrained config, and trained for two epochs
on twelve drawn images at the first of these that it takes. A second run is killed by SIGKILL once its first epoch is
on disk, and resumed: model, optimizer state and predictions have to be the same bytes. Then the run predicts, and is
exported to ONNX (with the package onnxscript), whose outputs are compared with the model's.

A process for each; what one of them finds is a line of WORK/backbones.jsonl, and is not asked again unless --again is
given. --every 10 takes each tenth; --write puts the table into docs/results/backbones.md. Exits with 1 if a module is
neither here nor in timm, or if a run that was trained did not come back to the same bytes."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imbalance import replace_between

SIZE = (96, 128)
TIMEOUT_S = 1200
LONGEST = 160  # characters of a quoted message
# In the order of timm's modules: a small variant of each, whose weights are of a size that is used.
_NAMES = """
beitv2_base_patch16_224 lambda_resnet26t gernet_s cait_xxs24_224 coat_lite_tiny convit_tiny convmixer_768_32
convnext_atto cpubone_nano crossvit_9_240 csatv2 darknet17 cspnext_tiny davit_tiny deepseek_vit_412m
deit_tiny_patch16_224 densenet121 dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
efficientnet_b0 efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8
focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 hardcorenas_a hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny
hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s
lowformer_b0 mambaout_femto coatnet_pico_rw_224 poolformer_s12 resmlp_12_224 mobilenetv3_small_050 mobilenetv5_300m
mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small nf_regnet_b0 pit_ti_224
pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d
resnet10t resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tnt_s_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
vit_relpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw
legacy_xception xception41 xcit_nano_12_p16_224
"""
VARIANTS = _NAMES.split()
STEPS = ("96 x 128", "own size", "trains", "resumes", "predicts", "exports")

Found = dict[str, Any]


def examine(name: str, folder: Path) -> Found:
    """What works of a backbone: "ok", or the message, by step."""
    from classwise.model.backbone import build_backbone

    # Whether it is built, and at which size it is trained.
    found: Found = {"name": name, "module": module_of(name)}
    own = own_size(name)
    found["own"] = list(own)
    sizes = {"96 x 128": SIZE, "own size": own}
    for step, size in sizes.items():
        found[step] = outcome(lambda size=size: build_backbone(name, "none", size))  # type: ignore[misc]
    usable = [size for step, size in sizes.items() if found[step] == "ok"]
    if not usable:
        return found
    module = build_backbone(name, "none", usable[0]).module
    found["parameters"] = sum(parameter.numel() for parameter in module.parameters())
    del module

    # What the commands do with it.
    config = write_config(name, usable[0], folder)
    found["trains"] = outcome(lambda: train(config, folder / "whole"))
    if found["trains"] == "ok":
        found["resumes"] = outcome(lambda: resume(config, folder))
        found["predicts"] = outcome(lambda: predict(folder))
        found["exports"] = outcome(lambda: export(folder))
    return found


def outcome(step: Callable[[], Any]) -> str:
    """`ok`, or what went wrong."""
    try:
        step()
    except Exception as error:  # a table of whatever happens
        return " ".join(str(error).split())[:LONGEST] or type(error).__name__
    return "ok"


def module_of(name: str) -> str:
    from classwise.model.timm_module import import_timm

    return str(import_timm().models.model_entrypoint(name).__module__.rpartition(".")[2])


def own_size(name: str) -> tuple[int, int]:
    """(height, width) of the pretrained config."""
    from classwise.model.timm_module import import_timm

    timm = import_timm()
    config = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    return config.input_size[1], config.input_size[2]


def write_config(name: str, size: tuple[int, int], folder: Path) -> Path:
    """Twelve drawn images of two classes, and a config for two epochs on them."""
    import cv2

    rows = ["path,label"]
    rng = np.random.default_rng(0)
    for row in range(12):
        image = rng.integers(0, 100, (*SIZE, 3), dtype=np.uint8)
        image[:, :: 2 + row % 2] += 100
        cv2.imwrite(str(folder / f"{row}.png"), image)
        rows.append(f"{row}.png,{'ab'[row % 2]}")
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")
    config = folder / "classwise.toml"
    config.write_text(
        f"""name = "run"
[data]
source = "samples.csv"
valid = 0.34
workers = 0
cache = "off"
[targets.label]
column = "label"
[model]
backbone = "{name}"
image_size = [{size[0]}, {size[1]}]
[training]
epochs = 2
batch_size = 4
device = "cpu"
precision = "fp32"
memory_format = "contiguous"
threads = 1
[selection]
first_epoch = 1
[report]
baselines = false
resamples = 0
""",
        encoding="utf-8",
    )
    return config


def train(config: Path, run: Path) -> None:
    import classwise

    classwise.train(config, run, quiet=True)


def train_until_killed(config: Path, run: Path) -> None:
    """Never returns: the process is gone once the first epoch is on disk."""
    from classwise.run.checkpoint import RunCheckpointer

    save = RunCheckpointer.save

    def save_and_die(self: Any, state: Any, best: bool) -> None:
        save(self, state, best)
        if state.progress.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    RunCheckpointer.save = save_and_die  # type: ignore[method-assign]
    train(config, run)


def resume(config: Path, folder: Path) -> None:
    """The run that was killed and the one that was not have the same bytes."""
    import classwise

    whole, killed = folder / "whole", folder / "killed"
    command = [sys.executable, __file__, str(config), "--kill", str(killed)]
    code = subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
    if code != -signal.SIGKILL:
        raise RuntimeError(f"the run to be killed ended with {code}")
    classwise.resume(killed, quiet=True)
    files = ["predictions.csv", "checkpoints/last/model.safetensors", "checkpoints/last/training.safetensors"]
    different = [file for file in files if (whole / file).read_bytes() != (killed / file).read_bytes()]
    if different:
        raise RuntimeError(f"other bytes in {', '.join(different)}")


def predict(folder: Path) -> None:
    import classwise

    predictions = classwise.Run.open(folder / "whole").predict(folder / "samples.csv")
    if predictions.height != 12 or predictions["label"].null_count():
        raise RuntimeError(f"found {predictions.height} predictions for 12 images")


def export(folder: Path) -> None:
    """The ONNX file gives the outputs of the model."""
    import onnxruntime
    import torch

    import classwise
    from classwise.run.checkpoint import read_checkpoint, restored_model

    run = classwise.Run.open(folder / "whole")
    path = run.export(folder / "model.onnx")
    model = restored_model(read_checkpoint(folder / "whole/checkpoints/best")).eval()
    height, width = model.metadata.image_size
    images = torch.randint(
        0, 256, (3, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    (output,) = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)["label"].numpy()
    worst = float(np.abs(output - expected).max())
    if worst > 1e-3 * max(1.0, float(np.abs(expected).max())):
        raise RuntimeError(f"outputs differ by {worst:.2g}")


def in_own_process(name: str) -> Found:
    """What a process of its own finds; a message where it does not come to an end."""
    command = [sys.executable, __file__, name, "--one"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"name": name, "module": module_of(name), "trains": f"not done within {TIMEOUT_S} s"}
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])[:LONGEST]
        return {"name": name, "module": module_of(name), "trains": f"exit code {done.returncode}: {last}"}
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: list[Found]) -> list[str]:
    """Markdown: a line for each; what fails is told below."""
    worked = {step: sum(row.get(step) == "ok" for row in found) for step in STEPS}
    lines = [
        f"| module | variant | million parameters | {' | '.join(STEPS)} |",
        "|---" * (3 + len(STEPS)) + "|",
    ]
    messages = []
    for row in found:
        millions = f"{row['parameters'] / 1e6:.1f}" if "parameters" in row else ""
        cells = []
        for step in STEPS:
            value = row.get(step, "")
            if value not in ("ok", ""):
                messages.append(f"- `{row['name']}`, {step}: {value}")
                value = "no"
            cells.append("yes" if value == "ok" else value)
        lines.append(f"| {row['module']} | {row['name']} | {millions} | {' | '.join(cells)} |")
    counts = ", ".join(f"{step}: {count}" for step, count in worked.items())
    return [f"Of {len(found)}: {counts}.", "", *lines, "", *messages]


def missing_modules() -> set[str]:
    """timm's modules of which no variant is here."""
    from classwise.model.timm_module import import_timm

    return set(import_timm().list_modules()) - {module_of(name) for name in VARIANTS}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("work")
    arguments.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME")
    arguments.add_argument("--every", type=int, default=1)
    arguments.add_argument("--again", action="store_true", help="ask also what there is an answer to")
    arguments.add_argument("--write", action="store_true", help="write the table")
    arguments.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--kill", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.kill:
        train_until_killed(Path(options.work), options.kill)
        return 1
    if options.one:
        with tempfile.TemporaryDirectory(prefix="backbone-") as folder:
            print(json.dumps(examine(options.work, Path(folder))))
        return 0

    records = Path(options.work) / "backbones.jsonl"
    records.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Found] = {}
    if records.exists():
        known = {row["name"]: row for row in map(json.loads, records.read_text().splitlines())}
    names = options.only[:: options.every]
    for name in names:
        if name not in known or options.again:
            known[name] = in_own_process(name)
            with records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[name]) + "\n")
            print(json.dumps(known[name]), flush=True)

    missing = missing_modules()
    if missing:
        print(f"no variant of {', '.join(sorted(missing))}", file=sys.stderr)
    if options.write:
        replace_between("backbones.md", "backbones", "\n".join(table([known[name] for name in names])))
    changed = [name for name in names if known[name].get("resumes", "ok") != "ok"]
    return 1 if missing or changed else 0


if __name__ == "__main__":
    sys.exit(main())
