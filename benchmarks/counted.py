"""Run a module as ``python -m`` does, with cProfile on its main thread between two signals.

``python -m benchmarks.counted FILE MODULE [ARGUMENT ...]``; only benchmarks.profile starts it. Numbers of calls are
exact, times are inflated by the counting.

There is no sampler of our own here: a thread that samples can look only where the interpreter gives its lock away. For
bridge on uvloop that is nearly always inside the loop: such a sampler, tried, booked 98 % of the time there, and
py-spy, which looks from outside at any moment, 19 %.
"""

import cProfile
import marshal
import runpy
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

CONTROL = signal.SIGRTMIN + 5  # first: begin; second: end and write the file
TOGGLE = signal.SIGRTMIN + 6  # from the control thread to the main thread


def count_until_told(path: str) -> None:
    """Wait for CONTROL, have the main thread profile until the next, write what cProfile found."""
    profile = cProfile.Profile()
    running = False
    finished = threading.Event()
    main = threading.main_thread().ident or 0

    def toggle(number: int, frame: FrameType | None) -> None:
        nonlocal running
        if running:
            profile.disable()
            finished.set()
        else:
            running = True
            profile.enable()

    signal.signal(TOGGLE, toggle)

    def control() -> None:
        signal.sigwait({CONTROL})
        signal.pthread_kill(main, TOGGLE)
        signal.sigwait({CONTROL})
        signal.pthread_kill(main, TOGGLE)
        if finished.wait(10):  # else nothing is written, and the reader says so
            profile.create_stats()
            Path(path).write_bytes(marshal.dumps(profile.stats))

    threading.Thread(target=control, daemon=True).start()


def main() -> None:
    """Start the control thread, then be the module."""
    path, module, *arguments = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {CONTROL})  # every thread inherits it; sigwait takes the signal
    count_until_told(path)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
