"""What holds for all tests: a property that takes long on a busy machine has not failed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("foldserve", deadline=None)
settings.load_profile("foldserve")
