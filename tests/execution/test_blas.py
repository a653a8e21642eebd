"""Products of matrices in one thread, and as before afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small
from threadpoolctl import threadpool_info, threadpool_limits

from tfgen.execution.blas import one_blas_thread
from tfgen.inversion import reconstruct as reconstruction


def blas_threads() -> set[int]:
    pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
    return {p["num_threads"] for p in pools if p.get("threading_layer") != "openmp"}


pytestmark = pytest.mark.skipif(not blas_threads() - {1}, reason="BLAS has a single thread anyway")


def test_ends_with_the_last_that_asked_for_it():
    """They may overlap in any way, and the thread of the first may end first."""
    before = blas_threads()
    first_in, second_in = threading.Event(), threading.Event()

    def first() -> None:
        with one_blas_thread():
            first_in.set()
            second_in.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    first_in.wait(10)
    with one_blas_thread():
        second_in.set()
        thread.join()
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_ends_with_an_error():
    before = blas_threads()
    with pytest.raises(OSError, match="full"), one_blas_thread():
        raise OSError("full")
    assert blas_threads() == before


def test_does_not_undo_what_the_caller_has_set():
    with threadpool_limits(3, user_api="blas"):
        with one_blas_thread():
            pass
        assert blas_threads() == {3}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_searches_have_one_each(elsewhere, monkeypatch):
    before, seen = blas_threads(), []
    original = reconstruction.search
    monkeypatch.setattr(
        reconstruction, "search", lambda *args: seen.append(blas_threads()) or original(*args)
    )
    targets = np.asarray(small.fingerprint().create(small.structures()[:3]))
    with small.quick_search(), ThreadPoolExecutor(2) as executor:
        where = {"executor": executor} if elsewhere else {}
        reconstruction.reconstruct(small.fingerprint(), targets, "Pt5", max_rounds=0, **where)
    assert seen == [{1}] * 3
    assert blas_threads() == before
