"""`python -m gateway.cli`: the command, for a process that starts another of its kind."""

from gateway.cli import main

main()
