"""Attempts in a child process, with limits on time and memory, and the table of what came of them.

A kind of fault is a module with a function `attempt(seed, number, folder)` that returns what was
tried, the outcome and a word about it. Many attempts share a child process; one that dies or hangs
is replaced, and the attempt counts as what it did.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

__all__ = ["OUTCOMES", "Attempt", "foreseen", "run", "table"]

OUTCOMES = ("refused well", "right", "wrong", "unforeseen", "hang or memory")
# What an attempt may take. The time is many times what is promised, as machines have other work.
SECONDS, MEMORY = 5.0, 500_000_000
# After this an attempt is stopped, and this is refused to it.
PATIENCE, MOST_MEMORY = 30.0, 4_000_000_000


class Attempt(NamedTuple):
    """What came of one attempt: its number, what was tried, and which of `OUTCOMES` it was."""

    number: int
    tried: str
    outcome: str
    detail: str


def foreseen(error: BaseException) -> bool:
    """Whether an error is a refusal as the command line reports it, in one line."""
    known = isinstance(error, ValueError | OSError | ArithmeticError | ImportError)
    return known and bool(str(error).strip()) and len(str(error)) < 5000


def run(module: str, seed: int, numbers: Sequence[int]) -> Iterator[Attempt]:
    """Makes attempts of a kind in child processes, one after the other."""
    waiting = list(numbers)
    while waiting:
        command = [sys.executable, __file__, module, str(seed), json.dumps(waiting)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            for line in _lines(child.stdout):
                attempt = Attempt(*json.loads(line))
                waiting.remove(attempt.number)
                yield attempt
            child.kill()
            code = child.wait()
        if waiting:
            yield Attempt(waiting.pop(0), "?", "hang or memory", f"stopped or died, code {code}")


def _lines(stream: IO[str] | None) -> Iterator[str]:
    """Yields lines until none comes for too long; the first may take as long as imports take."""
    patience = 10 * PATIENCE
    while stream is not None and select.select([stream], [], [], patience)[0]:
        line = stream.readline()
        if not line:
            return
        yield line
        patience = PATIENCE


def table(attempts: Sequence[Attempt]) -> str:
    """Returns the table of all attempts as Markdown, with the first detail of each bad outcome."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for attempt in attempts:
        counts[attempt.tried][attempt.outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    lines = [f"| kind | tried | {' | '.join(OUTCOMES)} |", "|---" * (2 + len(OUTCOMES)) + "|"]
    lines += [
        f"| {kind} | {count.total()} | {' | '.join(str(count[name]) for name in OUTCOMES)} |"
        for kind, count in counts.items()
    ]
    bad = [a for a in attempts if a.outcome in OUTCOMES[2:]]
    return "\n".join(
        [*lines, *(f"{a.number}: {a.tried}: {a.outcome}: {a.detail[:300]}" for a in bad[:40])]
    )


def _child(module: str, seed: int, numbers: Sequence[int]) -> None:
    """Makes attempts, and prints what came of each."""
    warnings.simplefilter("ignore")
    output = sys.stdout
    kind = importlib.import_module(module)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        kind.attempt(seed, numbers[0], Path(name))  # what imports and first calls take
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + MOST_MEMORY, hard))
        for number in numbers:
            # The processor's time: where a machine has other work, the clock says little.
            before, began = _memory("VmRSS"), time.process_time()
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            tried, outcome, detail = kind.attempt(seed, number, Path(name))
            seconds, taken = time.process_time() - began, _memory("VmHWM") - before
            if seconds > SECONDS or taken > MEMORY:
                outcome, detail = OUTCOMES[4], f"{seconds:.1f} s, {taken / 1e6:.0f} MB; {detail}"
            line = json.dumps(Attempt(number, tried, outcome, detail))
            print(line, file=output, flush=True)


def _memory(what: str) -> int:
    with Path("/proc/self/status").open() as status:
        line = next(line for line in status if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the folder of the package, not of this module
    _child(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
