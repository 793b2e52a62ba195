"""The Markdown of reports, from made-up results."""

import copy

from benchmarks import report

MACHINE = {
    "processor": "A processor",
    "cores": "2",
    "kernel": "Linux 6.1",
    "python": "CPython 3.13.0",
    "build": "GCC 12, with profile-guided optimisation",
}
RUN = {
    "date": "2026-01-02",
    "rounds": 3,
    "seconds": 3.0,
    "warm_up": 1.0,
    "pinned": "The server has one core, the load another.",
    "generator": "wrk 4",
    "arguments": ["--publish"],
}
KIB = {"bridge": 4.0, "granian": 3.0, "waitress": 2.0}


def one_round(cpu: float, **more: object) -> dict[str, object]:
    return {"cpu_us": cpu, "rate": 5e5 / cpu, "p50_ms": 1.0, "p99_ms": 2.0, "rss_mib": 30.0, "others": 0.0, **more}


def record(name: str, kind: str = "load", **rounds: list[dict[str, object]]) -> report.Record:
    return {
        "machine": MACHINE,
        "run": RUN,
        "versions": {"bridge": "at commit abc", **{server: "1.0" for server in rounds if server != "bridge"}},
        "scenario": {
            "name": name,
            "title": "some text, 13 bytes",
            "kind": kind,
            "notes": ["A note."],
            "commands": dict.fromkeys(rounds, "taskset -c 1 python -m x"),
            "load": "wrk",
            "rounds": rounds,
        },
    }


def published(*records: report.Record) -> str:
    return report.published(list(records), [("asgi.svg", "ASGI")], ["python -m benchmarks --publish"], ["See also."])


def test_medians_ratios_and_noise():
    rounds = {
        "bridge": [one_round(10.0), one_round(10.5), one_round(9.5)],
        "peer": [one_round(20.0), one_round(25.0, others=0.5), one_round(30.0)],
    }
    text = "\n".join(report.scenario_section(record("asgi-plaintext", **rounds)["scenario"]))
    assert "| bridge | **10.0** ±5 % | 1.00 | **50,000** |" in text
    assert "| peer ¹ | 25.0 ±20 % | 2.50 | 20,000 |" in text
    assert report.MARK in text
    assert "A note." in text


def test_a_server_with_a_failed_round_has_no_figure():
    rounds = {"bridge": [one_round(10.0)], "peer": [one_round(20.0), {"failure": "errors: 3 | status"}]}
    text = "\n".join(report.scenario_section(record("asgi-plaintext", **rounds)["scenario"]))
    [row] = [line for line in text.splitlines() if line.startswith("| peer")]
    [heading] = [line for line in text.splitlines() if line.startswith("| server")]
    assert "failed in 1 of 2 rounds: errors: 3 \\| status" in row
    assert "20.0" not in row
    assert row.replace("\\|", "").count("|") == heading.count("|")


def test_where_bridge_is_not_the_best_stands_at_the_top_and_at_the_row():
    text = published(
        record("asgi-plaintext", bridge=[one_round(10)], uvicorn=[one_round(20)]),
        record("flask", bridge=[one_round(10)], granian=[one_round(8)]),
        record("tls", bridge=[one_round(10), one_round(11)], granian=[one_round(10.5), one_round(11.5)]),
        record("wsgi-sleep", "rate", bridge=[{"failure": "503"}], granian=[one_round(8)]),
    )
    top, _, rest = text.partition("| scenario |")
    assert "**Where bridge is not the best:** [flask](#flask-some-text-13-bytes) (granian, 0.80 of bridge's CPU" in top
    assert "**Where bridge's rounds and those of the next server overlap:** [tls](" in top
    assert "**Where bridge failed:** [wsgi-sleep](" in top
    assert "[asgi-plaintext](" not in top
    assert "**bridge is not the best here: granian at 0.80 of bridge's CPU µs per request.**" in rest
    assert "**bridge failed here.**" in rest


