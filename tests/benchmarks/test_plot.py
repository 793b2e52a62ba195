"""The SVG of plots, from made-up results."""

import re
from xml.etree import ElementTree

import pytest

from benchmarks import plot
from benchmarks.scenarios import SCENARIOS

SPACE = "{http://www.w3.org/2000/svg}"


def one_round(cpu: float, **more: object) -> dict[str, object]:
    return {"cpu_us": cpu, "rate": 5e5 / cpu, "p50_ms": 1.0, "p99_ms": 2.0, "rss_mib": 30.0, "others": 0.0, **more}


def scenario(name: str = "flask", kind: str = "load", **cpu: float | None) -> dict[str, object]:
    rounds = {server: [{"failure": "x"} if one is None else one_round(one)] for server, one in cpu.items()}
    return {"name": name, "title": "one <view> & more", "kind": kind, "rounds": rounds}


def drawn(*scenarios: dict[str, object]) -> ElementTree.Element:
    return ElementTree.fromstring(plot.svg('A "title"', list(scenarios)))


def texts(root: ElementTree.Element) -> list[str]:
    return [" ".join(element.itertext()) for element in root.iter(f"{SPACE}text")]


def bars(root: ElementTree.Element) -> list[tuple[str, float]]:
    found = [one for one in root.iter(f"{SPACE}rect") if one.attrib["class"].startswith("bar")]
    return [(one.attrib["class"], float(one.attrib["width"])) for one in found]


def test_bars_are_as_long_as_the_figures_and_the_best_comes_first():
    root = drawn(scenario(uvicorn=20.0, bridge=10.0, granian=15.0, floor=5.0))
    kinds, lengths = zip(*bars(root), strict=True)
    assert kinds == ("bar floor", "bar own", "bar", "bar")
    assert [length / lengths[1] for length in lengths] == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=0.01)


def test_the_figure_and_its_ratio_stand_at_each_bar():
    found = texts(drawn(scenario(bridge=10.0, granian=15.0, gunicorn=400.0)))
    assert "10.0" in found
    assert f"15.0 1.50{plot.TIMES}" in found
    assert f"400.0 40{plot.TIMES}" in found
    assert "one <view> & more" in found


def test_a_bar_beyond_five_of_bridges_is_cut_and_shows_it():
    root = drawn(scenario(bridge=10.0, granian=20.0, gunicorn=400.0))
    lengths = [length for _, length in bars(root)]
    assert lengths[2] / lengths[0] == pytest.approx(plot.CUT, abs=0.05)
    assert len(list(root.iter(f"{SPACE}path"))) == 1


def test_the_longest_bar_leaves_room_for_its_figure():
    for cpu in (1.0, 3.0, 1e4):
        assert max(length for _, length in bars(drawn(scenario(bridge=10.0, uvicorn=cpu)))) <= (
            plot.PANEL - plot.NAMES - plot.VALUES + 0.1
        )


def test_of_rates_the_highest_comes_first_and_the_unit_says_so():
    root = drawn(scenario("wsgi-sleep", "rate", granian=20.0, bridge=10.0), scenario(bridge=10.0))
    assert [kind for kind, _ in bars(root)] == ["bar own", "bar", "bar own"]
    found = texts(root)
    assert "wsgi-sleep: requests/s, more is better" in found
    assert "flask: CPU µs per request, less is better" in found


def test_a_server_that_failed_has_no_bar():
    root = drawn(scenario(bridge=10.0, waitress=None))
    assert len(bars(root)) == 1
    assert {"waitress", "failed"} <= set(texts(root))
    assert len(bars(drawn(scenario(bridge=None, uvicorn=10.0)))) == 1  # nothing to compare with
    assert bars(drawn(scenario(bridge=None))) == []


def test_who_serves_nobody_else_comes_last_and_is_not_compared():
    rounds = {"gunicorn": (1.0, None), "bridge": (10.0, 2.0), "uvicorn": (12.0, 3.0)}
    one = scenario("slow-wsgi", "slow")
    one["rounds"] = {
        name: [{"kib": kib, "answer_ms": answer, "rss_mib": 9.0}] for name, (kib, answer) in rounds.items()
    }
    found = [text for text in texts(drawn(one)) if "." in text and not text.startswith(plot.TIMES)]
    assert found == ["10.0", f"12.0 1.20{plot.TIMES}", "1.0 a new client gets no answer"]


def test_what_was_disturbed_is_marked():
    one = scenario(bridge=10.0, uvicorn=20.0)
    one["rounds"]["uvicorn"][0]["others"] = 0.3
    found = texts(drawn(one))
    assert {"bridge", "uvicorn ¹"} <= set(found)
    assert found[-1].endswith("¹ disturbed, see the table.")


def test_everything_lies_on_the_card():
    root = drawn(*[scenario(bridge=10.0, uvicorn=20.0, granian=500.0) for _ in range(3)])
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        assert 0 <= float(element.attrib.get("x", 0)) < width
        assert 0 <= float(element.attrib.get("y", 0)) < height


def test_every_colour_has_one_for_the_dark():
    light, _, dark = plot.STYLE.partition("@media (prefers-color-scheme: dark)")
    coloured = set(re.findall(r"^(\S+) \{[^}]*#", light, re.MULTILINE))
    assert coloured == set(re.findall(r"^(\S+) \{[^}]*#", dark, re.MULTILINE))


def test_options_stand_in_names_without_dashes():
    assert plot.label("bridge+--no-access-log") == "bridge no-log"
    assert plot.label("granian") == "granian"


def test_every_scenario_is_in_a_plot():
    assert {one.group for one in SCENARIOS.values()} == set(plot.GROUPS)
