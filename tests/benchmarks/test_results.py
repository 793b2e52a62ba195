"""Results kept beside the report: one file per scenario, the report of all of them."""

import pytest

from benchmarks import results
from benchmarks.scenarios import SCENARIOS


def record(name: str, cpu: float = 10.0, others: float = 0.0) -> results.Record:
    one = {"cpu_us": cpu, "rate": 1e5, "p50_ms": 1.0, "p99_ms": 2.0, "rss_mib": 30.0, "others": others}
    return {
        "machine": dict.fromkeys(["processor", "cores", "kernel", "python", "build"], "x"),
        "run": {
            "date": "2026-01-02",
            "rounds": 1,
            "seconds": 1.0,
            "warm_up": 0.0,
            "pinned": "Pinned.",
            "generator": "wrk",
            "arguments": ["--publish", name],
        },
        "versions": {"bridge": "x"},
        "scenario": {
            "name": name,
            "title": SCENARIOS[name].title if name in SCENARIOS else "t",
            "kind": "load",
            "notes": [],
            "commands": {},
            "load": "",
            "rounds": {"bridge": [one], "uvicorn": [one | {"cpu_us": 20.0}]},
        },
    }


def test_one_scenario_measured_again_leaves_the_others(tmp_path):
    for name in ("flask", "asgi-plaintext", "asgi-10k"):
        results.save(record(name), tmp_path)
    results.save(record("asgi-10k", cpu=12.0), tmp_path)
    kept = {one["scenario"]["name"]: one for one in results.load(tmp_path)}
    assert list(kept) == ["asgi-plaintext", "asgi-10k", "flask"]  # the order of the scenarios
    assert kept["asgi-10k"]["scenario"]["rounds"]["bridge"][0]["cpu_us"] == 12.0
    assert kept["flask"] == record("flask")


def test_a_kept_result_has_the_title_of_today(tmp_path):
    old = record("flask")
    old["scenario"]["title"] = "Flask"
    results.save(old, tmp_path)
    assert results.load(tmp_path) == [record("flask")]


def test_the_report_is_made_of_all_results(tmp_path):
    for name in ("flask", "asgi-plaintext"):
        results.save(record(name), tmp_path)
    (tmp_path / "wsgi.svg").write_text("of a scenario that is gone")
    (tmp_path / "compiling.md").write_text("# Compiling\n")
    written = {file.name for file in results.publish(tmp_path)}
    assert written == {"asgi.svg", "frameworks.svg", "README.md"}
    assert not (tmp_path / "wsgi.svg").exists()
    text = (tmp_path / "README.md").read_text()
    assert "## flask: Flask, one view; the client repeats itself\n" in text
    assert "## asgi-plaintext: ASGI, 13 bytes of text; the client repeats itself\n" in text
    assert "](compiling.md)" in text
    assert "python -m benchmarks --publish asgi-plaintext\npython -m benchmarks --publish flask\n" in text


def test_without_results_nothing_is_written(tmp_path):
    assert results.publish(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_results_of_a_scenario_that_is_gone_are_left_out(tmp_path):
    results.save(record("flask"), tmp_path)
    results.save(record("gone"), tmp_path)
    assert [one["scenario"]["name"] for one in results.load(tmp_path)] == ["flask"]


def test_the_disturbed_ones_are_found(tmp_path):
    results.save(record("flask", others=0.2), tmp_path)
    results.save(record("tls"), tmp_path)
    assert results.disturbed_names(tmp_path) == ["flask"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error: /srv/me/x/app.py: no", "error: app.py: no"),
        ('File "/usr/lib/python3/site-packages/a.py", line 3', 'File "a.py", line 3'),
        ("http://127.0.0.1:80/a/b and a/b/c stay", "http://127.0.0.1:80/a/b and a/b/c stay"),
        ("GET /one stays", "GET /one stays"),
    ],
)
def test_folders_of_a_machine_are_not_told(text, expected):
    assert results.without_paths(text) == expected
