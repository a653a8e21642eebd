"""`python -m tfgen` is the command line."""

from tfgen.cli import main

main()
