"""Descriptors: differentiable maps from structures to per-atom features."""
