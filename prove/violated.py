"""What ends a proof."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

KEPT_IN = Path(__file__).parents[1] / "build" / "proof"


class Violated(Exception):
    """Something that was promised does not hold.

    Args:
        sentences: what was seen.
        replay: the command that shows it again.
        evidence: lines that the auditor reads.
    """

    def __init__(self, sentences: Sequence[str], replay: Sequence[str], evidence: Sequence[str] = ()) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = tuple(sentences)
        self.replay = shlex.join(replay)
        self.evidence = tuple(evidence)

    def kept(self) -> Path:
        """The file that its evidence is kept in, for the auditor; written now."""
        KEPT_IN.mkdir(parents=True, exist_ok=True)
        path = KEPT_IN / "violation.jsonl"
        path.write_text("".join(f"{line}\n" for line in self.evidence), "utf-8")
        return path
