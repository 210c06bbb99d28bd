"""Does an exported folder answer as `predict` does, and how fast is it?

    python benchmarks/serving.py export RUN [--images DIR ...] [--count N] [--python PYTHON] [--pairs N] [--size PX]

Parity: real images (those of the folders, and the photographs that scikit-image and scikit-learn bring) are cut,
scaled and written as files of many kinds and sizes. The client of an exported folder answers for them in a process of
PYTHON, an environment with nothing but onnxruntime, numpy and Pillow, and is compared with `predict`, for each
`data.fit`: in how many rows all labels are the same, and the largest difference of a probability.

Speed: images a second in batches of 16, pairs in turns, torch first and the file first by turns: the network alone, and
from decoded pixels of 320 x 240 on, which `predict` brings to its size in the same process. Decoding is left out: it
is the same work on both sides. Prints the median of the paired ratios, file / torch, and their quartiles.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from classwise.console import Console
from classwise.data.fit import FITS, fit_image
from classwise.infer.engines import session_engine, torch_engine
from classwise.infer.ensemble import undecoded
from classwise.infer.export import InOrder, metadata_of
from classwise.infer.export_whole import Exportable, folder_files, whole_bytes
from classwise.run.prediction import predictions_of
from classwise.run.predictor import Predictor
from classwise.run.trained import Run

BATCH = 16
DECODED = (240, 320)  # height and width of the pixels that the speed is measured from
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "text", "coins", "page")
ORIENTATION = 0x0112


def sources(folders: Sequence[Path], count: int) -> list[Image.Image]:
    """The photographs, and images of the folders: as many as are needed, evenly from all of them."""
    found = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]
    found += [Image.fromarray(array) for array in load_sample_images().images]
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        step = max(1, len(files) // count)
        found += [Image.open(path).convert("RGB") for path in files[::step][:count]]
    return found


def jpeg(image: Image.Image, path: Path, rng: np.random.Generator) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = int(rng.integers(1, 9))
    image.save(
        path,
        quality=int(rng.integers(40, 98)),
        subsampling=int(rng.integers(0, 3)),
        progressive=bool(rng.integers(2)),
        exif=exif,
    )


def gray16(image: Image.Image, path: Path, rng: np.random.Generator) -> None:
    deep_HW = np.asarray(image.convert("L"), np.uint16) * 257
    Image.fromarray(deep_HW ^ rng.integers(0, 128, deep_HW.shape, dtype=np.uint16)).save(path)


def transparent(image: Image.Image) -> Image.Image:
    """With an alpha channel that falls from the left."""
    alpha_HW = np.broadcast_to(np.linspace(255, 0, image.width), (image.height, image.width))
    image = image.copy()
    image.putalpha(Image.fromarray(alpha_HW.astype(np.uint8)))
    return image


Writer = Callable[[Image.Image, Path, np.random.Generator], None]
WRITERS: dict[str, tuple[str, Writer]] = {
    "jpeg": (".jpg", jpeg),
    "jpeg again": (".jpg", jpeg),
    "gray jpeg": (".jpg", lambda image, path, rng: jpeg(image.convert("L"), path, rng)),
    "png": (".png", lambda image, path, rng: image.save(path)),
    "gray png": (".png", lambda image, path, rng: image.convert("L").save(path)),
    "palette": (".png", lambda image, path, rng: image.quantize(60).save(path)),
    "alpha": (".png", lambda image, path, rng: transparent(image).save(path)),
    "16 bits": (".png", gray16),
    "webp": (".webp", lambda image, path, rng: image.save(path, quality=80)),
    "alpha webp": (".webp", lambda image, path, rng: transparent(image).save(path, lossless=True)),
    "bmp": (".bmp", lambda image, path, rng: image.save(path)),
    "gif": (".gif", lambda image, path, rng: image.quantize(200).save(path)),
}


def write_images(folder: Path, originals: Sequence[Image.Image], count: int, seed: int = 0) -> list[Path]:
    """So many files of all kinds, with a longer side from 20 to 2,000 pixels."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    paths = []
    for number in range(count):
        image = originals[number % len(originals)]
        left, top = (int(side * rng.uniform(0, 0.3)) for side in image.size)
        right, bottom = (int(side * rng.uniform(0.7, 1)) for side in image.size)
        image = image.crop((left, top, right, bottom))
        scale = float(np.exp(rng.uniform(np.log(20), np.log(2000)))) / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size])
        name, (suffix, write) = list(WRITERS.items())[number % len(WRITERS)]
        paths.append(folder / f"{number:04} {name}{suffix}")
        write(image, paths[-1], rng)
    return paths


def with_fit(predictor: Predictor, fit: str, size: int | None) -> Predictor:
    """The predictor as if it had been trained so; of a convolutional network also at another size."""
    changed = {"fit": fit} | ({} if size is None else {"image_size": (size, size)})
    predictor.model.metadata = dataclasses.replace(predictor.model.metadata, **changed)
    return predictor


def exportable_of(predictor: Predictor) -> Exportable:
    """A single run's model, as `Run.export` takes it."""
    return Exportable(
        network=InOrder(predictor.model),
        properties=predictor.model.metadata,
        heads=undecoded(predictor.heads),
        targets=predictor.metadata["targets"],
        joint=predictor.joint,
        metadata=metadata_of(predictor.model, predictor.metadata),
    )


