"""The walks through bridge: the same each time, whole, and counted as the table says."""

import sys
import threading

import pytest

from benchmarks import walk

CHEAP = [name for name in walk.KINDS if name != "wsgi-upload"]


@pytest.mark.parametrize("name", CHEAP)
def test_a_walk_is_the_same_each_time(name):
    walk.walk(walk.KINDS[name])  # a response's head is kept when it comes the second time, whoever has sent it first
    calls = walk.walk(walk.KINDS[name])
    assert calls
    assert all((walk.ROOT / call.file).is_file() for call in calls)
    assert walk.walk(walk.KINDS[name]) == calls


@pytest.mark.slow
def test_a_walk_with_many_turns_from_thread_to_thread():
    """How many turns, and in which order, is for the system to say."""
    calls = walk.walk(walk.KINDS["wsgi-upload"])
    assert len(calls) > 100
    assert calls[0].function.endswith(".data_received")
    assert {"adapters/wsgi/receivers.py", "adapters/wsgi/exchange.py"} <= {call.file for call in calls}


def test_a_walk_leaves_the_interpreter_as_it_was():
    before = sys.getprofile(), threading.getprofile(), sys.getswitchinterval()
    threads = threading.active_count()
    walk.walk(walk.KINDS["wsgi"])
    assert (sys.getprofile(), threading.getprofile(), sys.getswitchinterval()) == before
    assert threading.active_count() <= threads  # fewer, if one of an earlier walk has ended meanwhile


def test_both_ends_of_a_walk_through_threads_are_seen():
    functions = [call.function for call in walk.walk(walk.KINDS["wsgi"])]
    assert functions[0].endswith(".data_received")
    assert any(function.endswith(".start_response") for function in functions)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("", (0, 0, 0, 0, 0)),
        ("a", (1, 1, 1, 0, 0)),
        ("aab", (3, 2, 2, 1, 0)),
        ("abab", (4, 2, 2, 3, 2)),
        ("abcba", (5, 3, 3, 4, 2)),
    ],
)
def test_changes_and_returns_are_counted(files, expected):
    assert walk.Figures.of([walk.Call(f"{name}.py", "function") for name in files]) == expected


def test_the_table_has_a_row_for_each_walk():
    calls = [walk.Call("a.py", "f"), walk.Call("b.py", "g"), walk.Call("a.py", "f")]
    head, line, *rows = walk.table(dict.fromkeys(walk.KINDS, calls)).splitlines()
    assert head.count("|") == line.count("|") == 8
    assert [row.split("|")[1].strip() for row in rows] == list(walk.KINDS)
    assert all(row.endswith("| 3 | 2 | 2 | 2 | 1 |") for row in rows)


def test_the_walk_itself_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["walk", "--list", "websocket"])
    walk.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{call.file}:{call.function}" for call in walk.walk(walk.KINDS["websocket"])]
