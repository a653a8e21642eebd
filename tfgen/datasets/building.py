"""Builds a data set from a recipe: make, relax, explore, select, split; resumable, in parallel.

The work is cut into rounds of tasks, each a pure function of recipe, seed, its place and the minima
of the rounds before, so that the data set is the same whatever the number and kind of workers and
whatever interrupts it. Results wait in the folder `FILE.h5.partial` until all are there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfgen import __version__
from tfgen._files import OutputExistsError, new_file, require_absent, reserve
from tfgen.datasets import exploring
from tfgen.datasets.computing import (
    FMAX,
    Compute,
    describe_compute,
    find_compute,
    open_computer,
)
from tfgen.datasets.filtering import describe_failures, select
from tfgen.datasets.recipe import Recipe, load_recipe
from tfgen.datasets.settings import BuildSettings
from tfgen.datasets.storage import Dataset
from tfgen.datasets.tasks import (
    Results,
    Task,
    check_apart,
    load_results,
    run,
    run_apart,
    save_results,
)
from tfgen.execution.dask import dask_executor
from tfgen.execution.processes import ProcessDiedError, Processes
from tfgen.execution.workers import Workers, run_all
from tfgen.potentials._output import log_beside
from tfgen.structures.batch import bucket
from tfgen.structures.properties import UNITS
from tfgen.warnings import TfgenWarning

__all__ = ["build", "partial_folder"]

EXECUTORS = ("local", "dask")
PARTIAL_VERSION = 6  # of the files in a folder of unfinished work

# How the names of everything in a folder of unfinished work begin.
_OWN = ("task.json", ".task-", "chunk-", ".chunk-", "properties", "dataset.h5", ".dataset-")

_Runner = Callable[[Sequence[Task]], Iterator[tuple[Task, list[Results]]]]


def build(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    workers: int = 1,
    executor: str = "local",
    scheduler: str | None = None,
    overwrite: bool = False,
    compute: Compute | None = None,
    settings: BuildSettings | None = None,
    progress: bool = False,
) -> Dataset:
    """Runs a recipe and writes the data set; called again after an interruption, it continues.

    Structures that do not converge, fall apart (bonds are distances up to `factors.BOND_FACTOR`
    times the sum of covalent radii) or equal a lower minimum are dropped and counted, all before
    the split. The structures come sorted by composition, then by energy.

    With an ASE calculator each structure is relaxed in a worker process. Where the process crashes,
    or is stopped at the recipe's time limit, the structure is counted, and the others continue.

    Properties that functions compute come last, on the structures that are left. Those for which a
    function fails are dropped and counted as well.

    Args:
        recipe: what to build; a recipe, the path of its file, or its name in `datasets/`.
        output: the HDF5 file to write.
        seed: of all random choices.
        workers: number of processes, if `executor` is "local".
        executor: "local", or "dask" for a Dask cluster that is there already.
        scheduler: address of the Dask scheduler.
        overwrite: replace `output`, and discard what is left of another, interrupted build.
        compute: property -> a function `f(atoms) -> float`, or its import path MODULE:FUNCTION, or
            None for a property of the ASE calculator by its ASE name; in addition to those of the
            recipe. `atoms.calc` is the recipe's potential. An ASE calculator works in other
            processes, which have to be able to import the function.
        settings: how the work is cut into tasks, and how structures leave saddle points; the
            defaults if None.
        progress: show a progress bar.

    Returns:
        The data set that was written; `metadata["counts"]` says what became of the structures. It
        does not depend on `workers` and `executor`.

    Raises:
        FileNotFoundError: if there is no such recipe.
        FileExistsError: if the output exists and `overwrite` is false.
        OutputInUseError: if somebody else builds it at this moment.
        ValueError: if the recipe is not valid, its calculator cannot be made, what computes a
            property is no function, nothing is left (says which filter took how many), the
            interrupted build in `FILE.h5.partial` is another one, or an argument is out of its
            range.
        ImportError: if Dask is asked for and not installed.
        ConnectionError: if the Dask scheduler cannot be reached.
        ChildProcessError: if worker processes die again and again; what is done is kept.

    Warns:
        TfgenWarning: if the calculator or a function failed for some structures.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    settings = settings or BuildSettings()
    _check_arguments(seed, workers, executor, scheduler)
    compute = find_compute(recipe, compute)
    folder = partial_folder(output)
    task = _make_record(recipe, seed, settings)
    with reserve(output):
        if not overwrite:
            ready = _find_finished(Path(output), folder, task, recipe, compute)
            if ready is not None:
                _remove(folder)
                return ready
        output = require_absent(output, overwrite)
        _prepare(folder, task, overwrite)
        try:
            with (
                log_beside(output) as log,
                open_computer(
                    recipe.relax,
                    compute,
                    folder / "properties.jsonl",
                    workers=workers,
                    scheduler=scheduler,
                    tries=settings.tries,
                    log=log,
                    progress=progress,
                ) as computer,
            ):
                results, rounds = _run_rounds(
                    recipe, seed, settings, folder, workers, scheduler, log, progress
                )
                try:
                    dataset = select(
                        recipe, seed, results, rounds if recipe.explore else [], computer
                    )
                except ValueError as error:
                    raise ValueError(
                        f"{error}; what was computed waits in {str(folder)!r}: remove it to "
                        "compute it again"
                    ) from error
        except BaseException:
            if not any(folder.glob("chunk-*")):
                _remove(folder)  # it holds no results
            raise
        if failed := describe_failures(r for parts in results.values() for r in parts):
            warnings.warn(f"the calculator failed for some, most often: {failed}", TfgenWarning, 2)
        whole = folder / "dataset.h5"
        dataset.save(whole, overwrite=True)
        # A file is replaced, not the link to it.
        whole.replace(require_absent(output, overwrite).resolve())
        _remove(folder)
        return dataset


