"""`python -m blockwire`."""

from blockwire.cli.main import main

main()
