"""Connecting to a Dask cluster: one line says why it cannot be done."""

from __future__ import annotations

import socketserver
import sys
import threading
import time

import pytest

from tfgen.execution.dask import dask_executor


def test_a_scheduler_that_is_not_there():
    pytest.importorskip("distributed")
    began = time.monotonic()
    with (
        pytest.raises(ConnectionError, match="no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
        dask_executor("tcp://127.0.0.1:9", timeout=1.0),
    ):
        pass
    assert time.monotonic() - began < 20
    with (
        pytest.raises(ConnectionError, match="no Dask scheduler answers at 'ham://eggs'"),
        dask_executor("ham://eggs", timeout=1.0),
    ):
        pass


def test_something_else_than_a_scheduler():
    pytest.importorskip("distributed")

    class Web(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9)

    with socketserver.TCPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        address = "tcp://{}:{}".format(*server.server_address)
        with (
            pytest.raises(ConnectionError, match=f"no Dask scheduler answers at '{address}': "),
            dask_executor(address, timeout=1.0),
        ):
            pass
        server.shutdown()


def test_dask_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ImportError, match=r"pip install 'tfgen\[dask\]'"),
        dask_executor("tcp://127.0.0.1:9"),
    ):
        pass
