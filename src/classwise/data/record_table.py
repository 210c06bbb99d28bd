"""The records of an image cache in one array, found by their keys, many at once: as objects in a dict, a million of
them would take several hundred megabytes, and seconds to look up."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

ROWS_AT_FIRST = 1024
MOST_RECENT = 16_384
"""Records that are added at once and found by a dict, until they are sorted in among the others."""
KEYS_AT_ONCE = 65_536
KEPT, VERIFIED, DROPPED = 0, 1, 2

Keys = npt.NDArray[np.bytes_]
Numbers = npt.NDArray[np.int64]


class RecordTable:
    """Records of one dtype by their field `key` of hexadecimal digits, and of each whether what it points to was
    verified. They are sorted by 64 bits of their keys and found by bisection."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._records = np.zeros(ROWS_AT_FIRST, dtype)
        self._states = np.zeros(ROWS_AT_FIRST, np.uint8)
        self._count = 0
        # Of all records but the most recent ones: their keys' bits in order, and which records these are.
        self._sorted = np.zeros(0, np.uint64)
        self._order = np.zeros(0, np.int32)
        self._recent: dict[bytes, int] = {}

    def get(self, key: bytes) -> np.void | None:
        """The record with this key, as a view of it; None if there is none."""
        number = self._number(key)
        if number < 0 or self._states[number] == DROPPED:
            return None
        record: np.void = self._records[number]
        return record

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: bytes) -> np.void:
        record = self.get(key)
        if record is None:
            raise KeyError(key)
        return record

    def __setitem__(self, key: bytes, record: np.void) -> None:
        records_1 = np.array([record], self._records.dtype)
        records_1["key"] = key
        self.put(records_1)

    def items(self) -> Iterator[tuple[bytes, np.void]]:
        """Keys and records, in the order in which the keys were first added."""
        for number in np.flatnonzero(self._states[: self._count] != DROPPED).tolist():
            yield bytes(self._records["key"][number]), self._records[number]

    def numbers_of(self, keys_N: Keys) -> Numbers:
        """(N,) the number of the record with each of these keys; -1 where there is none."""
        number_N = self._find(keys_N)
        number_N[(number_N >= 0) & (self._states[number_N] == DROPPED)] = -1
        return number_N

    def records_of(self, number_N: Numbers) -> npt.NDArray[np.void]:
        """(N,) the records with these numbers."""
        return self._records[number_N]

    def are_verified(self, number_N: Numbers) -> npt.NDArray[np.bool_]:
        """(N,) whether `verify_many` was called for these numbers."""
        verified_N: npt.NDArray[np.bool_] = self._states[number_N] == VERIFIED
        return verified_N

    def verify_many(self, number_N: Numbers) -> None:
        """`verify` of the records with these numbers."""
        self._states[number_N] = VERIFIED

    def drop_many(self, number_N: Numbers) -> None:
        """`drop` of the records with these numbers."""
        self._states[number_N] = DROPPED

    def reserve(self, count: int) -> None:
        """Make room for so many records more, all at once."""
        if self._count + count > len(self._records):
            self._grow(self._count + count)

    def add_read(self, records: npt.NDArray[np.void]) -> None:
        """Add records, of which a later one replaces an earlier one with its key, unless that is verified."""
        self._add(records, keeps_verified=True)

    def put(self, records: npt.NDArray[np.void]) -> None:
        """Add records, each in the place of an earlier one with its key; they are not verified."""
        self._add(records, keeps_verified=False)

    def drop(self, key: bytes) -> None:
        """Forget a record, if there is one."""
        number = self._number(key)
        if number >= 0:
            self._states[number] = DROPPED

    def verify(self, key: bytes) -> None:
        """Remember that what the record with this key points to is as it should be."""
        self._states[self._number(key)] = VERIFIED

    def is_verified(self, key: bytes) -> bool:
        """Whether `verify` was called for the record of this key."""
        number = self._number(key)
        return number >= 0 and bool(self._states[number] == VERIFIED)

    def _number(self, key: bytes) -> int:
        """Of the record with this key, dropped or not; -1 if it was never added."""
        number = self._recent.get(key, -1)
        if number >= 0:
            return number
        bits = bits_of(np.array([key], "S32"))[0]
        at = int(np.searchsorted(self._sorted, bits))
        while at < len(self._sorted) and self._sorted[at] == bits:
            number = int(self._order[at])
            if bytes(self._records["key"][number]) == key:
                return number
            at += 1
        return -1

    def _find(self, keys_N: Keys) -> Numbers:
        """`numbers_of` records, dropped or not."""
        self._merge()
        number_N = np.full(len(keys_N), -1, np.int64)
        bits_N = bits_of(keys_N)
        at_N = np.searchsorted(self._sorted, bits_N)
        open_N = np.arange(len(keys_N))
        # Hardly ever more than once: those of other keys with the same bits are passed.
        while len(open_N):
            at = at_N[open_N]
            is_inside = at < len(self._sorted)
            open_N, at = open_N[is_inside], at[is_inside]
            has_bits = self._sorted[at] == bits_N[open_N]
            open_N, at = open_N[has_bits], at[has_bits]
            found = self._order[at]
            is_found = self._records["key"][found] == keys_N[open_N]
            number_N[open_N[is_found]] = found[is_found]
            open_N = open_N[~is_found]
            at_N[open_N] += 1
        return number_N

    def _add(self, records: npt.NDArray[np.void], keeps_verified: bool) -> None:
        # Of several with one key, the last, in the place of the first.
        keys = records["key"]
        _, first, number_of = np.unique(bits_of(keys), return_index=True, return_inverse=True)
        if not (keys[first][number_of] == keys).all():  # two keys with the same bits
            _, first, number_of = np.unique(keys, return_index=True, return_inverse=True)
        if len(first) < len(records):
            last = np.zeros(len(first), np.int64)
            last[number_of] = np.arange(len(records))
            records = records[last[np.argsort(first, kind="stable")]]

        # Records that are there already, verified or dropped.
        number_N = self._find(records["key"])
        is_new_N = number_N < 0
        is_replaced_N = ~is_new_N & ~(keeps_verified & (self._states[number_N] == VERIFIED))
        self._records[number_N[is_replaced_N]] = records[is_replaced_N]
        self._states[number_N[is_replaced_N]] = KEPT

        # All others, at the end.
        new = records[is_new_N]
        end = self._count + len(new)
        if end > len(self._records):
            self._grow(max(end, len(self._records) * 3 // 2))
        self._records[self._count : end] = new
        self._states[self._count : end] = KEPT
        if len(new) <= MOST_RECENT:
            self._recent.update(zip(new["key"].tolist(), range(self._count, end), strict=True))
        self._count = end
        if len(new) > MOST_RECENT:
            self._merge()

    def _merge(self) -> None:
        """Sort the recent records in among the others."""
        start = len(self._order)
        if start == self._count:
            return
        bits_R = bits_of(self._records["key"][start : self._count])
        order_R = np.argsort(bits_R, kind="stable")
        at_R = np.searchsorted(self._sorted, bits_R[order_R])
        self._sorted = np.insert(self._sorted, at_R, bits_R[order_R])
        self._order = np.insert(self._order, at_R, (start + order_R).astype(np.int32))
        self._recent = {}

    def _grow(self, size: int) -> None:
        records, states = self._records, self._states
        self._records, self._states = np.zeros(size, records.dtype), np.zeros(size, np.uint8)
        self._records[: self._count] = records[: self._count]
        self._states[: self._count] = states[: self._count]


def bits_of(keys_N: Keys) -> npt.NDArray[np.uint64]:
    """(N,) 64 bits of each key of 32 hexadecimal digits: its two halves, one added to the other bit by bit."""
    bits_N = np.empty(len(keys_N), np.uint64)
    for start in range(0, len(keys_N), KEYS_AT_ONCE):
        part = slice(start, start + KEYS_AT_ONCE)
        halves_n2 = bytes_of_hex(keys_N[part]).view(">u8")
        np.bitwise_xor(halves_n2[:, 0], halves_n2[:, 1], out=bits_N[part])
    return bits_N


def bytes_of_hex(keys_N: Keys) -> npt.NDArray[np.uint8]:
    """(N, D / 2) the bytes of keys of D hexadecimal digits in small letters."""
    digits_ND = np.ascontiguousarray(keys_N).view(np.uint8).reshape(len(keys_N), keys_N.dtype.itemsize)
    # 0 to 9 and a to f: the lower four bits, and 9 more for letters.
    values_ND = (digits_ND & 15) + 9 * (digits_ND >> 6)
    return np.ascontiguousarray(values_ND[:, ::2] << 4 | values_ND[:, 1::2])


def hex_of_bytes(bytes_NB: npt.NDArray[np.uint8]) -> Keys:
    """(N,) the keys that `bytes_of_hex` has made bytes of."""
    digits_NB2 = np.stack([bytes_NB >> 4, bytes_NB & 15], axis=2)
    text_ND = np.frombuffer(b"0123456789abcdef", np.uint8)[digits_NB2].reshape(
        len(bytes_NB), 2 * bytes_NB.shape[1]
    )
    return np.ascontiguousarray(text_ND).view(f"S{2 * bytes_NB.shape[1]}").reshape(-1)
