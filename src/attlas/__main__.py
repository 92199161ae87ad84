"""`python -m attlas` is the command `attlas`."""

from attlas.cli.app import main

if __name__ == "__main__":
    main()
