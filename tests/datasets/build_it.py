"""Builds a small data set in a process of its own, for tests that kill it.

Usage: build_it.py WHOLE KILLED MOMENTS: imports everything once, forks a build of WHOLE and takes
its time, then for each of the moments (in shares of that time) forks a build of KILLED that is
killed then, and at last lets one run to its end. Prints how each but the first ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from tfgen.datasets.building import build
from tfgen.datasets.recipe import Explore, Recipe, Relax, Sample

RECIPE = Recipe(
    "killed",
    Sample(("Pt4", "Pt5"), 4),
    relax=Relax("ase.calculators.emt:EMT", fmax=0.05, max_steps=60, rattle=0.0, snapshots=(0,)),
    explore=Explore(2, 3),
    text="a recipe",
)
ENDS = {0: "finished", 1: "failed", 5: "exists", -signal.SIGKILL: "killed"}


def started(output: str) -> int:
    child = os.fork()  # nothing has been computed with TensorFlow yet
    if child:
        return child
    code = 1
    try:
        build(RECIPE, output, seed=3, workers=2)
        code = 0
    except FileExistsError:
        code = 5
    finally:
        os._exit(code)


def end(child: int) -> str:
    return ENDS[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def main(whole: str, killed: str, moments: list[float]) -> None:
    began = time.perf_counter()
    assert end(started(whole)) == "finished"
    seconds = time.perf_counter() - began
    for moment in moments:
        while True:
            child = started(killed)
            time.sleep(moment * seconds)
            os.kill(child, signal.SIGKILL)  # nothing happens to one that is over
            if (how := end(child)) == "killed":
                break
            # It was faster than the first: it starts from nothing, and is killed earlier.
            Path(killed).unlink(missing_ok=True)
            seconds /= 2
        print(how, flush=True)
    print(end(started(killed)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [float(m) for m in sys.argv[3:]])
