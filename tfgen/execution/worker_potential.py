"""ASE calculators in worker processes: they may crash or hang, and their results are kept."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from tfgen import __version__
from tfgen.execution.processes import ProcessDiedError, Processes, TimeLimitError
from tfgen.execution.results import ResultStore, fingerprint_of
from tfgen.potentials.ase import AsePotential, shared_potential
from tfgen.potentials.import_paths import code_digest
from tfgen.potentials.outcomes import Calculation, Relaxation
from tfgen.potentials.properties import PropertyFunction
from tfgen.structures.status import Status

__all__ = ["WorkerPotential"]

# In a process of a cluster, where jobs run apart from it; none starts before the first job.
_PROCESSES = Processes()
STATE = ("charge", "spin", "mult", "multiplicity")
"""Names in `atoms.info` by which calculators are told the electronic state of a structure."""
_LAST_BYTES = 200  # of the output of a calculator that has died
# Results that are not kept: another time, or another machine, may be luckier, and functions mended.
_PASSING = (Status.CRASHED, Status.TIME_LIMIT, Status.PROPERTY_FAILED)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One structure, and what is to be computed of it.

    Attributes:
        path, arguments: of the calculator.
        code: digest of the calculator's module.
        vacuum, log: as for `AsePotential`.
        structure: without a calculator.
        functions: of a single point.
        fmax, max_steps: of a relaxation; None for a single point.
        time_limit: s.
        tries: processes that get the job, one after the other, while they crash.
    """

    path: str
    arguments: Mapping[str, Any]
    code: str
    vacuum: float
    log: Path | None
    structure: Atoms
    functions: tuple[PropertyFunction, ...] = ()
    fmax: float | None = None
    max_steps: int | None = None
    time_limit: float | None
    tries: int

    @property
    def key(self) -> str:
        """Names the result."""
        return fingerprint_of(
            self.structure,
            {
                "tfgen": __version__,
                "path": self.path,
                "code": self.code,
                "arguments": self.arguments,
                "state": self.structure.info,
                "vacuum": self.vacuum,
                "functions": [[f.name, f.source, f.code] for f in self.functions],
                "relax": [self.fmax, self.max_steps],
            },
        )

    def failed(self, status: Status, detail: str) -> Calculation | Relaxation:
        """What is returned where the process died."""
        if self.fmax is not None:
            return Relaxation.failed(self.structure, detail, status)
        return Calculation.failed(self.structure, [f.name for f in self.functions], detail, status)


