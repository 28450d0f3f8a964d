"""`python -m pol_abci.cli`, what a supervisor starts: it needs no script on PATH."""

from pol_abci.cli.commands import main

main(prog_name="pol-abci")
