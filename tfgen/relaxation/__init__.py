"""Relaxation of many structures at once."""
