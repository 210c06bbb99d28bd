"""The records of an image cache in one array, found by their keys: as objects in a dict, a million of them would take
several hundred megabytes."""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

ROWS_AT_FIRST = 1024
READ_AT_ONCE = 65_536
KEPT, VERIFIED, DROPPED = 0, 1, 2


class RecordTable:
    """Records of one dtype by their field `key`, and of each whether what it points to was verified. Open addressing
    with linear probing (Knuth, The Art of Computer Programming 3, 6.4)."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._records = np.zeros(ROWS_AT_FIRST, dtype)
        self._keys = self._records["key"]
        self._states = bytearray(ROWS_AT_FIRST)
        self._count = 0
        self._slots = array("i", [-1]) * (4 * ROWS_AT_FIRST)

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
        number = self._added(key)
        self._records[number] = record
        self._states[number] = KEPT

    def items(self) -> Iterator[tuple[bytes, np.void]]:
        """Keys and records, in the order in which the keys were first added."""
        for number in range(self._count):
            if self._states[number] != DROPPED:
                yield bytes(self._keys[number]), self._records[number]

    def add_read(self, records: npt.NDArray[np.void]) -> None:
        """Add records, of which a later one replaces an earlier one with its key, unless that is verified."""
        missing = self._count + len(records) - len(self._records)
        if missing > 0:
            self._grow(missing)
        for first in range(0, len(records), READ_AT_ONCE):
            part = records[first : first + READ_AT_ONCE]
            numbers = np.array([self._added(key) for key in part["key"].tolist()], np.int64)
            states = np.frombuffer(self._states, np.uint8)
            is_new = states[numbers] != VERIFIED
            # Of several with one key in this part, the last.
            self._records[numbers[is_new]] = part[is_new]
            states[numbers[is_new]] = KEPT
            del states  # else the states could not grow

    def drop(self, key: bytes) -> None:
        """Forget a record, if there is one."""
        number = self._number(key)
        if number >= 0:
            self._states[number] = DROPPED

    def rows_of(self, keys: Iterable[bytes]) -> npt.NDArray[np.void]:
        """The records with these keys, each of which there is."""
        return self._records[np.array([self._number(key) for key in keys], np.int64)]

    def verify(self, key: bytes) -> None:
        """Remember that what the record with this key points to is as it should be."""
        self._states[self._added(key)] = VERIFIED

    def is_verified(self, key: bytes) -> bool:
        """Whether `verify` was called for the record of this key."""
        number = self._number(key)
        return number >= 0 and self._states[number] == VERIFIED

    def _number(self, key: bytes) -> int:
        """Of the record with this key; -1 if it was never added."""
        slots, keys = self._slots, self._keys
        mask = len(slots) - 1
        at = hash(key) & mask
        while (number := slots[at]) >= 0:
            if keys[number] == key:
                return number
            at = (at + 1) & mask
        return -1

    def _added(self, key: bytes) -> int:
        number = self._number(key)
        if number >= 0:
            return number
        if self._count == len(self._records):
            self._grow(self._count // 2)
        number = self._count
        self._count += 1
        self._keys[number] = key
        self._place(key, number)
        return number

    def _place(self, key: bytes, number: int) -> None:
        mask = len(self._slots) - 1
        at = hash(key) & mask
        while self._slots[at] >= 0:
            at = (at + 1) & mask
        self._slots[at] = number

    def _grow(self, more: int) -> None:
        """Room for so many records more; at least every second slot stays free."""
        self._records = np.concatenate([self._records, np.zeros(more, self._records.dtype)])
        self._keys = self._records["key"]
        self._states += bytes(more)
        size = len(self._slots)
        while size < 2 * len(self._records):
            size *= 2
        if size > len(self._slots):
            self._slots = array("i", [-1]) * size
            for number in range(self._count):
                self._place(bytes(self._keys[number]), number)
