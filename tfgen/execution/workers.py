"""Many tasks at once: in worker processes of this machine, or in any executor."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from tfgen.execution.processes import Processes

__all__ = ["Workers", "run_all"]

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """Worker processes; each gets tasks of kinds that it has had before, if there are any.

    What one process has compiled for a kind of task, the others need not compile, too.

    Args:
        count: number of processes.
    """

    def __init__(self, count: int) -> None:
        self.processes = [Processes() for _ in range(count)]
        self._known: list[set[Hashable]] = [set() for _ in range(count)]
        self._threads = concurrent.futures.ThreadPoolExecutor(count)

    def run_all(
        self,
        function: Callable[[A, Processes], B],
        arguments: Iterable[A],
        kind: Callable[[A], Hashable],
    ) -> Iterator[tuple[A, B]]:
        """Yields each argument with what `function` returned for it, in the order of completion.

        Args:
            function: called in a thread with an argument and the process to use.
            arguments: in the order in which they are begun, as far as kinds allow.
            kind: of an argument.
        """
        waiting: dict[Hashable, deque[A]] = {}
        for argument in arguments:
            waiting.setdefault(kind(argument), deque()).append(argument)
        free = list(range(len(self.processes)))
        running: dict[concurrent.futures.Future[B], tuple[int, A]] = {}
        ended: list[tuple[A, concurrent.futures.Future[B]]] = []
        while waiting or running:
            while waiting and free:
                worker = free.pop()
                chosen = self._choose(worker, list(waiting))
                self._known[worker].add(chosen)
                argument = waiting[chosen].popleft()
                if not waiting[chosen]:
                    del waiting[chosen]
                future = self._threads.submit(function, argument, self.processes[worker])
                running[future] = worker, argument
            # Results are handed out only now, when all workers are busy again.
            for argument, future in ended:
                yield argument, future.result()
            done, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            ended = [(running[future][1], future) for future in done]
            free += [running.pop(future)[0] for future in done]
        for argument, future in ended:
            yield argument, future.result()

    def close(self) -> None:
        """Kills all processes, and with them what they are working on."""
        for processes in self.processes:
            processes.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _choose(self, worker: int, kinds: list[Hashable]) -> Hashable:
        mine = [k for k in kinds if k in self._known[worker]]
        new = [k for k in kinds if not any(k in known for known in self._known)]
        return (mine or new or kinds)[0]


def run_all(
    executor: concurrent.futures.Executor, function: Callable[[A], B], arguments: Iterable[A]
) -> Iterator[tuple[A, B]]:
    """Yields each argument with what `function` returned for it, in the order of completion."""
    futures = {executor.submit(function, argument): argument for argument in arguments}
    try:
        for future in concurrent.futures.as_completed(list(futures)):
            # Forgotten at once: results of a whole round need not stay in memory twice.
            yield futures.pop(future), future.result()
    finally:
        for future in futures:
            future.cancel()
