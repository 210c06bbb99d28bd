"""How the bundled Fashion-MNIST subset was made: `python benchmarks/make_fashion.py [SOURCE] [--out FILE]`.

SOURCE is the folder of the four IDX files, where Debian's package `dataset-fashion-mnist` puts them. Drawn with
a fixed seed: a long-tailed training set from the 60,000 training images, round(600 * 0.6**k) of the k-th class
(Cui et al., 'Class-balanced loss', CVPR 2019, section 5.1, cut classes off exponentially in the same way), and a
balanced test set of 100 a class from the 10,000 test images. No two images in the bundle are the same.
"""

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SOURCE = Path("/usr/share/datasets/fashion-mnist")
BUNDLE = Path(__file__).parents[1] / "src/classwise/demo/fashion.npz"
SEED = 2021
CLASSES = 10
TRAIN_COUNTS = [round(600 * 0.6**k) for k in range(CLASSES)]
TEST_COUNTS = [100] * CLASSES

Bytes = NDArray[np.uint8]


def read_idx(path: Path) -> Bytes:
    """The array of one gzipped IDX file of unsigned bytes: its header says how many dimensions, then their sizes."""
    with gzip.open(path) as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if (zeros, kind) != (0, 8):
            raise SystemExit(f"{path}: not an IDX file of unsigned bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def draw(
    images_NHW: Bytes, labels_N: Bytes, counts: list[int], rng: np.random.Generator, taken: set[bytes]
) -> NDArray[np.int64]:
    """Row numbers, `counts[k]` of class k, mixed across classes; images already in `taken` are passed over."""
    rows: list[int] = []
    for label, count in enumerate(counts):
        of_class: list[int] = []
        for row in rng.permutation(np.flatnonzero(labels_N == label)):
            image = images_NHW[row].tobytes()
            if len(of_class) < count and image not in taken:
                taken.add(image)
                of_class.append(int(row))
        rows += of_class
    # Mixed, so that neither the order nor the file names made from it tell the class.
    return rng.permutation(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", type=Path, default=SOURCE)
    parser.add_argument("--out", type=Path, default=BUNDLE)
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    taken: set[bytes] = set()
    bundle: dict[str, Bytes] = {}
    for split, name, counts in (("test", "t10k", TEST_COUNTS), ("train", "train", TRAIN_COUNTS)):
        images_NHW = read_idx(args.source / f"{name}-images-idx3-ubyte.gz")
        labels_N = read_idx(args.source / f"{name}-labels-idx1-ubyte.gz")
        rows = draw(images_NHW, labels_N, counts, rng, taken)
        bundle[f"{split}_images"] = images_NHW[rows]
        bundle[f"{split}_labels"] = labels_N[rows]
    np.savez_compressed(args.out, **bundle)
    print(
        f"{args.out}: {args.out.stat().st_size:,} bytes,",
        {name: len(array) for name, array in bundle.items()},
    )


if __name__ == "__main__":
    main()
