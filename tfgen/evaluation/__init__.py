"""How good generated structures are."""
