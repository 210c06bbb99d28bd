"""Random numbers as functions of where they are used, so that there is no generator state to save.

The order of an epoch depends on (seed, epoch), an image's augmentation on (seed, epoch, row), dropout on (seed,
update, micro-batch). So the numbers do not depend on how many workers there are, nor on where a run was resumed. They
come from Philox, a counter-based generator (Salmon et al., 'Parallel random numbers: as easy as 1, 2, 3', SC 2011), in
which a key and a counter name a stream that overlaps no other; or, where a seed is needed in every micro-batch, from a
hash of the same numbers.
"""

import numpy as np

# One number for each use: streams with different numbers never share a draw.
ORDER, AUGMENT, DROPOUT, SPLIT, WEIGHTS, MIX, BOOTSTRAP, OWN_AUGMENT, CHECK = range(9)


def generator(seed: int, stream: int, a: int = 0, b: int = 0) -> np.random.Generator:
    """The generator for one use at one place: `seed` of the run, `stream` one of the constants above, `a` and `b` the
    place (epoch and row, for example). All are non-negative integers below 2**64."""
    # Philox advances the lowest word of the counter, so the place goes into the other three.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, stream, a, b]))


def mixed_seed(seed: int, stream: int, a: int, b: int, c: int) -> int:
    """A 63-bit seed as from `torch_seed`, fifty times faster: the finalizer of SplitMix64 (Steele, Lea and Flood, 'Fast
    splittable pseudorandom number generators', OOPSLA 2014, figure 16), of the sum of the numbers times an odd constant
    each."""
    mixed = (
        seed * 0x9E3779B97F4A7C15
        + stream * 0xD1B54A32D192ED03
        + a * 0x8CB92BA72F3D8DD7
        + b * 0xABC98388FB8FAC03
        + c * 0xAEF17502108EF2D9
    ) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ mixed >> 31) >> 1


def torch_seed(seed: int, stream: int, a: int = 0, b: int = 0) -> int:
    """A 63-bit seed for a torch generator; the arguments as in `generator`."""
    return int(generator(seed, stream, a, b).integers(0, 2**63 - 1))
