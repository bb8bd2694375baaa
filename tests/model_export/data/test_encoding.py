"""Rows, the network's input and the JSON of a client correspond."""

from __future__ import annotations

import json
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.data import encode_frame, instance_as_json
from model_export.errors import DataInvalid
from service.bundle import Feature

FEATURES = (Feature(name="width"), Feature(name="colour", categories=("blue", "red")), Feature(name="height"))

finite_floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(finite_floats, st.sampled_from(["blue", "red"]), finite_floats), min_size=1))
def test_a_row_comes_back_from_the_networks_input_as_it_was(rows: list[tuple[float, str, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["width", "colour", "height"])
    for row, instance in zip(rows, encode_frame(frame, FEATURES), strict=True):
        width, colour, height = instance_as_json(instance, FEATURES)
        assert [np.float32(width), colour, np.float32(height)] == list(row)


def test_columns_are_taken_by_name_in_the_features_order() -> None:
    frame = pd.DataFrame({"height": [3], "colour": ["red"], "other": [9], "width": [0.5]})
    assert encode_frame(frame, FEATURES).tolist() == [[0.5, 0, 1, 3]]


@given(bits=st.integers(0, 2**32 - 1))
def test_every_float32_survives_json_read_as_double(bits: int) -> None:
    value = np.array([struct.unpack("<f", struct.pack("<I", bits))[0]], dtype=np.float32)
    if np.isfinite(value).all():
        (posted,) = json.loads(json.dumps(instance_as_json(value)))
        assert np.float32(posted) == value[0]


def test_a_tenth_is_posted_as_a_tenth() -> None:
    assert json.dumps(instance_as_json(np.array([0.1, 255, 0], dtype=np.float32))) == "[0.1, 255.0, 0.0]"


def test_an_image_is_posted_row_by_row() -> None:
    assert instance_as_json(np.arange(8, dtype=np.float32).reshape(2, 2, 2)) == list(range(8))


def test_an_unknown_category_is_refused_with_the_known_ones() -> None:
    frame = pd.DataFrame({"width": [1.0], "colour": ["green"], "height": [1.0]})
    with pytest.raises(DataInvalid, match="'colour': 'green' is not one of its categories: blue, red"):
        encode_frame(frame, FEATURES)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataInvalid, match="lacks the columns width, height"):
        encode_frame(pd.DataFrame({"colour": ["red"]}), FEATURES)
