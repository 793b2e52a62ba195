"""Where a Python server's processor time goes, sampled by Linux's perf: by function and thread, with the kernel's part.

perf looks only at threads that run, so the shares of all threads are right, those that wait for the interpreter's lock
included. The server runs with ``-X perf`` (CPython 3.12 and later), so that the calls of Python functions show in its
native stack. Each sample belongs to the innermost Python function: the C functions and system calls below it count for
it. Who called that is not known, since the stack cannot be followed through the interpreter's own frames.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from benchmarks.process import BenchmarkError

RATE = 1500  # samples per second
STACK = 16384  # bytes of stack kept with each sample
READ_LIMIT = 120.0  # seconds to turn the samples into text
WRAP = ["-X", "perf", "-m"]
NO_FUNCTION = ("outside Python", "-")
FRAME = re.compile(r"\s*[0-9a-f]+ (.*) \((.*)\)\s*$")  # address, symbol, file
OWNERS = {
    "[kernel.kallsyms]": "kernel",
    "libpython": "interpreter",
    "python": "interpreter",
    "perf-": "interpreter",
    "_speedups": "bridge._speedups",
    "loop.": "uvloop",
}


class Sample(NamedTuple):
    """One look: the thread's number, the innermost Python function and its file, and whose code ran."""

    thread: int
    function: tuple[str, str]
    owner: str


def missing() -> str:
    """Return why perf cannot be used here; empty if it can."""
    if sys.version_info < (3, 12):
        return "CPython 3.12 or later shows its functions to perf"
    return "" if shutil.which("perf") else "perf is not installed (Debian: linux-perf)"


def command(pid: int, seconds: int, output: Path) -> list[str]:
    """Return the command that samples a process for *seconds*."""
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(RATE), "--call-graph", f"dwarf,{STACK}"]
    return [*record, "-p", str(pid), "-o", str(output), "--", "sleep", str(seconds)]


def read(output: Path) -> list[Sample]:
    """Return the samples of a file that perf has written.

    Raises:
        BenchmarkError: perf cannot read it, or it has none.
    """
    script = ["perf", "script", "-i", str(output), "-F", "tid,ip,sym,dso", "--no-inline"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=READ_LIMIT, check=False)
    samples = parse(done.stdout)
    if not samples:
        raise BenchmarkError(f"perf: {' '.join(done.stderr.split()[-20:]) or 'no sample'}; --mode py-spy needs no perf")
    return samples


def parse(text: str) -> list[Sample]:
    """Read what ``perf script`` prints: blocks of a thread's number and its frames, the innermost first."""
    samples = []
    for block in text.split("\n\n"):
        first, *rest = block.strip("\n").splitlines() or [""]
        frames = [match.groups() for match in map(FRAME.match, rest) if match]
        if not frames or not first.strip().isdigit():
            continue
        python = next((symbol for symbol, _ in frames if symbol.startswith("py::")), None)
        function = NO_FUNCTION
        if python is not None:
            name, _, file = python.removeprefix("py::").partition(":")
            function = name, file
        samples.append(Sample(int(first), function, owner(frames[0][1])))
    return samples


def owner(file: str) -> str:
    """Return in few words whose code a file holds."""
    name = file.rpartition("/")[2]
    for beginning, words in OWNERS.items():
        if name.startswith(beginning):
            return words
    return name.partition(".")[0]


class Shares(NamedTuple):
    """Samples counted: by whose code ran, of the main thread, by function, and of these in the kernel."""

    total: int
    owners: Counter[str]
    main_thread: int
    functions: Counter[tuple[str, str]]
    kernel: Counter[tuple[str, str]]

    @classmethod
    def of(cls, samples: list[Sample], pid: int) -> "Shares":
        """Count; the main thread of process *pid* is the loop's."""
        return cls(
            len(samples),
            Counter(sample.owner for sample in samples),
            sum(sample.thread == pid for sample in samples),
            Counter(sample.function for sample in samples),
            Counter(sample.function for sample in samples if sample.owner == "kernel"),
        )