def test_without_losses_the_top_says_so():
    text = published(record("flask", bridge=[one_round(10)], granian=[one_round(12)]))
    assert "In none of these 1 scenarios is another server clearly better than bridge." in text
    assert "Disturbed" not in text
    assert "not the best" not in text


def test_disturbed_scenarios_are_to_be_repeated():
    text = published(record("flask", bridge=[one_round(10, others=0.2)], granian=[one_round(12)]))
    assert "**Disturbed by other work on the machine (¹):** flask. Of these" in text
    assert "`make bench S=--disturbed`" in text


def test_the_overview_has_a_row_for_each_scenario_and_a_column_for_each_server():
    lines = report.overview(
        [
            record("asgi-plaintext", uvicorn=[one_round(20)], floor=[one_round(5)], bridge=[one_round(10)]),
            record("flask", bridge=[one_round(10)], granian=[one_round(8)], waitress=[{"failure": "x"}]),
            record("idle-wsgi", "idle", **{name: [{"kib": kib, "rss_mib": 1}] for name, kib in KIB.items()}),
            record("wsgi-sleep", "rate", bridge=[one_round(10)], granian=[one_round(12.5)]),
        ]
    )
    assert lines[0] == "| scenario | bridge | floor | uvicorn | granian | waitress |"
    assert lines[2].endswith("| 10.0 µs | 0.50 | 2.00 |  |  |")
    assert lines[3].endswith("| 10.0 µs |  |  | **0.80** | failed |")
    assert lines[4].endswith("| 4.0 KiB |  |  | **0.75** | **0.50** |")
    assert lines[5].endswith("| 50,000 requests/s |  |  | 0.80 |  |")


def test_what_was_measured_otherwise_is_said_at_its_scenario():
    usual = [record(name, bridge=[one_round(10)], uvicorn=[one_round(20)]) for name in ("asgi-10k", "tls")]
    other = copy.deepcopy(record("flask", bridge=[one_round(10)], granian=[one_round(20)]))
    other["run"] |= {"date": "2026-03-04", "rounds": 5}
    other["versions"]["bridge"] = "at commit def"
    text = published(*usual, other)
    assert text.count("Measured under other conditions than the rest: ") == 1
    assert "Measured under other conditions than the rest: date 2026-03-04, rounds 5, bridge at commit def." in text
    assert "Versions: bridge at commit abc, granian 1.0, uvicorn 1.0." in text
    assert (
        "A processor, 2 cores, Linux 6.1. CPython 3.13.0, GCC 12, with profile-guided optimisation. 2026-01-02." in text
    )


def test_a_report_has_its_plots_its_commands_and_what_to_see():
    text = published(record("flask", bridge=[one_round(10)], granian=[one_round(12)]))
    assert "![ASGI](asgi.svg)" in text
    assert "```text\npython -m benchmarks --publish\n```" in text
    assert "\nSee also.\n" in text
    assert text.endswith("</details>\n")
    assert "\n\n\n" not in text


def test_an_anchor_is_as_github_makes_it():
    scenario = {"name": "asgi-browser", "title": "ASGI, a browser's 11 fields"}
    assert report.anchor(scenario) == "asgi-browser-asgi-a-browsers-11-fields"


def test_an_answer_that_never_came_is_said():
    rounds = {
        "bridge": [{"kib": 9.0, "answer_ms": 3.0, "rss_mib": 40.0}],
        "gunicorn": [{"kib": 1.0, "answer_ms": None, "rss_mib": 20.0}],
    }
    one = record("slow-wsgi", "slow", **rounds)
    assert report.overview([one])[2].endswith("| 9.0 KiB | no answer |")
    text = "\n".join(report.scenario_section(one["scenario"]))
    assert "| gunicorn | 1.0 ±0 % | 0.11 | never | 20 |" in text
    assert "| bridge | **9.0** ±0 % | 1.00 | **3** | **40** |" in text
