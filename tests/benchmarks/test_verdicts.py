"""Who is best, by how much, and what was disturbed: from made-up rounds."""

import json
import math

import pytest

from benchmarks import verdicts


def load(*cpu: float, **more: object) -> list[dict[str, object]]:
    return [{"cpu_us": one, "rate": 5e4, "p50_ms": 1.0, "p99_ms": 2.0, "rss_mib": 30.0, **more} for one in cpu]


def scenario(kind: str = "load", **rounds: list[dict[str, object]]) -> dict[str, object]:
    return {"name": "x", "title": "y", "kind": kind, "rounds": rounds}


def test_bridge_is_best_when_the_best_peer_needs_more():
    verdict = verdicts.judge(scenario(floor=load(1), bridge=load(10, 11), granian=load(20, 22), uvicorn=load(15, 16)))
    assert (verdict.peer, verdict.wins, verdict.clear, verdict.failed) == ("uvicorn", True, True, False)
    assert verdict.ratio == pytest.approx(15.5 / 10.5)


def test_a_peer_that_needs_less_is_named():
    one = scenario(bridge=load(10, 11), granian=load(8, 9))
    verdict = verdicts.judge(one)
    assert (verdict.peer, verdict.wins, verdict.clear) == ("granian", False, True)
    assert verdicts.sentence(one) == "bridge is not the best here: granian at 0.81 of bridge's CPU µs per request."


@pytest.mark.parametrize("peer", [load(9, 10.5), load(10.5, 12)])
def test_overlapping_rounds_decide_nothing(peer):
    one = scenario(bridge=load(10, 11), granian=peer)
    assert not verdicts.judge(one).clear
    assert verdicts.sentence(one).startswith("No clear difference: granian at ")


def test_of_rates_more_is_better():
    one = scenario("rate", bridge=load(10, rate=100.0), granian=load(5, rate=90.0), waitress=load(5, rate=10.0))
    verdict = verdicts.judge(one)
    assert (verdict.peer, verdict.wins) == ("granian", True)
    assert verdict.ratio == pytest.approx(0.9)
    assert verdicts.best(one, "rate") == {"bridge"}
    assert verdicts.best(one, "cpu_us") == {"granian", "waitress"}
    assert verdicts.sentence(one) == ""


def test_bridge_with_options_is_no_peer():
    rounds = {"bridge": load(10), "bridge+--no-access-log": load(5), "uvicorn": load(20)}
    assert verdicts.judge({"kind": "load", "rounds": rounds}).peer == "uvicorn"
    assert verdicts.judge(scenario(bridge=load(10), floor=load(1))) == verdicts.Verdict()


def test_a_failure_of_bridge_is_said():
    one = scenario(bridge=[*load(10), {"failure": "errors: 3 status"}], uvicorn=load(20))
    assert verdicts.judge(one).failed
    assert verdicts.sentence(one) == "bridge failed here."
    assert not verdicts.judge(scenario(uvicorn=load(20))).failed


def test_a_failed_peer_does_not_count():
    one = scenario(bridge=load(10), granian=[{"failure": "x"}], uvicorn=load(20))
    assert verdicts.judge(one).peer == "uvicorn"


def test_the_best_of_a_column_leaves_out_the_floor():
    one = scenario(floor=load(1), bridge=load(10), uvicorn=load(20))
    assert verdicts.best(one, "cpu_us") == {"bridge"}
    assert verdicts.best(scenario(floor=load(1)), "cpu_us") == set()


def test_memory_saved_by_serving_nobody_is_not_compared():
    serving = [{"kib": 9.0, "answer_ms": 3.0, "rss_mib": 40.0}]
    stuck = [{"kib": 1.0, "answer_ms": 5.0, "rss_mib": 20.0}, {"kib": 1.0, "answer_ms": None, "rss_mib": 20.0}]
    one = scenario("slow", bridge=serving, gunicorn=stuck, uvicorn=[{**serving[0], "kib": 12.0}])
    assert verdicts.best(one, "kib") == {"bridge"}
    assert verdicts.best(one, "rss_mib") == {"bridge", "uvicorn"}
    assert verdicts.judge(one).peer == "uvicorn"
    assert verdicts.judge(one).wins
    assert verdicts.summaries(stuck, "slow")["answer_ms"].high == math.inf


@pytest.mark.parametrize(
    ("rounds", "kind", "expected"),
    [
        (load(10, 11, others=0.01), "load", False),
        (load(10, 11, others=0.06), "load", True),
        (load(10, 13), "load", True),
        ([{"kib": 1.0, "rss_mib": 1.0}, {"kib": 2.0, "rss_mib": 1.0}], "idle", False),
        ([{"failure": "x"}], "load", False),
        ([], "load", False),
    ],
)
def test_disturbed_rounds(rounds, kind, expected):
    assert verdicts.disturbed(rounds, kind) is expected
    assert verdicts.is_disturbed(scenario(kind, bridge=rounds, uvicorn=[])) is expected


TARGET = verdicts.Target("x", ("granian", "granian-8"), 1.0, 1.2)


@pytest.mark.parametrize(
    ("own", "peer", "words"),
    [
        (load(10), load(8), "missed by 20%"),
        (load(10), load(10), "met; stretch missed by 17%"),
        (load(10), load(12), "met, stretch too"),
    ],
)
def test_a_target_is_met_or_missed_by_so_much(own, peer, words):
    [outcome] = verdicts.outcomes([scenario(bridge=own, granian=load(20), **{"granian-8": peer})], (TARGET,))
    assert (outcome.peer, outcome.words) == ("granian-8", words)


def test_a_target_without_stretch():
    target = verdicts.Target("x", ("granian",), 1.0)
    [outcome] = verdicts.outcomes([scenario(bridge=load(10), granian=load(11))], (target,))
    assert outcome.words == "met"


def test_the_best_rounds_are_compared_too():
    rounds = {"bridge": load(10, 20, 30), "granian": load(15, 16, 17)}
    [outcome] = verdicts.outcomes([scenario(**rounds)], (TARGET,))
    assert outcome.ratio == pytest.approx(0.8)
    assert outcome.undisturbed == pytest.approx(1.5)


@pytest.mark.parametrize("rounds", [{"bridge": load(10)}, {"granian": load(10)}, {}])
def test_what_was_not_measured_is_not_judged(rounds):
    [outcome] = verdicts.outcomes([scenario(**rounds)] if rounds else [], (TARGET,))
    assert outcome.words == "not measured"
    assert "| x | granian or granian-8 | 1 | 1.2 |  |  | not measured |" in verdicts.targets_table([outcome])


def test_every_target_has_its_scenario_and_its_servers():
    from benchmarks.scenarios import SCENARIOS

    for target in verdicts.TARGETS:
        assert set(target.peers) <= set(SCENARIOS[target.scenario].servers)


def test_bridge_without_its_compiled_part_is_no_peer():
    rounds = {"bridge": load(10), "bridge-pure": load(5), "uvicorn": load(20)}
    assert verdicts.judge({"kind": "load", "rounds": rounds}).peer == "uvicorn"


def test_the_targets_are_printed(tmp_path, capsys, monkeypatch):
    file = tmp_path / "rounds.json"
    rounds = {"bridge": load(10), "granian": load(17)}
    file.write_text(json.dumps({"scenarios": [scenario(**rounds) | {"name": "asgi-mixed"}]}))
    monkeypatch.setattr("sys.argv", ["verdicts", "--json", str(file)])
    verdicts.main()
    assert "| asgi-mixed | granian | 1.55 | 1.7 | 1.70 | 1.70 | met, stretch too |" in capsys.readouterr().out
