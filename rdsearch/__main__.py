"""``python -m rdsearch``."""

from rdsearch.cli import main

main(prog_name="rdsearch")
