"""`python -m naturelm.cli`."""

from naturelm.cli import main

main(prog_name="naturelm")
