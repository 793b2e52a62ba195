"""Fuzz: ``python -m fuzz``, ``python -m fuzz heads frames --seconds 600``.

Each target gets inputs that are made from its corpus, ``fuzz/corpus/TARGET/``. An input for which a target raises
anything is a finding: it is written into the corpus, where it stays, and where the tests run it from then on.
"""

import argparse
import hashlib
import random
import sys
import time
import traceback
from pathlib import Path

from bridge.speedups import COMPILED
from fuzz.mutate import Mutator
from fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"


def seeds(name: str) -> list[bytes]:
    """Return the corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def fuzz(target: Target, seconds: float, seed: int) -> tuple[int, Path | None]:
    """Run one target for some time; return how many inputs it got, and the file of a finding."""
    found = seeds(target.name)
    mutator = Mutator(found, target.words, random.Random(seed))
    end = time.monotonic() + seconds
    count = 0
    while True:
        if not count % 64 and time.monotonic() >= end and count >= len(found):
            return count, None
        data = found[count] if count < len(found) else mutator.next()
        count += 1
        try:
            target.run(data)
        except Exception:
            traceback.print_exc()
            path = CORPUS / target.name / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            return count, path


def main() -> int:
    """Fuzz, and return 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; default: another one each time")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    unknown = set(names) - set(TARGETS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such target; there are {', '.join(TARGETS)}")
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}, speedups: {'compiled' if COMPILED else 'python'}", flush=True)
    total = failures = 0
    for name in names:
        count, path = fuzz(TARGETS[name], options.seconds / len(names), seed)
        total += count
        failures += path is not None
        print(f"{name:<12} {count:>10,} inputs" + (f"   FOUND {path}" if path else ""), flush=True)
    print(f"{total:,} inputs, {failures} findings")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
