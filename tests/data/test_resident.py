"""Rows kept in memory: the same rows, read once, within the budget."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from quantjax.data.resident import Budget, keep_in_memory


class Counted:
    """Rows of 1,000,000 bytes that count how often they are read."""

    class_names = ("road",)

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.reads.append(int(index))
        return {"image": np.full((1000, 1000), index, np.uint8), "name": str(index)}


def test_rows_are_read_once():
    source = Counted()
    kept = keep_in_memory(source, 10)
    assert [kept[i]["name"] for i in (2, 0, 2, -2, np.int64(0))] == ["2", "0", "2", "2", "0"]
    assert source.reads == [2, 0]
    assert (len(kept), kept.class_names) == (4, ("road",))
    with pytest.raises(IndexError):
        kept[4]


def test_over_budget_rows_are_read_each_time():
    source = Counted()
    kept = keep_in_memory(source, 2.5)
    for _ in range(2):
        for i in range(4):
            assert (kept[i]["image"] == i).all()
    assert source.reads == [0, 1, 2, 3, 2, 3]


def test_kept_rows_cannot_be_painted_on():
    kept = keep_in_memory(Counted(), 10)
    with pytest.raises(ValueError, match="read-only"):
        kept[0]["image"][0] = 1


def test_a_copy_for_another_process_starts_empty():
    kept = keep_in_memory(Counted(), 10)
    size = len(pickle.dumps(kept))
    assert kept[1]["name"] == "1"
    assert len(pickle.dumps(kept)) < size + 100
    assert pickle.loads(pickle.dumps(kept))[3]["name"] == "3"


def test_sources_share_one_budget():
    budget, sources = Budget(3.5), [Counted(), Counted()]
    kept = [keep_in_memory(source, budget) for source in sources]
    for _ in range(2):
        for source in kept:
            assert [source[i]["name"] for i in range(2)] == ["0", "1"]
    assert [source.reads for source in sources] == [[0, 1], [0, 1, 1]]


def test_processes_share_one_budget():
    pair = [keep_in_memory(Counted(), budget := Budget(8.5, processes=4)), keep_in_memory(Counted(), budget)]
    for first, second in (pair, pickle.loads(pickle.dumps(pair))):
        for _ in range(2):
            first[0], first[1], second[0]
        assert (first.source.reads, second.source.reads) == ([0, 1], [0, 0])  # two million bytes in each process
