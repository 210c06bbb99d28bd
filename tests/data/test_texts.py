"""Many texts in two arrays, and records that are found by their keys, are what lists and dicts of them would be."""

import json
import pickle

import numpy as np
import polars as pl
import pytest

from classwise.data.cache import RECORD
from classwise.data.record_table import RecordTable
from classwise.data.texts import ROWS_AT_ONCE, Texts, json_items

WORDS = ["b", "", "글ü", "b/\udcff.png", "a" * 50, "b"]


def test_texts_are_what_a_list_of_them_is():
    """Also of names of files that are no UTF-8."""
    texts = Texts.of(WORDS)
    assert list(texts) == WORDS
    assert texts == WORDS
    assert texts != WORDS[:-1]
    assert texts[-2] == WORDS[-2]
    assert list(texts[1:4]) == WORDS[1:4]
    assert list(texts.take([4, 0, 4])) == [WORDS[4], WORDS[0], WORDS[4]]
    assert list(texts + texts.take([2])) == [*WORDS, WORDS[2]]
    assert pickle.loads(pickle.dumps(texts)) == WORDS
    assert (list(Texts.of([])), len(Texts.of([]).take([]))) == ([], 0)
    with pytest.raises(IndexError):
        texts[6]


def test_texts_know_what_repeats():
    """Each row's first row with the same text, as a dict would find it."""
    assert Texts.of(WORDS).first_rows().tolist() == [0, 1, 2, 3, 4, 0]
    assert Texts.of(WORDS).has_repeats
    assert not Texts.of(WORDS[:-1]).has_repeats


def test_two_texts_with_one_hash_are_two_texts(monkeypatch):
    """A hash only says which texts have to be compared."""
    monkeypatch.setattr(Texts, "hashes", lambda self: np.zeros(len(self), np.int64))
    assert Texts.of(WORDS).first_rows().tolist() == [0, 1, 2, 3, 4, 0]


def test_texts_go_to_a_column_and_back():
    """In parts that are put together again."""
    words = [str(number) for number in range(2 * ROWS_AT_ONCE + 3)]
    assert Texts.of(words).column().to_list() == words
    assert Texts.of_column(pl.Series(words)) == words
    assert list(Texts.of_column(pl.Series(words)).take(range(len(words) - 1, -1, -1))) == words[::-1]
    assert Texts.of_equal_length(np.array([b"ab", b"cd"])) == ["ab", "cd"]


def test_a_table_of_records_is_what_a_dict_is():
    """Added one by one and many at once, replaced, dropped, and kept where they were verified."""
    table, known = RecordTable(RECORD), {}
    draw = np.random.default_rng(0)
    for _ in range(5):
        records = np.zeros(3000, RECORD)
        records["key"] = [b"%032x" % number for number in draw.integers(0, 9000, len(records))]
        records["at"] = draw.integers(0, 2**40, len(records))
        verified = [key for key in known if table.is_verified(key)]
        table.add_read(records)
        known |= {bytes(record["key"]): int(record["at"]) for record in records} | {
            k: known[k] for k in verified
        }
        for key in list(known)[:50]:
            table.verify(key)
        for key in list(known)[100:150]:
            table.drop(key)
            del known[key]
        one = records[0].copy()
        one["key"], one["at"] = b"%032x" % draw.integers(9000, 2**60), 7
        table[bytes(one["key"])] = one
        known[bytes(one["key"])] = 7
    assert {key: int(record["at"]) for key, record in table.items()} == known
    numbers = table.numbers_of(np.array(list(known)))
    assert table.records_of(numbers)["at"].tolist() == list(known.values())
    assert table.are_verified(numbers).tolist() == [table.is_verified(key) for key in known]
    assert b"%032x" % 2**61 not in table


ORDERED = {
    "numbers": [f"{number:07d}.png" for number in (5, 3, 1_000_000, 3, 20)],
    "several lengths": ["b", "a", "", "ab", "a" * 9, "a" * 8, "a" * 17, "a" * 8 + "b", "a"],
    "other scripts": ["ß", "z", "마스크", "é", "a", "\U0001f600", "\uffee"],
    "no UTF-8": ["\udcff", "a", "\uffee", "\udc80b"],
    "a NUL": ["a\0b", "a", "a\0", "ab"],
    "long": ["x" * 70 + "b", "x" * 70 + "a", "y"],
    "none": [],
}


@pytest.mark.parametrize("what", ORDERED)
def test_rows_are_sorted_as_python_sorts_texts(what):
    """Of equal texts the first row first."""
    words = ORDERED[what]
    assert Texts.of(words).sorted_rows().tolist() == sorted(range(len(words)), key=words.__getitem__)


def test_many_rows_are_sorted_and_hashed_as_few():
    """In parts that are put together again."""
    draw = np.random.default_rng(0)
    words = [str(number) for number in draw.integers(0, 10**9, 2 * ROWS_AT_ONCE + 5)]
    texts = Texts.of(words)
    assert texts.sorted_rows().tolist() == sorted(range(len(words)), key=words.__getitem__)
    firsts: dict[str, int] = {}
    assert texts.first_rows().tolist() == [firsts.setdefault(word, row) for row, word in enumerate(words)]
    assert len(set(texts.hashes().tolist())) == len(firsts)


@pytest.mark.parametrize(
    "words",
    [
        ["a"],
        ["a b", "c"] * (ROWS_AT_ONCE + 1),
        ['say "no"', "back\\slash", "line\nbreak", "\x1f", "\x7f"],
        ["마스크", "é"],
    ],
)
def test_texts_are_json_as_json_writes_them(words):
    """Whatever has to be escaped in them."""
    written = b"".join(json_items(Texts.of(words), between=b",\n   "))
    assert written == ",\n   ".join(json.dumps(word, ensure_ascii=False) for word in words).encode()
