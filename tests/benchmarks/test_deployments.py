"""Whole deployments: rollouts, proxies with idle connections, several hosts, Prometheus. Short runs of benchmarks."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import hosts, idlegaps, regulated, rollouts, scrape, steady
from benchmarks.proxies import Missing, program
from benchmarks.steady import Failure, Load, Mix

FEW = Mix(kept=4, fresh=2, pause=0.05)


def need(*names: str) -> None:
    """Skip the test where a program of the system is not installed."""
    try:
        for name in names:
            program(name)
    except Missing as exc:
        pytest.skip(str(exc))


# --- the load ---------------------------------------------------------------------------------------------------------


async def test_the_load_tells_what_has_failed(tmp_path: Path) -> None:
    """A server that answers one request rightly, one wrongly, one by half and one not at all."""
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: "
    unavailable = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    answers = iter([ok + b"11\r\n\r\n/articles/1", unavailable, ok + b"5\r\n\r\nwrong", b"HTTP/1.1 200", b""])
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            said = next(answers)
            if not said:
                stop.set()
            writer.write(said)
            if len(said) < 20:
                break
        writer.close()

    load = Load()
    async with await asyncio.start_unix_server(serve, tmp_path / "s"):
        mix = Mix(pause=0.001, posts=0.0, slow=0.0)
        await steady.client(str(tmp_path / "s"), load, mix, keep=True, seed="x", stop=stop)
    assert load.good == {"GET": 1}
    assert [failure.reason for failure in load.failures] == ["503", "wrong content", "cut", "closed without an answer"]
    assert load.total == 5
    assert "1 GET 503" in load.reasons()


def test_requests_are_of_all_kinds() -> None:
    rng, kinds = random.Random(1), Counter[str]()
    for number in range(500):
        method, path, sent, wanted = steady.request(rng, Mix(), number)
        assert sent.startswith(f"{method} {path} HTTP/1.1\r\n".encode())
        assert len(wanted) == (64 if method == "POST" else len(path))
        kinds[path if path.startswith(("/slow", "/upload")) else "other"] += 1
    assert min(kinds["/slow"], kinds["/upload"], kinds["other"]) > 20


# --- what Prometheus has seen -----------------------------------------------------------------------------------------


def outcome(**more: object) -> scrape.Outcome:
    load = Load(times=[(100.0 + number, 200) for number in range(50)])
    load.failures.append(Failure(110.5, "GET", "/", "reset"))
    found = scrape.Outcome(load=load, events=[(110.0, "kill -9")], counted=Counter({"200": 50}))
    for name, value in more.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({}, ""),
        ({"counted": Counter({"200": 49})}, ""),  # one request died
        ({"counted": Counter({"200": 48})}, "status 200: 48 counted, 50 answers came"),
        ({"counted": Counter({"200": 50, "500": 2})}, "status 500: 2 counted, 0 answers came"),
        ({"fallen": ["x fell"]}, "x fell"),
        ({"increases": [("10 s", 95.0, 100, 10)]}, ""),
        ({"increases": [("10 s", 85.0, 100, 10)]}, "increase() of 10 s: 85, the clients have 100"),
        ({"events": [(50.0, "kill -9")]}, "GET / failed, not at a kill: reset"),
        ({"promtool": "no help text"}, "promtool: no help text"),
    ],
)
def test_what_does_not_hold_is_named(more: dict[str, object], named: str) -> None:
    assert "\n".join(outcome(**more).faults()) == named


def test_the_plot_has_a_panel_for_each_query_and_gaps_where_nothing_was_scraped() -> None:
    panels = {title: {"": [(float(when), 1.0) for when in (0, 1, 2, 5, 6)]} for title in scrape.QUERIES}
    root = ET.fromstring(scrape.plot(panels, [(3.0, "HUP")], 0.0, 6.0))
    curves = [element for element in root.iter() if element.get("class") == "curve"]
    assert len(curves) == 2 * len(scrape.QUERIES)
    assert "HUP" in {element.text for element in root.iter()}


def test_the_page_of_figures_names_the_commands() -> None:
    page = (Path(scrape.ROOT) / "docs" / "benchmarks" / "deployments.md").read_text(encoding="utf-8")
    for module in (rollouts, idlegaps, hosts, scrape, regulated):
        assert f"python -m {module.__name__}" in page


# --- short runs -------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("bridge", False),
        ("bridge-workers", False),
        ("bridge-preload", False),
        ("bridge-asyncio", False),
        ("bridge-wsgi", False),
        ("bridge-none", True),  # what --drain-delay is for
    ],
)
async def test_a_rollout_fails_no_request(name: str, fails: bool) -> None:
    need("haproxy")
    load, seen = await rollouts.measure(rollouts.ROWS[name], 1, FEW)
    assert load.good["GET"] > 20
    assert load.good["POST"] > 5
    assert bool(load.failures) is fails, load.reasons()
    assert seen.statuses == {0}
    assert not seen.killed


@pytest.mark.long
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
@pytest.mark.parametrize("workers", ["", "-workers"])
async def test_known_proxies_meet_no_close(proxy: str, workers: str) -> None:
    need(proxy)
    seen = await idlegaps.measure(idlegaps.ROWS[f"bridge{workers}-{proxy}"], 1000, 100)
    assert seen.failures == {}
    assert seen.good >= 1000
    assert seen.closes is None


@pytest.mark.long
@pytest.mark.time_limit(400)
def test_three_hosts_fail_nothing_that_can_be_asked_again() -> None:
    for module in ("channels_redis", "django"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    try:
        seen = asyncio.run(hosts.play(1.0))
    except (Missing, hosts.NotAllowed) as exc:
        pytest.skip(f"no hosts here: {exc}")
    assert [step.name for step in seen.steps][-1] == "all hosts are deployed anew"
    assert seen.failed_gets() == 0, hosts.report(seen)
    assert seen.sessions.forgotten == 0
    for step in seen.steps[2:]:  # only what a silent host had when it went may be lost
        assert step.failed_posts == 0, hosts.report(seen)
    assert seen.room.received > seen.room.sent  # what is said on one host is heard on the others


@pytest.mark.long
@pytest.mark.time_limit(300)
def test_prometheus_has_what_the_clients_have(tmp_path: Path) -> None:
    need("prometheus", "promtool")
    seen, panels = asyncio.run(scrape.scrape(4.0, tmp_path))
    assert seen.faults() == []
    assert seen.counted["200"] > 500
    assert all(panels.values())


@pytest.mark.long
@pytest.mark.time_limit(200)
@pytest.mark.parametrize("name", ["leak", "wsgi", "asgi"])
def test_workers_follow_the_load_and_do_not_leak(name: str) -> None:
    story = regulated.leak(30) if name == "leak" else regulated.load(name, 0.6)
    assert regulated.faults(story) == []
    assert story.answered > 500
    ET.fromstring(regulated.drawn(story))
