"""Dask clusters as executors."""

from __future__ import annotations

import concurrent.futures
import contextlib
import warnings
from collections.abc import Iterator

from tfgen.warnings import TfgenWarning

__all__ = ["dask_executor"]


@contextlib.contextmanager
def dask_executor(scheduler: str, timeout: float = 5.0) -> Iterator[concurrent.futures.Executor]:
    """Connects to a Dask cluster that is there already.

    Args:
        scheduler: address of its scheduler, like "tcp://10.0.0.1:8786".
        timeout: for the connection, s.

    Yields:
        An executor for functions that the workers can import.

    Raises:
        ImportError: if Dask is not installed.
        ConnectionError: if there is no scheduler at the address.
        ChildProcessError: if the cluster loses a task, as workers or the scheduler die.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'tfgen[dask]' brings Dask") from error
    try:
        client = Client(scheduler, timeout=timeout, name="tfgen")
    except Exception as error:  # what answers may be anything, and end in any error
        reason = error if isinstance(error, OSError | ValueError) else "something else does"
        raise ConnectionError(f"no Dask scheduler answers at {scheduler!r}: {reason}") from error
    with client:
        if not client.scheduler_info()["workers"]:
            warnings.warn(
                f"the Dask scheduler at {scheduler} has no workers yet; the work waits for them",
                TfgenWarning,
                stacklevel=3,
            )
        try:
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise ChildProcessError(
                "the Dask workers died at the same task, one after the other (out of memory?); "
                "what is done is kept, and the same command continues"
            ) from error
        except concurrent.futures.CancelledError as error:
            raise ConnectionError(
                f"lost the Dask scheduler at {scheduler}; what is done is kept, and the same "
                "command continues"
            ) from error