def _run_rounds(
    recipe: Recipe,
    seed: int,
    settings: BuildSettings,
    folder: Path,
    workers: int,
    scheduler: str | None,
    log: Path,
    progress: bool,
) -> tuple[dict[str, list[Results]], list[dict[str, int]]]:
    """Runs all rounds; returns formula -> what its tasks returned, and what to say of each."""
    results: dict[str, list[Results]] = {formula: [] for formula in recipe.sample.formula}
    known, rounds = exploring.make_empty_minima(recipe, settings), []
    last = recipe.explore.rounds if recipe.explore else 0
    with contextlib.ExitStack() as stack:
        # Workers are started, or a scheduler asked, only if there is something left to do.
        runner = functools.cache(
            lambda: stack.enter_context(_start_runner(recipe, workers, scheduler))
        )
        for number in range(last + 1):
            tasks = exploring.plan(recipe, seed, number, known, settings)
            tasks = [dataclasses.replace(task, log=log) for task in tasks]
            label = f"{recipe.name}, round {number} of {last}" if last else recipe.name
            done = _run_round(folder, tasks, runner, f"relaxing {label}", progress)
            new: dict[str, list[Results]] = {formula: [] for formula in known}
            for task, parts in zip(tasks, done, strict=True):
                for part, result in zip(task.parts, parts, strict=True):
                    new[part.formula].append(result)
            for formula, minima in known.items():
                results[formula] += new[formula]
                if last:
                    minima.add(new[formula])
            made = sum(t.size for t in tasks)
            rounds.append({"structures": made, "minima": sum(map(len, known.values()))})
    return results, rounds


def partial_folder(output: str | os.PathLike[str]) -> Path:
    """Returns the folder where the results of an unfinished build of `output` wait."""
    output = Path(output)
    return output.with_name(output.name + ".partial")


def _check_arguments(seed: int, workers: int, executor: str, scheduler: str | None) -> None:
    if seed < 0:
        raise ValueError(f"seed is {seed!r}; a whole number >= 0 is needed")
    if workers < 1:
        raise ValueError(f"workers is {workers!r}; at least 1 is needed")
    if executor not in EXECUTORS:
        raise ValueError(f"executor is {executor!r}; one of {', '.join(EXECUTORS)} is needed")
    if (executor == "dask") != (scheduler is not None):
        raise ValueError(
            f"executor is {executor!r} and scheduler {scheduler!r}; 'dask' needs the address of a "
            "scheduler, nothing else does"
        )


def _make_record(recipe: Recipe, seed: int, settings: BuildSettings) -> dict[str, Any]:
    """Returns what decides on the results: those of another record must not be mixed in."""
    return {
        "partial_version": PARTIAL_VERSION,
        "tfgen": __version__,
        "seed": seed,
        "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k != "tries"},
        **recipe.describe_sampling(),
    }