class WorkerPotential(AsePotential):
    """An ASE calculator that runs in worker processes of its own.

    What a process that crashes, or is stopped at the time limit, was working on gets that status,
    and the others continue. Each process makes the calculator once. Results do not depend on the
    number of workers.

    Args:
        path: import path MODULE:NAME of the calculator.
        arguments: keyword arguments for it.
        vacuum: as for `AsePotential`.
        workers: number of processes.
        time_limit: for one structure, s; None: none.
        executor: runs the jobs instead of the processes of this machine, like that of a Dask
            cluster.
        results: keeps results, and has those of an interrupted run, which are not computed again.
        log: a file to which what the calculator prints is appended; it is lost if None.
        tries: processes that get the same structure, one after the other, while they crash.

    Raises:
        ValueError: if the calculator cannot be made, or an argument is out of its range.
    """

    def __init__(
        self,
        path: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        vacuum: float = 0.0,
        workers: int = 1,
        time_limit: float | None = None,
        executor: concurrent.futures.Executor | None = None,
        results: ResultStore | None = None,
        log: Path | None = None,
        tries: int = 3,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers!r}; at least 1 is needed")
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"time_limit is {time_limit!r}; a number of seconds above 0 is needed")
        self._executor, self._workers = executor, workers
        self._time_limit, self._tries = time_limit, tries
        self._results = ResultStore() if results is None else results
        self._processes = Processes()
        self._code = code_digest(path)
        arguments = dict(arguments or {})
        problem = self._check(path, arguments, vacuum, log)
        if isinstance(problem, str):
            self.close()
            raise ValueError(problem)
        super().__init__(_Remote(problem), path=path, arguments=arguments, vacuum=vacuum, log=log)

    def close(self) -> None:
        """Ends the worker processes."""
        self._processes.close()

    def __enter__(self) -> WorkerPotential:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_functions(self, functions: Sequence[PropertyFunction]) -> None:
        """Checks that functions can be sent to the worker processes.

        Raises:
            ValueError: if one cannot.
        """
        for function in functions:
            if not _can_be_sent(function):
                raise ValueError(
                    f"compute {function.name}: {function.source!r} cannot be sent to worker "
                    "processes; a function of a module is needed"
                )

    def calculate(
        self,
        structures: Sequence[Atoms],
        functions: Sequence[PropertyFunction] = (),
        *,
        advance: Callable[[], Any] | None = None,
    ) -> list[Calculation]:
        """Computes as `AsePotential.calculate` does, in the worker processes.

        Raises:
            ValueError: as `check_functions`.
        """
        self.check_functions(functions)
        jobs = [self._job(structure, functions=tuple(functions)) for structure in structures]
        return self._run_all(jobs, advance)

    def relax_all(
        self,
        structures: Sequence[Atoms],
        *,
        fmax: float = 0.01,
        max_steps: int = 2000,
        advance: Callable[[], Any] | None = None,
    ) -> list[Relaxation]:
        """Relaxes as `AsePotential.relax_all` does, in the worker processes."""
        jobs = [self._job(structure, fmax=fmax, max_steps=max_steps) for structure in structures]
        found = []
        for structure, one in zip(structures, self._run_all(jobs, advance), strict=True):
            # With all that a structure carries, of which the workers need nothing.
            relaxed = structure.copy()
            relaxed.positions = one.structure.positions
            found.append(replace(one, structure=relaxed))
        return found

    def _job(self, structure: Atoms, **other: Any) -> _Job:
        plain = structure.copy()
        plain.calc = None
        plain.info = {name: plain.info[name] for name in STATE if name in plain.info}
        return _Job(
            path=str(self.path),
            arguments=self.arguments,
            code=self._code,
            vacuum=self.vacuum,
            log=self.log,
            structure=plain,
            time_limit=self._time_limit,
            tries=self._tries,
            **other,
        )

    def _run_all(self, jobs: Sequence[_Job], advance: Callable[[], Any] | None) -> list[Any]:
        results: dict[int, Any] = {}
        keys = [job.key for job in jobs]
        for i, (job, key) in enumerate(zip(jobs, keys, strict=True)):
            if (kept := self._results.get(key)) is not None:
                results[i] = _decode(job, kept)
        missing = [i for i in range(len(jobs)) if i not in results]
        for _ in range(len(results) if advance else 0):
            advance()  # type: ignore[misc]
        with self._started(jobs, missing) as futures:
            for future in concurrent.futures.as_completed(futures):
                i = futures[future]
                results[i] = future.result()
                if results[i].status not in _PASSING:
                    self._results.add(keys[i], _encode(results[i]))
                if advance is not None:
                    advance()
        self._count(sum(result.calculations for result in results.values()))
        return [results[i] for i in range(len(jobs))]

    @contextlib.contextmanager
    def _started(
        self, jobs: Sequence[_Job], missing: Sequence[int]
    ) -> Iterator[dict[concurrent.futures.Future[Any], int]]:
        """Yields what will have the results of the missing jobs -> their places."""
        with contextlib.ExitStack() as stack:
            if self._executor is None:
                threads = concurrent.futures.ThreadPoolExecutor(self._workers)
                stack.callback(threads.shutdown, wait=True, cancel_futures=True)
                # What several print into one file cannot be told apart.
                work = functools.partial(_run, processes=self._processes, quote=self._workers == 1)
                futures = {threads.submit(work, jobs[i]): i for i in missing}
            else:
                futures = {self._executor.submit(_run, jobs[i]): i for i in missing}
            try:
                yield futures
            except BaseException:
                for future in futures:
                    future.cancel()
                # What is still running would be waited for.
                self._processes.close()
                self._processes = Processes()
                raise

    def _check(
        self, path: str, arguments: Mapping[str, Any], vacuum: float, log: Path | None
    ) -> Any:
        """Returns the properties that the calculator implements, or why it cannot be made."""
        request = path, arguments, vacuum, log
        try:
            if self._executor is not None:
                return self._executor.submit(_describe_apart, request, self._time_limit).result()
            return self._processes.call(_describe, request, self._time_limit, tries=self._tries)
        except (ProcessDiedError, TimeLimitError) as error:
            return f"calculator {path!r} cannot be made: {error}"


