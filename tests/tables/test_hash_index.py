import random

import numpy as np
import pyarrow as pa

from jobs.tables.state.hash_index import HashIndex, hash_column, hash_names


def test_numbers_of_a_name_come_in_the_order_in_which_they_were_added() -> None:
    rng = random.Random(3)
    index, expected = HashIndex(), dict[str, list[int]]()
    number = 0
    for size in (1, 300, 1, 2, 40, 1000, 1, 1, 7):  # runs are merged, and stay apart
        names = [f"name {rng.randrange(400)}" for _ in range(size)]
        index.add(hash_names(names), np.arange(number, number + size))
        for name in names:
            expected.setdefault(name, []).append(number)
            number += 1
    asked = [*expected, "none of them"]
    positions, numbers = index.find(hash_names(asked))
    found = [numbers[positions == k].tolist() for k in range(len(asked))]
    assert found == [expected.get(name, []) for name in asked]


def test_an_empty_index_finds_nothing() -> None:
    index = HashIndex()
    index.add(hash_names([]), np.empty(0, np.int64))
    assert [len(part) for part in index.find(hash_names(["a"]))] == [0, 0]
    assert [len(part) for part in index.find(hash_names([]))] == [0, 0]


def test_a_column_hashes_like_its_names() -> None:
    names = [f"n{i}" for i in range(70_000)]
    column = pa.chunked_array([names[:10], names[10:]], pa.string())
    assert hash_column(column).tolist() == hash_names(names).tolist()
