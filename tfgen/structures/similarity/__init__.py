"""How alike structures are: which are equal, which are copies, how far apart they are."""
