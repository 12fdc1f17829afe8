"""`python -m ites` is the command `ites`."""

from ites.cli.main import main

if __name__ == "__main__":
    main()
