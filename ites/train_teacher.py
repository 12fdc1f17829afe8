"""`python -m ites.train_teacher`: the same as `ites train teacher`."""

import sys

from ites.cli import main

if __name__ == "__main__":
    main(["train", "teacher", *sys.argv[1:]])
