"""`python -m graph` is `troupe`."""

from graph.cli import main

main()
