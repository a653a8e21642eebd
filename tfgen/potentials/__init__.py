"""Potentials: differentiable maps from structures to energies."""
