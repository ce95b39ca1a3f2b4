"""`python -m pgwitness` is `pgwitness`."""

from pgwitness.cli import main

main(prog_name="pgwitness")
