"""Which BatchNorms somebody wants folded: all, but those that a pattern keeps, or only those that one names."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from model_export.fold.ledger import Refused


@dataclass(frozen=True)
class Selection:
    """Shell patterns (`layer1.*`) over names of BatchNorms. `keep` wins over `only`."""

    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def refuse_unselected(self, name: str) -> None:
        """Refuse a BatchNorm that is to be kept.

        Raises:
            Refused: and names the pattern.
        """
        kept_by = next((pattern for pattern in self.keep if fnmatchcase(name, pattern)), None)
        if kept_by is not None:
            raise Refused(f"it is to be kept: --keep {kept_by}")
        if self.only and not any(fnmatchcase(name, pattern) for pattern in self.only):
            raise Refused(f"it is to be kept: not in --only {' '.join(self.only)}")

    def patterns_without_match(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The patterns that match none of the names: a slip of the pen, most likely."""
        return tuple(p for p in (*self.keep, *self.only) if not any(fnmatchcase(name, p) for name in names))
