"""`tfgen reconstruct`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    check_executor,
    check_extxyz,
    fingerprint_from,
    fingerprint_option,
    output_option,
    overwrite_option,
    path_argument,
    reserve_output,
    seed_option,
    shown_warnings,
)
from tfgen.cli._output import echo

# Structures whose sorted distances all differ by at most this count as found again, Å.
FOUND_AGAIN = 0.05


@click.command(short_help="Invert the fingerprints of known structures.")
@path_argument("file", "FILE")
@output_option("OUT.extxyz", "Reconstructed structures, in the order of FILE.")
@fingerprint_option
@click.option(
    "--max-rounds", type=click.IntRange(0), default=100, show_default=True,
    help="Rounds of search spent on a structure that is not found at once.",
)  # fmt: skip
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
    help="Time spent on a structure, at most; what is found then depends on the machine.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1),
    help="Number of processes that search; threads of one process, if not given.",
)  # fmt: skip
@click.option(
    "--executor", type=click.Choice(["local", "dask"]), default="local", show_default=True,
    help="Where the work runs: here, or on an existing Dask cluster.",
)  # fmt: skip
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of the Dask scheduler, like tcp://10.0.0.1:8786.",
)
@seed_option
@overwrite_option
def reconstruct(
    file: Path,
    output: Path,
    fingerprint: str,
    max_rounds: int,
    time_limit: float | None,
    workers: int | None,
    executor: str,
    scheduler: str | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Find the structures of FILE again from their fingerprints alone.

    The command computes the fingerprints, forgets the positions, and inverts the fingerprints.
    Periodic structures keep their cells, and need a --fingerprint of your own that handles them.
    """
    check_extxyz(output)
    check_executor(executor, scheduler, workers)
    load_quietly()
    import numpy as np

    from tfgen._files import require_absent
    from tfgen.datasets.importing import read_structures
    from tfgen.descriptors.base import check_structures
    from tfgen.generation.records import write
    from tfgen.inversion.reconstruct import reconstruct as run
    from tfgen.structures.formulas import MAX_SOUGHT, check_size
    from tfgen.structures.similarity.equality import deviations
    from tfgen.structures.status import Status

    reserve_output(output)
    require_absent(output, overwrite)
    with shown_warnings():
        structures = read_structures(file)
    for place, structure in enumerate(structures, 1):
        check_size(len(structure), f"{str(file)!r}, row {place}", MAX_SOUGHT)
    elements = sorted({str(e) for s in structures for e in s.symbols})
    chosen = fingerprint_from(fingerprint, elements)
    check_structures(chosen.descriptor, structures, repr(str(file)))
    targets = chosen.create(structures)
    # Clusters at once; periodic structures share a search with those of the same cell.
    cells = {
        i: (tuple(s.cell.array.ravel()), tuple(s.pbc)) if s.pbc.any() else None
        for i, s in enumerate(structures)
    }
    reached = found_again = 0
    seconds = np.zeros(len(structures))
    results = list(structures)
    with _open_executor(executor, scheduler, workers) as where:
        for cell in dict.fromkeys(cells.values()):
            rows = [i for i, own in cells.items() if own == cell]
            result = run(
                chosen,
                targets[rows],
                [structures[i].get_chemical_formula() for i in rows],
                seed=seed,
                cell=None if cell is None else np.reshape(cell[0], [3, 3]),
                pbc=True if cell is None else cell[1],
                max_rounds=max_rounds,
                time_limit=time_limit,
                executor=where,
                progress=True,
            )
            same = None
            if cell is None:
                originals = [structures[i] for i in rows]
                same = deviations(result.structures, originals) <= FOUND_AGAIN
                found_again += int(same.sum())
            for k, (i, record) in enumerate(zip(rows, result.to_json(), strict=True)):
                results[i] = result.structures[k]
                # extxyz knows infinity, and no null.
                loss = float(result.loss[k])
                results[i].info.update({**record, "fingerprint_loss": loss}, seed=seed)
                if same is not None:
                    results[i].info["same_structure"] = bool(same[k])
                seconds[i] = result.seconds[k]
                reached += result.status[k] in (Status.CONVERGED, Status.AMBIGUOUS)
    write(results, output, overwrite)
    again = f", {found_again} found again (every distance within {FOUND_AGAIN} Å)"
    echo(
        f"{len(structures)} structures: {reached} fingerprints reached"
        f"{again if None in cells.values() else ''}, {seconds.mean():.2f} s each; in {output}"
    )


@contextlib.contextmanager
def _open_executor(
    executor: str, scheduler: str | None, workers: int | None
) -> Iterator[concurrent.futures.Executor | None]:
    from tfgen.execution.dask import dask_executor

    if executor == "dask":
        with dask_executor(scheduler or "") as cluster:
            yield cluster
    elif workers is None:
        yield None
    else:
        # TensorFlow does not survive a fork.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as processes:
            yield processes
