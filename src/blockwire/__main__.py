"""`python -m blockwire`."""

from blockwire.cli.process import main

if __name__ == "__main__":
    main()