def _read_record(folder: Path) -> Any:
    try:
        return json.loads((folder / "task.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _find_finished(
    output: Path, folder: Path, task: dict[str, Any], recipe: Recipe, compute: Compute
) -> Dataset | None:
    """Returns the data set if this build was finished but for the removal of its folder."""
    if not output.is_file() or not folder.is_dir():
        return None
    if _read_record(folder) != task and any(folder.iterdir()):
        return None
    try:
        dataset = Dataset.load(output)
    except ValueError:
        return None
    theirs = dataset.metadata
    ours = theirs.get("recipe"), theirs.get("seed"), theirs.get("versions", {}).get("tfgen")
    same = ours == (recipe.text, task["seed"], __version__) and theirs.get("kind") == "built"
    by = theirs.get("evaluated_by", {})
    computed = {name: source for name, source in by.items() if name not in (*UNITS, FMAX)}
    same &= computed == describe_compute(recipe.relax, compute)
    return dataset if same else None


def _remove(folder: Path) -> None:
    """Removes the folder, its record last, so that an interruption leaves it to be recognised."""
    record = folder / "task.json"
    for path in folder.iterdir():
        if path != record and path.name.startswith(_OWN):
            path.unlink(missing_ok=True)
    record.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _prepare(folder: Path, task: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder of results, or checks that the one there belongs to this task."""
    if folder.exists():
        found = _read_record(folder)
        if found == task:
            return
        # Without results, nothing is lost with it.
        started = ("task.json", ".task-") if isinstance(found, dict) else (".task-",)
        if not overwrite and any(not p.name.startswith(started) for p in folder.iterdir()):
            old = found if isinstance(found, dict) else {}
            differing = ", ".join(k for k in task if old.get(k) != task[k])
            reason = f"holds an interrupted build of something else (other: {differing})"
            raise OutputExistsError(folder, reason)
        foreign = [p.name for p in folder.iterdir() if not p.name.startswith(_OWN)]
        if foreign:
            raise FileExistsError(
                f"{str(folder)!r} holds {foreign[0]!r}, which tfgen has not put there; refusing to "
                "remove the folder"
            )
        shutil.rmtree(folder)
    folder.mkdir()
    with new_file(folder / "task.json") as temporary:
        temporary.write_text(json.dumps(task, indent=1), "utf-8")


def _run_round(
    folder: Path,
    tasks: Sequence[Task],
    runner: Callable[[], _Runner],
    label: str,
    progress: bool,
) -> list[list[Results]]:
    """Returns the results of all tasks in their order: those of earlier runs, and new ones."""
    results = {t.place: r for t in tasks if (r := load_results(folder, t)) is not None}
    missing = [t for t in tasks if t.place not in results]
    # Large ones first, so that no worker is left with one when the others are done.
    missing.sort(key=lambda t: -t.size * _kind_of(t) ** 2)
    total = sum(t.size for t in tasks)
    with tqdm(
        total=total,
        initial=total - sum(t.size for t in missing),
        desc=label,
        unit="",
        disable=not progress,
    ) as bar:
        for task, result in runner()(missing) if missing else ():
            save_results(folder, task, result)
            results[task.place] = result
            bar.update(task.size)
    return [results[t.place] for t in tasks]


@contextlib.contextmanager
def _start_runner(recipe: Recipe, workers: int, scheduler: str | None) -> Iterator[_Runner]:
    """Yields what runs tasks, in any order, and checks before that it can."""
    relax = recipe.relax
    if scheduler is not None:
        with dask_executor(scheduler) as cluster:
            if not relax.batched:
                _require(cluster.submit(check_apart, relax).result())
            work = run if relax.batched else run_apart
            yield lambda tasks: run_all(cluster, work, tasks)
    elif relax.batched and workers == 1:
        yield lambda tasks: ((task, run(task)) for task in tasks)
    else:
        with contextlib.closing(Workers(workers)) as local:
            if not relax.batched:
                _require(check_apart(relax, local.processes[0]))
            apart = _run_batch_apart if relax.batched else run_apart
            try:
                yield lambda tasks: local.run_all(apart, tasks, _kind_of)
            except ProcessDiedError as error:
                raise ChildProcessError(
                    f"{error} (out of memory?); what is done is kept, and the same command "
                    "continues"
                ) from error


def _run_batch_apart(task: Task, processes: Processes) -> list[Results]:
    return processes.call(run, task, tries=task.settings.tries)


def _kind_of(task: Task) -> int:
    """Returns the size that structures are padded to: tasks of one size share what is compiled."""
    return bucket(len(task.parts[0].numbers))


def _require(problem: str) -> None:
    if problem:
        raise ValueError(problem)
