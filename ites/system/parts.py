"""Long work in parts, each stored in a separate file until they are joined.

Each part is written atomically. Interrupted work therefore continues with the missing parts, and
several processes can share the work without communication.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ites.errors import ItesError
from ites.system.files import atomic_write, load_json, reading, remove_orphans

REQUEST = "request.json"


class Parts:
    """The parts of an output, in the folder `<output>.parts` beside it.

    Args:
        out: the output.
        request: description of the work in plain JSON; it identifies the parts of this work.
        count: the number of parts.

    Attributes: `count`, `folder`.
    """

    def __init__(self, out: str | os.PathLike[str], request: dict[str, Any], count: int) -> None:
        out = Path(out)
        self.folder = out.with_name(f"{out.name}.parts")
        self.request, self.count = request, count

    def begin(self, resume: bool) -> None:
        """Make the folder; one process calls this before the others read the folder.

        Args:
            resume: keep the existing parts; otherwise they are removed.

        Raises:
            ItesError: the folder holds parts of other work, or only unrelated files.
        """
        note = self.folder / REQUEST
        if self.folder.is_dir():
            remove_orphans(self.folder)
        if note.is_file():
            if resume:
                with reading(note, "what parts of an output are for"):
                    self._expect(load_json(note))
                return
            self.remove()
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ItesError(f"{self.folder}: expected parts of an output or nothing; move it away")
        try:
            with atomic_write(note) as temporary:
                temporary.write_text(json.dumps(self.request, indent=1) + "\n", encoding="utf-8")
        except BaseException:
            with suppress(OSError):  # not made, or not empty
                self.folder.rmdir()
            raise

    def _expect(self, given: dict[str, Any]) -> None:
        for name in sorted(self.request.keys() | given.keys()):
            wanted, had = self.request.get(name), given.get(name)
            if wanted != had:
                raise ItesError(
                    f"{self.folder}: begun with {name} {had!r}, now {wanted!r}",
                    code="other-parts",
                )

    def path(self, index: int) -> Path:
        """The path of a part."""
        return self.folder / f"{index:06d}.h5"

    def missing(self) -> list[int]:
        """The missing parts."""
        return [index for index in range(self.count) if not self.path(index).exists()]

    def remove(self) -> None:
        """Remove the parts, incomplete files of killed processes, and the folder."""
        for pattern in ("*.h5", ".*.tmp", REQUEST):
            for path in self.folder.glob(pattern):
                path.unlink()
        self.folder.rmdir()
