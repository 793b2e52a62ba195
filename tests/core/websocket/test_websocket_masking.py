from __future__ import annotations

import random
import runpy
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import speedups
from bridge.core.websocket import masking
from tests.support.websocket_peer import masked

FUNCTIONS = [
    pytest.param(masking.apply_mask, id="chosen"),
    pytest.param(masking.apply_mask_pure, id="pure"),
]

SIZES = [0, 1, 2, 3, 4, 5, 63, 64, 125, 2047, 2048, 2049, 2051, 4095, 4096, 4097, 10_000]


@pytest.mark.parametrize("apply_mask", FUNCTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_masks_like_the_rfc(apply_mask, size):
    source = random.Random(size)
    data, key = source.randbytes(size), source.randbytes(4)
    expected = masked(data, key)
    for given_data in (data, bytearray(data), memoryview(data)):
        result = apply_mask(given_data, key)
        assert type(result) is bytes
        assert result == expected


@pytest.mark.parametrize("apply_mask", FUNCTIONS)
@given(data=st.binary(max_size=300), key=st.binary(min_size=4, max_size=4))
def test_masking_twice_changes_nothing(apply_mask, data, key):
    assert apply_mask(apply_mask(data, key), key) == data


def test_works_without_the_accelerator(monkeypatch):
    monkeypatch.setattr(speedups, "apply_mask", None)
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    assert speedups.find_apply_mask() is None
    names = runpy.run_path(masking.__file__)
    assert names["apply_mask"](b"a", b"\x01\x00\x00\x00") == b"`"


def test_takes_the_accelerator(monkeypatch):
    if speedups.apply_mask is not None:
        assert speedups.find_apply_mask() is speedups.apply_mask
    compiled = pytest.importorskip("websockets.speedups", reason="no C function of the websockets distribution")
    monkeypatch.setattr(speedups, "apply_mask", None)
    monkeypatch.setattr(speedups, "_WANTED", True)
    assert speedups.find_apply_mask() is compiled.apply_mask
    monkeypatch.setattr(speedups, "_WANTED", False)
    assert speedups.find_apply_mask() is None