def client_answers(files: dict[str, bytes], paths: Sequence[Path], python: str) -> list[dict[str, Any]]:
    """What the folder's client says of each image."""
    with tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        command = [python, "-I", str(Path(name) / "client.py"), *map(str, paths)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclasses.dataclass(frozen=True)
class Parity:
    """How the client's answers for `images` compare with those of `predict`: the rows in which all labels are the same,
    and the largest difference of a probability; with the ids of the rows that differ most."""

    fit: str
    images: int
    same_labels: int
    largest_difference: float
    worst: list[str]


def parity(run: Run, paths: Sequence[Path], python: str, fit: str, size: int | None = None) -> Parity:
    """Compare the exported folder of a run, with this `data.fit`, with `predict`."""
    config = run._config()
    predictor = with_fit(run._predictor(config), fit, size)
    exportable = exportable_of(predictor)
    files = folder_files(exportable, exportable.network_bytes())
    answers = client_answers(files, paths, python)
    table = predictions_of(
        predictor,
        config,
        [str(path) for path in paths],
        images=None,
        ids=None,
        engine="torch",
        bad_images="error",
        probabilities="all",
        console=Console(quiet=True),
    )
    same, differences = 0, []
    for row, answer in zip(table.iter_rows(named=True), answers, strict=True):
        same += all(_label(row, name, answer[name]) for name in predictor.heads)
        pairs = [
            (row[f"{name}_p_{label}"], share)
            for name in predictor.heads
            for label, share in answer.get(f"{name}_p", {}).items()
        ]
        differences.append(max((abs(first - second) for first, second in pairs), default=0.0))
    worst = [paths[row].name for row in np.argsort(differences)[::-1][:3]]
    return Parity(fit, len(paths), same, max(differences), worst)


def _label(row: dict[str, Any], name: str, answer: Any) -> bool:
    """Whether the answer of a target is that of the row of `predict`; numbers to 1e-4."""
    if isinstance(answer, list):
        answer = "|".join(answer) or "|"
    if isinstance(answer, float):
        return abs(row[name] - answer) <= 1e-4 * max(1.0, abs(answer))
    return bool(row[name] == answer)


@dataclasses.dataclass(frozen=True)
class Speed:
    """Images a second of the file divided by those of eager torch, over the `ratios` of pairs."""

    what: str
    torch: float
    file: float
    ratios: list[float]

    @property
    def text(self) -> str:
        """The median ratio with its quartiles, and the images a second."""
        low, middle, high = statistics.quantiles(self.ratios, n=4)
        rates = f"{self.file:.0f} against {self.torch:.0f} images/s"
        return f"{self.what}: {middle:.2f} times [{low:.2f}, {high:.2f}] ({rates}, {len(self.ratios)} pairs)"


def speed(run: Run, pairs: int, size: int | None = None) -> list[Speed]:
    """The network alone, and from decoded pixels on, in batches of BATCH."""
    predictor = run._predictor()
    predictor = with_fit(predictor, predictor.model.metadata.fit, size)
    metadata = predictor.model.metadata
    exportable = exportable_of(predictor)
    network = exportable.network_bytes()
    threads = torch.get_num_threads()
    eager = torch_engine(predictor.model, torch.device("cpu"), torch.float32)
    alone = session_engine(network, list(predictor.heads), threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    whole = onnxruntime.InferenceSession(whole_bytes(exportable, network), options)

    rng = np.random.default_rng(0)
    decoded_NHWC = rng.integers(0, 256, (BATCH, *DECODED, 3), dtype=np.uint8)

    def fitted() -> torch.Tensor:
        images = [fit_image(image, metadata.image_size, metadata.fit) for image in decoded_NHWC]
        return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))

    ready = fitted()
    return [
        _paired("the network alone", lambda: eager(ready), lambda: alone(ready), pairs),
        _paired(
            "from decoded pixels",
            lambda: eager(fitted()),
            lambda: whole.run(None, {"images": decoded_NHWC}),
            pairs,
        ),
    ]


def _paired(what: str, first: Callable[[], object], second: Callable[[], object], pairs: int) -> Speed:
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number in range(pairs + 1):
        order = [(0, first), (1, second)]
        for side, run in order if number % 2 else order[::-1]:
            run()  # the threads of the other side may still be spinning
            before = time.perf_counter()
            run()
            if number:  # the first pair warms up
                seconds[side].append(time.perf_counter() - before)
    ratios = [torch_s / file_s for torch_s, file_s in zip(seconds[0], seconds[1], strict=True)]
    rates = [BATCH / statistics.median(seconds[side]) for side in (0, 1)]
    return Speed(what, rates[0], rates[1], ratios)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of real images")
    parser.add_argument("--count", type=int, default=500, help="files to compare; 0: none")
    parser.add_argument("--python", default=sys.executable, help="of an environment for the client")
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs; 0: none")
    parser.add_argument("--size", type=int, help="another image size than the run's")
    given = parser.parse_args(arguments)

    run = Run.open(given.run)
    if given.count:
        with tempfile.TemporaryDirectory() as name:
            originals = sources(given.images, given.count)
            paths = write_images(Path(name) / "images", originals, given.count)
            for fit in FITS:
                found = parity(run, paths, given.python, fit, given.size)
                print(
                    f"fit = {fit}: the same labels for {found.same_labels} of {found.images} images; largest difference"
                    f" of a probability {found.largest_difference:.1e} ({', '.join(found.worst)})",
                    flush=True,
                )
    if given.pairs:
        for line in speed(run, given.pairs, given.size):
            print(line.text, flush=True)


if __name__ == "__main__":
    main()
