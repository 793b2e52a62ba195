"""The benchmark harness: its arithmetic, what it reads from the kernel, its report, and one short run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import client, figures, machine, measure, process, profile, verdicts
from benchmarks.answers import UPLOAD_SIZE
from benchmarks.floor import FixedAnswer, UploadAnswer
from benchmarks.scenarios import SCENARIOS, select
from benchmarks.servers import SERVERS, Target, command_of, commit_of
from tests.support import ROOT


def test_a_summary_is_the_median_with_its_extremes():
    summary = figures.summarise([12.0, 8.0, 10.0])
    assert (summary.median, summary.low, summary.high) == (10.0, 8.0, 12.0)
    assert summary.spread == pytest.approx(0.2)
    assert figures.summarise([0.0, 0.0]).spread == 0.0


@pytest.mark.parametrize(("value", "reference", "expected"), [(30.0, 10.0, 3.0), (30.0, None, None), (30.0, 0.0, None)])
def test_a_ratio_needs_a_reference(value, reference, expected):
    assert figures.ratio(value, reference) == expected


def test_processor_time_per_request():
    assert figures.microseconds_per_request(0.5, 50_000) == pytest.approx(10.0)
    with pytest.raises(ValueError, match="no request"):
        figures.microseconds_per_request(0.5, 0)


def test_a_process_stat_whose_name_has_parentheses():
    rest = " ".join(["S", "7", "1", "1", "0", "-1", "0", "0", "0", "0", "0", "120", "30", "4", "6", "20", "0"])
    stat = machine.parse_stat(f"42 (a (b) c d) {rest}\n")
    ticks = machine.TICKS_PER_SECOND
    assert stat == machine.ProcessStat(pid=42, parent=7, cpu=150 / ticks, reaped_children_cpu=10 / ticks)


def test_memory_and_the_work_of_a_core():
    assert machine.parse_memory("Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t1\n") == 2048 * 1024
    assert machine.parse_memory("Name:\tzombie\n") == 0
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 100 20 30 999 888 4 6 0 0 0\ncpu10 1 1 1 1 1 1 1 0 0 0\n"
    assert machine.parse_busy(text, 1) == 160 / machine.TICKS_PER_SECOND
    with pytest.raises(LookupError):
        machine.parse_busy(text, 2)


def test_the_tree_of_this_process_is_measured():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {stat.pid for stat in machine.process_tree(os.getpid())} >= {os.getpid(), child.pid}
        before = machine.tree_cpu(os.getpid())
        sum(range(300_000))
        assert machine.tree_cpu(os.getpid()) > before
        assert machine.tree_memory(os.getpid()) > 2**20
    finally:
        child.communicate(b"\n", timeout=30)


def test_the_precise_clock_agrees_with_the_ticks():
    [own, *_] = machine.process_tree(os.getpid())
    assert machine.precise_cpu(own) == pytest.approx(own.cpu, abs=0.2)


def test_percentiles():
    values = [float(number) for number in range(100)]
    assert client.percentile(values, 0.5) == 50.0
    assert client.percentile(values, 0.99) == 99.0
    assert client.percentile([], 0.5) == 0.0


def test_a_browser_request_has_eleven_fields_and_other_values_each_time():
    requests = client.Requests("browser")
    first, second = requests.next(), requests.next()
    assert first != second
    assert len(first) == len(second)
    lines = first.split(b"\r\n")
    assert lines[0].startswith(b"GET /articles/")
    assert lines[-2:] == [b"", b""]
    assert len(lines[1:-2]) == 11
    assert sum(a != b for a, b in zip(lines, second.split(b"\r\n"), strict=True)) == 4


class Sink:
    """What a protocol writes; enough of a transport for these tests."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nx: y\r\n\r\n", 1),
    ],
)
def test_the_own_client_finds_the_end_of_an_answer(answer, failed, size):
    totals, sink = client.Totals(), Sink()
    load = client.HTTPLoad(totals, client.Requests("get"))
    load.connection_made(sink)
    request = sink.written
    for _ in range(2):
        for start in range(0, len(answer), size):
            load.data_received(answer[start : start + size])
    assert len(totals.latencies) == 2
    assert totals.errors["status"] == 2 * failed
    assert sink.written == request * 3


