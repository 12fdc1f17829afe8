"""The one exception that stands for a user's mistake."""


class ItesError(ValueError):
    """A mistake in a file, an argument or an environment, told in one line.

    The message names the file or argument, what was expected and what was given. The command line
    prints it without a traceback and exits with code 2.
    """
