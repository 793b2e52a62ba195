"""What perf prints, as shares of functions and libraries."""

import pytest

from benchmarks import perf, profile

# As perf 6.1 prints: a block for each sample, the innermost frame first.
TEXT = """ 2827
            1821a2 subtype_dealloc (/usr/lib/libpython3.13.so.1.0)
             91132 _PyEval_EvalFrameDefault (/usr/lib/libpython3.13.so.1.0)
      7f4f74aa07b5 py::RequestReader.next_head:/x/bridge/core/http1/reader.py (/tmp/perf-2827.map)

 2836
  ffffffffa0c31c6e _raw_spin_unlock_irqrestore ([kernel.kallsyms])
             f01be PyObject_Vectorcall (/usr/lib/libpython3.13.so.1.0)
      7f4f74aa0d55 py::Matcher.match.<locals>._match:/lib/python3.13/site-packages/werkzeug/match.py (/tmp/perf-1.map)

 2827
              3110 parse_head (/x/bridge/_speedups.cpython-313-x86_64-linux-gnu.so)
      7f4f74aa0d55 py::RequestReader.next_head:/x/bridge/core/http1/reader.py (/tmp/perf-2827.map)

 2827
              3110 __pyx_f_read (/lib/python3.13/site-packages/uvloop/loop.cpython-313-x86_64-linux-gnu.so)

"""


def test_each_sample_belongs_to_the_innermost_python_function():
    samples = perf.parse(TEXT)
    assert [sample.thread for sample in samples] == [2827, 2836, 2827, 2827]
    assert [sample.owner for sample in samples] == ["interpreter", "kernel", "bridge._speedups", "uvloop"]
    assert samples[1].function == (
        "Matcher.match.<locals>._match",
        "/lib/python3.13/site-packages/werkzeug/match.py",
    )
    assert samples[3].function == perf.NO_FUNCTION


def test_shares_become_microseconds():
    text = profile.perf_report(perf.Shares.of(perf.parse(TEXT), 2827), 40.0, 5)
    assert "4 samples; main thread 30.00, others 10.00." in text
    rows = [line.split() for line in text.splitlines()]
    assert ["20.00", "0.00", "RequestReader.next_head", "http1/reader.py"] in rows
    assert ["10.00", "10.00", "Matcher.match.<locals>._match", "werkzeug/match.py"] in rows
    assert ["10.00", "bridge._speedups"] in rows


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("bridge/core/http1/reader.py", "bridge/core/http1"),
        ("bridge/cli.py", "bridge"),
        ("werkzeug/routing/map.py", "werkzeug"),
        ("-", "outside packages"),
    ],
)
def test_parts_of_bridge_are_folders(file, expected):
    assert profile.part(file) == expected


def test_a_package_in_the_checkout_is_no_part_of_it():
    assert profile.short(str(profile.ROOT / ".venv/lib/python3.13/site-packages/flask/app.py")) == "flask/app.py"
    assert profile.short(str(profile.ROOT / "bridge/cli.py")) == "bridge/cli.py"


def test_what_is_no_sample_is_left_out():
    assert perf.parse("") == []
    assert perf.parse(" 12\n\t  no frame\n\n") == []


def test_perf_that_cannot_be_used_says_why(monkeypatch, capsys):
    monkeypatch.setattr(perf, "missing", lambda: "perf is not installed")
    with pytest.raises(SystemExit):
        profile.parse(["wsgi-mixed", "--mode", "perf"])
    assert "--mode perf: perf is not installed" in capsys.readouterr().err
    assert profile.parse(["asgi-mixed"]).mode != "perf"  # py-spy, or what needs nothing
