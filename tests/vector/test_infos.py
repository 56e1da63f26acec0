"""Infos of single environments, merged into batches."""

import numpy as np
import pytest

from kiloworlds.vector.infos import merge_infos


def merged(*infos):
    batch = {}
    for position, info in enumerate(infos):
        merge_infos(batch, info, position, len(infos))
    return batch


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [(1, 2.5, float), (True, 3, int), (np.float32(0.5), 0.1, float), (2**40, np.int8(3), int)],
)
def test_a_column_is_widened_where_types_differ(first, second, dtype):
    batch = merged({"x": first}, {"x": second})
    assert batch["x"].dtype == dtype
    assert batch["x"].tolist() == [first, second]
    assert batch["_x"].tolist() == [True, True]


def test_values_that_share_no_array_are_objects():
    batch = merged({"x": np.zeros(2)}, {}, {"x": np.ones(3)}, {"x": "text"})
    assert batch["x"].dtype == object
    assert batch["x"][0].tolist() == [0, 0]
    assert batch["x"][1] is None
    assert batch["x"][2].tolist() == [1, 1, 1]
    assert batch["x"][3] == "text"
    assert batch["_x"].tolist() == [True, False, True, True]


def test_dictionaries_nest():
    batch = merged({"a": {"b": 1}}, {"a": {"b": 0.5, "c": None}})
    assert batch["a"]["b"].tolist() == [1.0, 0.5]
    assert batch["a"]["_c"].tolist() == [False, True]
    assert batch["a"]["c"].tolist() == [None, None]
    assert batch["_a"].tolist() == [True, True]
