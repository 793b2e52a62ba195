"""The walks through bridge: the same each time, whole, and counted as the table says.

They are made in an interpreter of their own: in one that has run other tests, threads of these are still there, and
each of the many objects is looked at by the garbage collector.
"""

import json
import subprocess
import sys

import pytest

from benchmarks import walk

UPLOADS = ["wsgi-upload", "wsgi-upload-slow"]
CHEAP = [name for name in walk.KINDS if name not in UPLOADS]

# A response's head is kept when it comes the second time, whoever has sent it first: the first walks are left out.
WALKS = """\
import json, sys, threading
from benchmarks import walk

before = sys.getprofile(), threading.getprofile(), sys.getswitchinterval()
made = {name: [walk.walk(kind) for _ in range(3)][1:] for name, kind in walk.KINDS.items()}
threads = threading.active_count()
walk.walk(walk.KINDS["wsgi"])
after = sys.getprofile(), threading.getprofile(), sys.getswitchinterval()
print(json.dumps({
    "walks": made,
    "as it was": before == after,
    "more threads": threading.active_count() > threads,  # fewer, if one of an earlier walk has ended meanwhile
}))
"""


@pytest.fixture(scope="module")
def made():
    done = subprocess.run([sys.executable, "-c", WALKS], capture_output=True, text=True, check=True, timeout=100)
    return json.loads(done.stdout)


@pytest.fixture
def walks(made):
    """The last two walks of each kind."""
    return {name: [[walk.Call(*call) for call in calls] for calls in both] for name, both in made["walks"].items()}


@pytest.mark.parametrize("name", CHEAP)
def test_a_walk_is_the_same_each_time(walks, name):
    calls, again = walks[name]
    assert calls
    assert all((walk.ROOT / call.file).is_file() for call in calls)
    assert again == calls


@pytest.mark.parametrize("name", UPLOADS)
def test_a_walk_with_many_turns_from_thread_to_thread(walks, name):
    """In which order the calls of two threads come is for the system to say."""
    calls, again = walks[name]
    assert sorted(again) == sorted(calls)
    assert len(calls) > 100
    assert calls[0].function.endswith(".data_received")
    assert {"adapters/wsgi/receivers.py", "adapters/wsgi/exchange.py"} <= {call.file for call in calls}


def test_only_a_slow_disk_lets_the_client_wait(walks):
    pauses = {name: sum(call.function.endswith(".pause_content") for call in walks[name][0]) for name in UPLOADS}
    assert pauses == {"wsgi-upload": 0, "wsgi-upload-slow": 2}


def test_a_walk_leaves_the_interpreter_as_it_was(made):
    assert made["as it was"]
    assert not made["more threads"]


def test_both_ends_of_a_walk_through_threads_are_seen(walks):
    functions = [call.function for call in walks["wsgi"][0]]
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


def test_the_walk_itself_is_printed(monkeypatch, capsys, walks):
    calls = walks["websocket"][0]
    monkeypatch.setattr(walk, "walk", lambda kind: calls)
    monkeypatch.setattr(sys, "argv", ["walk", "--list", "websocket"])
    walk.main()
    assert capsys.readouterr().out.splitlines() == [f"{call.file}:{call.function}" for call in calls]
