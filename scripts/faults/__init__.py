"""Kinds of faults that `check_faults.py` tries, each a module of its own, and what they share."""
