"""Run a module as ``python -m`` does, with a profiler inside that a signal starts and another stops.

``python -m benchmarks.sampler MODE FILE MODULE [ARGUMENT ...]``; only benchmarks.profile starts it. Modes:

* ``sample``: a thread looks at the event loop's stack every millisecond and weighs it by the processor time that the
  loop's thread has used since the last look, so that waiting weighs nothing. It can look only where the interpreter
  gives way, which is after a call into C and at the entry of a function; the figures lean that way.
* ``calls``: cProfile on the event loop's thread: exact numbers of calls, times inflated by the counting.
"""

import cProfile
import json
import marshal
import runpy
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

CONTROL = signal.SIGRTMIN + 5  # first: begin; second: end and write the file
TOGGLE = signal.SIGRTMIN + 6  # from the control thread to the main thread
INTERVAL = 0.001  # seconds
SWITCH_INTERVAL = 0.0001  # seconds; the default of 5 ms would let a busy thread run on long after the moment asked for
DEPTH = 60  # frames

Stack = tuple[tuple[str, str, int], ...]  # (function, file, line), outermost first


def stack_of(frame: FrameType | None) -> Stack:
    """Return the innermost frames of a stack."""
    frames: list[tuple[str, str, int]] = []
    while frame is not None and len(frames) < DEPTH:
        frames.append((frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(reversed(frames))


def sample_until_told(path: str) -> None:
    """Wait for CONTROL, sample until the next, write the stacks with their microseconds."""
    signal.sigwait({CONTROL})
    sys.setswitchinterval(SWITCH_INTERVAL)
    stacks: Counter[Stack] = Counter()
    main = threading.main_thread().ident or 0
    clock = time.pthread_getcpuclockid(main)
    used = time.clock_gettime(clock)
    while signal.sigtimedwait({CONTROL}, INTERVAL) is None:
        now = time.clock_gettime(clock)
        stacks[stack_of(sys._current_frames()[main])] += round((now - used) * 1e6)
        used = now
    Path(path).write_text(json.dumps([[list(stack), weight] for stack, weight in stacks.items()]))


def count_until_told(path: str) -> None:
    """Wait for CONTROL, have the main thread profile until the next, write what cProfile found."""
    profile = cProfile.Profile()
    running = False
    finished = threading.Event()

    def toggle(number: int, frame: FrameType | None) -> None:
        nonlocal running
        if running:
            profile.disable()
            finished.set()
        else:
            running = True
            profile.enable()

    signal.signal(TOGGLE, toggle)  # called before the thread below is started: only the main thread may

    def control() -> None:
        signal.sigwait({CONTROL})
        signal.pthread_kill(threading.main_thread().ident or 0, TOGGLE)
        signal.sigwait({CONTROL})
        signal.pthread_kill(threading.main_thread().ident or 0, TOGGLE)
        finished.wait(10)
        profile.create_stats()
        Path(path).write_bytes(marshal.dumps(profile.stats))

    threading.Thread(target=control, daemon=True).start()


def main() -> None:
    """Start the profiler's thread, then be the module."""
    mode, path, module, *arguments = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {CONTROL})  # every thread inherits it; sigwait takes the signal
    if mode == "calls":
        count_until_told(path)
    else:
        threading.Thread(target=sample_until_told, args=(path,), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
