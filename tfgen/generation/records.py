"""What each generated structure says about itself in `atoms.info`: written, and read with care.

What is read comes from `tfgen generate`, or from anywhere: nothing in it is taken on trust.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tfgen._files import new_file, require_file
from tfgen.targets import SURROGATE, Target, check_tolerance

if TYPE_CHECKING:  # reading records needs no TensorFlow
    from tfgen.generation.request import Request
    from tfgen.generation.verification import Verification
    from tfgen.models.model import Model

__all__ = [
    "STAGES",
    "Cost",
    "Record",
    "make_records",
    "raw_structures",
    "read_generated",
    "read_record",
    "write",
]

STAGES = ("decoded", "reconstructed", "relaxed")


class Cost(NamedTuple):
    """What was spent on one structure asked for.

    Attributes:
        candidates: structures that were verified for it.
        calculations: geometries whose energy, forces or properties a potential or a function has
            calculated for it.
        proposed: its share of the relaxations on the NNP, or of the inversions without one.
    """

    candidates: int
    calculations: int
    proposed: int


def make_records(
    verifications: Sequence[Verification | None],
    model: Model,
    request: Request,
    *,
    costs: Sequence[Cost],
    seconds: float,
) -> list[Atoms]:
    """Returns the structures of a request, each with its record in `atoms.info`.

    `tfgen.generate` documents what is in a record. `verified` is there only where something has
    computed all properties that were asked for.

    Args:
        verifications: the best candidate of each structure asked for; None where there is none yet,
            and no structure is returned.
        model: the model.
        request: the request.
        costs: [count], what was spent on each.
        seconds: spent on each.
    """
    names = [c.name for c in model.conditions]
    tolerances = {t.name: t.tolerance for t in request.targets if t.is_value}
    generated = []
    for i, verification in enumerate(verifications):
        if verification is None:
            continue
        proposal = verification.proposal
        decoded = model.predict_properties(proposal.fingerprint[None])[0].tolist()
        atoms = proposal.structure.copy()
        if request.relaxed_by is not None:
            atoms.positions = verification.structure.positions
            atoms.set_array("reconstructed_positions", proposal.structure.positions.copy())
        atoms.info.update(
            target={target.name: target.to_json() for target in request.targets},
            decoded=_null_if_not_finite(dict(zip(names, decoded, strict=True))),
            predicted=_null_if_not_finite(proposal.predicted),
            reconstructed=_null_if_not_finite(verification.reconstructed),
            relaxed=_null_if_not_finite(verification.relaxed),
            evaluated_by=dict(request.evaluated_by),
            fingerprint_loss=proposal.loss,
            tolerance=model.tolerance,
            status=str(verification.status),
            seed=request.seed,
            request=i,
            **costs[i]._asdict(),
            seconds=seconds,
        )
        if tolerances:
            atoms.info["hit_tolerance"] = tolerances
        if verification.status_detail:
            atoms.info["status_detail"] = verification.status_detail
        if not request.unverifiable:
            atoms.info["verified"] = verification.accepted
        generated.append(atoms)
    return generated


def write(
    structures: Sequence[Atoms], path: str | os.PathLike[str], overwrite: bool = False
) -> None:
    """Writes structures with their records as extxyz; the file is whole or not there.

    Raises:
        FileExistsError: if it exists and `overwrite` is false.
    """
    import ase.io  # pulls in the list of ASE's formats

    with new_file(path, overwrite) as temporary:
        ase.io.write(temporary, structures, format="extxyz")


def read_generated(path: str | os.PathLike[str]) -> list[Atoms]:
    """Reads the structures that `tfgen generate` wrote, or any other extxyz file.

    Args:
        path: an extxyz file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not extxyz, is broken or holds no structures.
    """
    from tfgen.datasets.importing.xyz import read_frames  # ASE's readers take a while to import

    path = require_file(path, "structure file")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty; an extxyz file with structures is needed")
    try:
        with path.open() as file:
            structures = list(read_frames(file))
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, not the file's
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{str(path)!r} is not a readable extxyz file: {reason}") from error
    if not structures:
        raise ValueError(f"{str(path)!r} holds no structures")
    for place, atoms in enumerate(structures, 1):
        if not ((atoms.numbers > 0) & (atoms.numbers < len(chemical_symbols))).all():
            raise ValueError(f"{str(path)!r}, row {place}: atoms that are no element")
        if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
            raise ValueError(f"{str(path)!r}, row {place}: positions that are not finite")
    return structures


def raw_structures(generated: Sequence[Atoms]) -> list[Atoms]:
    """Returns the structures as reconstructed, before any relaxation."""
    raw = []
    for atoms in generated:
        if "reconstructed_positions" in atoms.arrays:
            atoms = Atoms(
                atoms.numbers,
                positions=atoms.arrays["reconstructed_positions"],
                cell=atoms.cell,
                pbc=atoms.pbc,
            )
        raw.append(atoms)
    return raw


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a generated structure says about itself; any part may be missing.

    Attributes:
        formula: its composition.
        targets: what was asked for, an entry for each property; none if that is not recorded.
        predicted, decoded, reconstructed, relaxed: property -> value at that stage, None where it
            is not a finite number. Predicted is what was expected of the relaxed structure before
            it was relaxed.
        fingerprint_loss: how far its fingerprint is from the one that was decoded.
        seconds: how long it took.
        candidates: how many candidates it was chosen from.
        calculations, proposed: what it cost, as `Cost` has it; None if that is not recorded.
        status: how its generation ended.
        status_detail: what can be said beyond that.
        evaluated_by: property -> what computed it, as far as that is recorded.
        hit_tolerance: property -> half width of a hit that was asked for, likewise.
    """

    formula: str
    targets: tuple[Target, ...]
    predicted: Mapping[str, float | None]
    decoded: Mapping[str, float | None]
    reconstructed: Mapping[str, float | None]
    relaxed: Mapping[str, float | None]
    fingerprint_loss: float | None
    seconds: float | None
    candidates: int | None
    calculations: int | None
    proposed: int | None
    status: str | None
    status_detail: str | None
    evaluated_by: Mapping[str, str] = field(default_factory=dict)
    hit_tolerance: Mapping[str, float] = field(default_factory=dict)

    def is_calculated(self, stage: str, name: str) -> bool:
        """Whether a value at a stage was calculated, and is not only the word of a network."""
        return stage in ("reconstructed", "relaxed") and (self.evaluated_by.get(name) != SURROGATE)

    @property
    def final(self) -> Mapping[str, float | None]:
        """The properties of the structure as it is: relaxed if it was relaxed."""
        return self.relaxed or self.reconstructed

    def target(self, name: str) -> Target | None:
        """Returns what was asked for of a property, if anything."""
        return next((target for target in self.targets if target.name == name), None)

    def stage(self, name: str) -> Mapping[str, float | None]:
        """Returns property -> value at a stage: "predicted", or one of `STAGES`."""
        stages = {
            "predicted": self.predicted,
            "decoded": self.decoded,
            "reconstructed": self.reconstructed,
            "relaxed": self.relaxed,
        }
        return stages[name]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain JSON types; `status_detail` only where there is one."""
        result: dict[str, Any] = {
            "formula": self.formula,
            "target": {target.name: target.to_json() for target in self.targets} or None,
            **{name: dict(self.stage(name)) for name in ("predicted", *STAGES)},
            "fingerprint_loss": self.fingerprint_loss,
            "seconds": self.seconds,
            "candidates": self.candidates,
            "calculations": self.calculations,
            "proposed": self.proposed,
            "evaluated_by": dict(self.evaluated_by),
            "status": self.status,
        }
        if self.status_detail is not None:
            result["status_detail"] = self.status_detail
        return result


def read_record(atoms: Atoms, where: str) -> Record:
    """Reads and checks what a structure says about itself.

    Args:
        atoms: the structure; any part of the record may be missing.
        where: names the structure in messages.

    Raises:
        ValueError: if a part of the record is not what it should be.
    """
    raw = atoms.arrays.get("reconstructed_positions")
    if raw is not None and (raw.shape != (len(atoms), 3) or raw.dtype.kind not in "fi"):
        raise ValueError(f"{where}: reconstructed_positions are not three numbers per atom")
    tolerances = _mapping(atoms, "hit_tolerance", where)
    try:
        targets = tuple(
            Target.of(name, value) for name, value in _mapping(atoms, "target", where).items()
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Record(
        formula=atoms.get_chemical_formula("metal"),
        targets=targets,
        predicted=_values(atoms, "predicted", where),
        decoded=_values(atoms, "decoded", where),
        reconstructed=_values(atoms, "reconstructed", where),
        relaxed=_values(atoms, "relaxed", where),
        fingerprint_loss=_finite(atoms.info.get("fingerprint_loss"), f"{where}: fingerprint_loss"),
        seconds=_finite(atoms.info.get("seconds"), f"{where}: seconds"),
        candidates=_count(atoms.info.get("candidates"), 1, f"{where}: candidates"),
        calculations=_count(atoms.info.get("calculations"), 0, f"{where}: calculations"),
        proposed=_count(atoms.info.get("proposed"), 0, f"{where}: proposed"),
        evaluated_by={k: str(v) for k, v in _mapping(atoms, "evaluated_by", where).items()},
        hit_tolerance={
            name: check_tolerance(f"{where}: hit_tolerance of {name}", value)
            for name, value in tolerances.items()
        },
        status=_text(atoms.info.get("status")),
        status_detail=_text(atoms.info.get("status_detail")),
    )


def _values(atoms: Atoms, stage: str, where: str) -> dict[str, float | None]:
    """Returns property -> value at a stage."""
    found = _mapping(atoms, stage, where).items()
    return {name: _finite(value, f"{where}: {stage} {name}") for name, value in found}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _null_if_not_finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Returns None, JSON's null, where a value is not finite."""
    return {k: float(v) if math.isfinite(v) else None for k, v in values.items()}


def _mapping(atoms: Atoms, key: str, where: str) -> dict[str, Any]:
    value = atoms.info.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"{where}: {key} is {_shown(value)}, not a mapping of property names to values"
        )
    return dict(value)


def _shown(value: Any) -> str:
    """Returns a value for a message: short, and NumPy's numbers like any other."""
    return reprlib.repr(value.item() if isinstance(value, np.generic) else value)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise ValueError(f"{what} is {_shown(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _finite(value: Any, what: str) -> float | None:
    """Returns a number; None for one that is missing, not finite or null."""
    if value is None:
        return None
    number = _number(value, what)
    return number if math.isfinite(number) else None


def _count(value: Any, least: int, what: str) -> int | None:
    """Returns a whole number; None for one that is missing."""
    if value is None:
        return None
    number = _number(value, what)
    if not (least <= number < math.inf and number == int(number)):
        raise ValueError(f"{what} is {_shown(value)}; a whole number from {least} on is needed")
    return int(number)
