"""Refinement: brings the best candidates of a search to the target, by the whole fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss
from tfgen.inversion.descent import Goal, Objective
from tfgen.inversion.gauss_newton import compute_errors, refine
from tfgen.inversion.population import Population, select_distinct, separation
from tfgen.inversion.sampler import Sampler
from tfgen.inversion.settings import Descent, SearchSettings

__all__ = ["Candidate", "Refinement"]

# Share of the tolerance that a loss in float32, which the search computes in, has to stay below:
# results are judged in float64.
FLOAT32_MARGIN = 0.9


class Candidate(NamedTuple):
    """A structure with the loss of the whole fingerprint.

    Attributes:
        positions: [atoms, 3], Å.
        loss: in float32.
    """

    positions: np.ndarray
    loss: float


def _loss_of(candidate: Candidate) -> float:
    return candidate.loss


class Refinement:
    """Refines candidates, and keeps the best.

    Args:
        fingerprint: the whole fingerprint.
        goal: what is sought.
        objective: its loss.
        sampler: knows where fixed atoms belong.
        settings: of the search.
        expired: tells whether the time is up; alternating refinement ends then.

    Attributes:
        derivatives: directional derivatives computed for Jacobians.
    """

    def __init__(
        self,
        fingerprint: Fingerprint,
        goal: Goal,
        objective: Objective,
        sampler: Sampler,
        settings: SearchSettings,
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        self.derivatives = 0
        self._fingerprint, self._goal, self._objective = fingerprint, goal, objective
        self._sampler, self._expired = sampler, expired
        self._settings, self._population = settings.refinement, settings.population
        # Given structures count as they are: a descent may lead away from one that fits already.
        losses = objective.losses(goal.initial).tolist()
        self._best = [Candidate(x, loss) for x, loss in zip(goal.initial, losses, strict=True)]
        self._tried: list[Candidate] = []
        # Whether Gauss-Newton steps have to use features that are not differentiable everywhere.
        differentiable = fingerprint.differentiable
        self._non_differentiable = not differentiable.all() and differentiable.sum() < 3 * len(
            goal.numbers
        )

    def reached(self) -> bool:
        """Tells whether the best candidate has reached the tolerance."""
        limit = FLOAT32_MARGIN * self._goal.tolerance
        return bool(self._best) and self._best[0].loss <= limit

    def promote(self, population: Population) -> list[Candidate]:
        """Refines the best candidates that were not promoted before, and marks them.

        Args:
            population: of a generation.

        Returns:
            What they became, best first by the loss of the first descent.
        """
        settings = self._settings
        new = np.flatnonzero(~population.promoted)[: settings.promoted]
        if len(new) == 0:
            return []
        population.promoted[new] = True
        found, loss = self._objective.descend(population.positions[new], settings.descent)
        order = np.argsort(loss, kind="stable")
        results = [Candidate(found[i], float(loss[i])) for i in order]
        if results[0].loss < settings.promising_loss:
            results[0] = self.polish(results[0])
            near = results[0].loss <= settings.near * self._goal.tolerance
            if near and self._is_worth_completing(results[0]):
                results[0] = self._complete(results[0])
        self._best += results
        self._best = sorted(self._best, key=_loss_of)[: 2 * self._population.size]
        return results

    def polish(self, candidate: Candidate) -> Candidate:
        """Follows the gradient from a candidate by the descent `polish`."""
        return self._follow(candidate, self._settings.polish)

    def finish(self, population: Population) -> None:
        """Completes the best candidate, and others that may have the same fingerprint.

        Args:
            population: the last one; its candidates may have the fingerprint, too.
        """
        # The best goes first: in float32, others may look as good.
        count = self._settings.alternation.max_alternations
        self._best.insert(0, self._alternate(self._best[0], count))
        self._tried.append(self._best[0])
        self.promote(population)
        self._finish_rivals()

    def select(self) -> Population:
        """Returns the best distinct candidates, best first; at least one.

        The loss is infinite if no candidate has a finite fingerprint.
        """
        positions = np.array([c.positions for c in self._best]).reshape(-1, *self._goal.shape)
        loss = np.array([c.loss for c in self._best])
        found = Population.of(positions, loss)
        found = select_distinct(found, self._goal.numbers, self._population)
        if len(found.loss) == 0:
            return Population.of(self._sampler.sample(1), np.array([np.inf]))
        # In float64, which float32 has rounded.
        found.positions = self._sampler.restore_fixed(found.positions)
        return found

    def _complete(self, candidate: Candidate) -> Candidate:
        """Applies Gauss-Newton steps, in alternation with descents if they do not suffice."""
        candidate = min(candidate, self._refine(candidate.positions), key=_loss_of)
        if self._non_differentiable:
            candidate = self._alternate(candidate, self._settings.alternation.max_attempts)
            self._tried.append(candidate)  # nothing more is to be gained from similar ones
        return candidate

    def _alternate(self, candidate: Candidate, count: int) -> Candidate:
        """Alternates descents and Gauss-Newton steps until the structure is exact.

        With features that are not differentiable everywhere, it continues after alternations
        without progress: once from the best, once from where the last one ended, in turn.

        Args:
            candidate: where to begin.
            count: bound on the number of alternations.
        """
        settings = self._settings.alternation
        patience = settings.patience if self._non_differentiable else 1
        best = last = candidate
        idle = 0
        for number in range(count):
            if self._expired() or idle == patience or self._is_exact(best.positions):
                break
            start, step_length = best, settings.step_lengths[0]
            if self._non_differentiable:
                start = last if number % 2 else best
                step_length = settings.step_lengths[number % len(settings.step_lengths)]
            descent = Descent(steps=settings.steps, step_length=step_length)
            followed = self._follow(start, descent)
            last, idle = best, idle + 1
            if np.isfinite(followed.loss):
                refined = self._refine(followed.positions)
                if self._is_exact(refined.positions):
                    return refined
                last = min(followed, refined, key=_loss_of)
            if last.loss < best.loss:
                best, idle = last, 0
        return best

    def _is_exact(self, positions: np.ndarray) -> bool:
        return self._exact_loss(positions) <= self._settings.complete * self._goal.tolerance

    def _exact_loss(self, positions: np.ndarray) -> float:
        """Computes the loss in float64, in which alone a structure can be told to be exact."""
        goal = self._goal
        errors = compute_errors(self._fingerprint, goal.atoms(positions), goal.target, goal.scale)
        return float(fingerprint_loss(errors))

    def _finish_rivals(self) -> None:
        """Refines other candidates that nearly fit, to see whether they have the fingerprint."""
        settings, tolerance = self._settings, self._goal.tolerance
        others = self.select()
        others = others.take(np.arange(1, len(others.loss)))
        near = np.flatnonzero(others.loss <= settings.near * tolerance)[: settings.rivals]
        if len(near) == 0:
            return
        found, loss = self._objective.descend(others.positions[near], settings.polish)
        share = settings.near if self._non_differentiable else settings.rival_loss
        for i in np.flatnonzero(loss <= share * tolerance):
            self._best.append(self._complete(Candidate(found[i], float(loss[i]))))
        self._best = sorted(self._best, key=_loss_of)

    def _follow(self, candidate: Candidate, descent: Descent) -> Candidate:
        found, loss = self._objective.descend(candidate.positions[None], descent)
        return Candidate(found[0], float(loss[0]))

    def _is_worth_completing(self, candidate: Candidate) -> bool:
        """Tells whether no similar candidate was completed before without reaching the target."""
        gain = self._settings.retry_gain
        tried = [c.positions for c in self._tried if candidate.loss > gain * c.loss]
        self._tried.append(candidate)
        apart = separation(candidate.positions, np.array(tried), self._goal.numbers)
        return not (apart < self._population.distinct_distance).any()

    def _refine(self, positions: np.ndarray) -> Candidate:
        goal = self._goal
        atoms = goal.atoms(self._sampler.restore_fixed(positions))
        refined = refine(
            self._fingerprint,
            atoms,
            goal.target,
            goal.scale,
            goal.fixed,
            self._settings.gauss_newton,
        )
        self.derivatives += refined.derivatives
        found = refined.atoms.positions
        return Candidate(found, float(self._objective.losses(found[None])[0]))
