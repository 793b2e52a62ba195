"""The soak: a short one, what counts as growth, and the plot."""

import asyncio
import xml.etree.ElementTree as ET

import pytest

from benchmarks import soak
from benchmarks.soak import Count, Sample


def samples(memory, *, descriptors=lambda index: 50):
    return [Sample(index * 5.0, memory(index), descriptors(index), 9, 3, index * 100, 0) for index in range(60)]


def test_what_goes_up_and_down_has_not_grown():
    assert soak.grown(samples(lambda index: 100 + index % 7)) == []


def test_a_leak_is_named():
    (line,) = soak.grown(samples(lambda index: 100 + index * 2))
    assert line.startswith("memory: ")
    assert "descriptors" in soak.grown(samples(lambda index: 100, descriptors=lambda index: 50 + index * 3))[0]


def test_the_plot_has_a_curve_for_each_figure():
    root = ET.fromstring(soak.plot(samples(lambda index: 100 + index % 7)))
    curves = [element for element in root.iter() if element.get("class") == "curve"]
    assert len(curves) == len(soak.PANELS)
    assert all(len(curve.get("points").split()) == 60 for curve in curves)


def test_failures_stand_beside_the_answers():
    count = Count({"request": 1000, "upload": 5}, {"slow": 3}, ["request: b'HTTP/1.1 500'"])
    shown = soak.table(samples(lambda index: 100), count, 4)
    assert "| request | 1,000 | 1 |" in shown
    assert "| upload | 5 | 0 |" in shown
    assert "4 reloads" in shown


@pytest.mark.long
def test_a_short_one():
    found, count, _ = asyncio.run(soak.soak(0.1))
    assert not count.failed
    assert set(count.good) == {"request", "upload", "event stream", "large answer", "websocket"}
    assert set(count.bad) >= {"malformed", "half", "leaves"}
    assert found[0].processes == 3