@pytest.mark.parametrize("size", [5, 64, 126, 16384])
def test_the_own_client_checks_the_first_echo(size):
    totals, sink = client.Totals(), Sink()
    load = client.WebSocketLoad(totals, size)
    load.connection_made(sink)
    key = sink.written.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    assert key == client.WEBSOCKET_KEY
    load.data_received(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + client.accept_value() + b"\r\n")
    load.data_received(b"\r\n")
    assert sink.written.endswith(load.message)
    load.data_received(load.echo)
    load.data_received(load.echo[:3])
    load.data_received(load.echo[3:])
    assert len(totals.latencies) == 2
    assert totals.errors["status"] == 0

    other = client.WebSocketLoad(totals, size)
    other.connection_made(Sink())
    other.data_received(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n")
    assert totals.errors["status"] == 1
    assert other.transport.aborted


def test_the_floor_answers_whole_requests_only():
    sink, protocol = Sink(), FixedAnswer(b"text")
    protocol.connection_made(sink)
    protocol.data_received(b"GET / HTTP/1.1\r\n")
    assert sink.written == b""
    protocol.data_received(b"Host: a\r\n\r\n")
    assert sink.written.endswith(b"\r\n\r\ntext")

    sink, upload = Sink(), UploadAnswer(b"")
    upload.connection_made(sink)
    upload.data_received(b"POST / HTTP/1.1\r\n\r\nuu")
    upload.data_received(b"u" * (UPLOAD_SIZE - 2))
    assert sink.written.partition(b"\r\n\r\n")[2] == b"u" * UPLOAD_SIZE


def test_scenarios_are_chosen_by_name_or_beginning():
    assert [scenario.name for scenario in select(["flask"])] == ["flask"]
    assert len(select(["asgi", "asgi-10k"])) == sum(name.startswith("asgi") for name in SCENARIOS)
    assert len(select([])) == len(SCENARIOS)
    with pytest.raises(LookupError, match="nothing-like-it"):
        select(["nothing-like-it"])


def test_servers_that_a_scenario_does_not_have_are_left_out():
    flask = SCENARIOS["flask"]
    assert flask.choose(["floor", "waitress", "bridge+--threads=2"]) == ["waitress", "bridge+--threads=2"]
    assert flask.choose(None) == list(flask.servers)


def test_a_title_says_when_the_client_repeats_itself():
    for scenario in SCENARIOS.values():
        if scenario.kind in ("load", "rate") and not scenario.websocket:
            repeats = scenario.sends != "mixed"
            assert ("the client repeats" in scenario.title) == repeats
            assert ("no head twice" in scenario.title) != repeats


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_every_server_of_a_scenario_has_a_command_without_paths(scenario):
    for name in scenario.servers:
        command = command_of(name, scenario.target)
        assert command[:2] == ["python", "-m"]
        assert any("{port}" in word for word in command)
        assert not any(word.startswith("/") for word in command)


def test_options_of_a_server_come_before_its_application():
    target = Target("wsgi", "module:app")
    assert command_of("waitress+--threads=2", target)[-2:] == ["--threads=2", "module:app"]
    assert command_of("bridge+--threads+2", target)[-2:] == ["--threads", "2"]
    assert set(SERVERS) >= {"bridge", "floor"}


def test_a_server_of_another_commit():
    assert command_of("bridge@1a2b3c4+--threads=2", Target("wsgi", "module:app"))[3:5] == ["run", "module:app"]
    assert SCENARIOS["flask"].choose(["bridge@1a2b3c4", "uvicorn@1"]) == ["bridge@1a2b3c4"]
    assert not verdicts.is_peer("bridge@1a2b3c4+--threads=2")
    assert commit_of("bridge@1a2b3c4+--threads=2") == "1a2b3c4"
    assert commit_of("bridge+--x=a@b") == ""


def test_the_package_of_a_commit_is_unpacked():
    files = process.Files()
    try:
        folder = Path(files.checkout("HEAD"))
        assert [path.name for path in folder.iterdir()] == ["bridge"]
        assert files.checkout("HEAD") == str(folder)
        with pytest.raises(process.BenchmarkError, match="git archive nothing-like-it"):
            files.checkout("nothing-like-it")
    finally:
        files.remove()


def test_what_others_took_of_either_core():
    assert measure.others([2.9, 1.5], [2.8, 1.0], 2.0) == pytest.approx(0.25)
    assert measure.others([2.0, 1.0], [2.1, 1.2], 2.0) == 0.0
    assert measure.others([], [1.0, 1.0], 2.0) == 0.0


def test_a_published_run_measures_whole_scenarios(capsys):
    for more in (["--servers", "bridge"], ["--connections", "5"]):
        with pytest.raises(SystemExit):
            command_line.parse(["flask", "--publish", *more])
        assert "--publish measures all servers" in capsys.readouterr().err


def test_a_whole_run_fits_into_its_time():
    assert command_line.minutes(command_line.parse([])) < 60


def test_stacks_become_microseconds():
    stacks = profile.read_collapsed(
        "run (lib/runners.py:1);send (proto.py:5) 30\nrun (lib/runners.py:1);send (proto.py:6) 10\n"
    )
    text = profile.sampled_report(stacks, 20.0, 5)
    assert "20.00  lib" not in text
    assert any(line.split() == ["20.00", "20.00", "send", "proto.py"] for line in text.splitlines())
    assert any(line.split() == ["15.00", "proto.py:5", "send"] for line in text.splitlines())


def test_threads_are_not_profiled_by_counting_one_of_them(capsys):
    with pytest.raises(SystemExit):
        profile.parse(["wsgi-plaintext", "--mode", "calls"])
    assert "several threads" in capsys.readouterr().err
    assert profile.parse(["wsgi-plaintext", "--mode", "py-spy"]).threads


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}  # the lock of its own
    command = [sys.executable, "-m", "benchmarks", "asgi-plaintext", "--servers", "floor", "--generator", "own"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_short_run_reports_a_figure(tmp_path):
    written = tmp_path / "rounds.json"
    run = start(tmp_path, "--rounds", "1", "--seconds", "0.3", "--warm-up", "0", "--json", str(written))
    output, errors = run.communicate(timeout=90)
    assert run.returncode == 0, errors
    [row] = [line for line in output.splitlines() if line.startswith("| floor")]
    assert "failed" not in row
    [one] = json.loads(written.read_text())["scenarios"][0]["rounds"]["floor"]
    assert one["requests"] > 0
    assert 0 < one["cpu_us"] < 10_000
    assert str(ROOT) not in output


@pytest.mark.slow
@pytest.mark.long  # a benchmark takes the cores that it measures on
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, number):
    run = start(tmp_path, "--rounds", "1", "--seconds", "30", "--warm-up", "0")
    family: set[int] = set()
    deadline = time.monotonic() + 60
    while len(family) < 3 and time.monotonic() < deadline:  # the run, its server, its load
        family = {stat.pid for stat in machine.process_tree(run.pid)}
    run.send_signal(number)
    run.communicate(timeout=60)
    assert len(family) == 3
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
