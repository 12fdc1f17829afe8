"""The exception for a user's mistake."""

from __future__ import annotations

LIMIT = 290
"""Characters of a message; with the program's name in front a line has at most 300."""


def shorten(text: object, limit: int = LIMIT) -> str:
    """A text as one printable line of at most `limit` characters; a longer one loses its middle.

    White space becomes single spaces, other characters that cannot be printed become "?".
    """
    whole = str(text)
    mark, end = " ... ", 2 * limit // 5
    if len(whole) > 100 * limit:  # no need to look at all of a huge one
        whole = f"{whole[: 2 * limit]}{mark}{whole[-2 * limit :]}"
    line = one_line(" ".join(whole.split()))
    if len(line) <= limit:
        return line
    return f"{line[: limit - end - len(mark)].rstrip()}{mark}{line[-end:].lstrip()}"


def one_line(text: object) -> str:
    """A text of any length as one printable line: a file's name may hold line breaks and escapes.

    White space becomes spaces, other characters that cannot be printed become "?".
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


class ItesError(ValueError):
    """A mistake in a file, an argument or an environment, stated in one line.

    The message names the file or argument, what was expected and what was given. The command line
    prints it without a traceback and exits with code 2.

    Args:
        message: shortened to one line of `LIMIT` characters.
        code: the kind of mistake, for which the command line names the option that corrects it; "":
            there is none.
    """

    def __init__(self, message: object = "", *, code: str = "") -> None:
        super().__init__(shorten(message))
        self.code = code
