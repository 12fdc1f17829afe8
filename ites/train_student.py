"""`python -m ites.train_student`: the same as `ites train student`."""

import sys

from ites.cli import main

if __name__ == "__main__":
    main(["train", "student", *sys.argv[1:]])
