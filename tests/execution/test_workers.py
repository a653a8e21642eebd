"""Workers do everything once, and each what it knows."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading

import faulty
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgen.execution.processes import ProcessDiedError
from tfgen.execution.workers import Workers, run_all


def test_closing_ends_what_is_under_way():
    with contextlib.closing(Workers(2)) as workers:
        idle = workers.processes[1].call(faulty.process, None)
        calls = workers.run_all(
            lambda seconds, processes: processes.call(faulty.sleep, seconds), [3600, 3600], int
        )
        threading.Timer(1.0, workers.close).start()
        with pytest.raises(ProcessDiedError):
            next(calls)
    assert faulty.gone(idle)
    with pytest.raises(ProcessDiedError, match="closed"):
        workers.processes[0].call(faulty.double, 1)


def test_run_all_yields_each_argument_with_its_result():
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        pairs = dict(run_all(threads, faulty.double, range(10)))
        assert pairs == {i: 2 * i for i in range(10)}
        with pytest.raises(KeyError):
            list(run_all(threads, faulty.fail, range(3)))


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(1, 3), st.booleans())
def test_workers_do_everything_once_and_prefer_what_they_know(kinds, count, twice):
    """Kinds that were begun by a worker stay with it as long as there is enough for all."""
    begun = []

    def work(argument, processes):
        begun.append((argument, places[id(processes)]))
        return argument

    with contextlib.closing(Workers(count)) as workers:
        places = {id(p): k for k, p in enumerate(workers.processes)}
        arguments = list(enumerate(kinds))
        for _ in range(1 + twice):
            begun.clear()
            results = list(workers.run_all(work, arguments, lambda a: a[1]))
            assert sorted(results) == [(a, a) for a in arguments]
            assert sorted(a for a, _ in begun) == arguments
            if count == 1:
                # One kind after the other, in the order of the first of each.
                assert [a[1] for a, _ in begun] == sorted(kinds, key=kinds.index)


def test_kinds_stay_with_the_worker_that_knows_them():
    began = threading.Barrier(2, timeout=30)

    def work(argument, processes):
        began.wait()  # both are at work at any moment
        return processes

    with contextlib.closing(Workers(2)) as workers:
        kinds = ["a", "a", "a", "b", "b", "b", "c", "d"]
        arguments = list(enumerate(kinds))
        for order in (arguments, arguments[::-1]):
            by_kind: dict[str, set[int]] = {}
            for argument, processes in workers.run_all(work, order, lambda a: a[1]):
                by_kind.setdefault(argument[1], set()).add(id(processes))
            assert [len(found) for found in by_kind.values()] == [1] * 4