class _Remote(Calculator):
    """Stands for a calculator that is in other processes."""

    def __init__(self, implemented_properties: Sequence[str]) -> None:
        self.implemented_properties = list(implemented_properties)
        super().__init__()


def _can_be_sent(function: PropertyFunction) -> bool:
    if getattr(function.function, "__module__", "") == "__main__":
        return False  # it is another module there
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _describe(request: tuple[str, Mapping[str, Any], float, Path | None]) -> Any:
    path, arguments, vacuum, log = request
    try:
        potential = shared_potential(path, arguments, vacuum=vacuum, log=log)
        return potential.implemented_properties
    except ValueError as error:
        return str(error)


def _describe_apart(request: Any, time_limit: float | None) -> Any:
    return _PROCESSES.call(_describe, request, time_limit)


def _run(job: _Job, processes: Processes = _PROCESSES, quote: bool = False) -> Any:
    """Does a job in a process that may die or hang; tells what it has printed last if `quote`."""
    start = _measure(job.log) if quote else 0
    try:
        return processes.call(_do, job, job.time_limit, tries=job.tries)
    except ProcessDiedError as error:
        words = _last_words(job.log, start) if quote else ""
        return job.failed(Status.CRASHED, f"{error}{words}")
    except TimeLimitError as error:
        return job.failed(Status.TIME_LIMIT, str(error))


def _measure(log: Path | None) -> int:
    """Returns the size of a file; 0 if there is none."""
    return log.stat().st_size if log is not None and log.exists() else 0


def _last_words(log: Path | None, start: int) -> str:
    """Returns what was printed last after the first `start` bytes: programs say why they end."""
    try:
        with open(log or os.devnull, "rb") as file:  # noqa: PTH123
            file.seek(max(start, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:  # on another machine, of a cluster
        return ""
    words = " ".join(text.strip().rpartition("\n")[2].split())[:_LAST_BYTES]
    return f"; printed last: {words}" if words else ""


def _do(job: _Job) -> Any:
    potential = shared_potential(job.path, job.arguments, vacuum=job.vacuum, log=job.log)
    if job.fmax is None:
        return potential.calculate([job.structure], job.functions)[0]
    return potential.relax(job.structure, fmax=job.fmax, max_steps=job.max_steps or 0)


def _encode(result: Calculation | Relaxation) -> dict[str, Any]:
    """Returns a result as JSON holds it."""
    fields = {**vars(result), "status": str(result.status), "forces": result.forces.tolist()}
    if isinstance(result, Relaxation):
        fields["structure"] = result.structure.positions.tolist()
    return fields


def _decode(job: _Job, fields: Mapping[str, Any]) -> Calculation | Relaxation:
    """Returns the result that `_encode` has turned into JSON."""
    values = {
        **fields,
        "status": Status(fields["status"]),
        "forces": np.array(fields["forces"], float),
    }
    if job.fmax is None:
        return Calculation(**values)
    structure = job.structure.copy()
    structure.positions = fields["structure"]
    return Relaxation(**{**values, "structure": structure})
