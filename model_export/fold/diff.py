"""Finds the first tensor where two models part, because a difference at the output does not say which layer made it.

A name that is in both models names the same tensor: the fold keeps to that, and where another tool does not, the
parting that is found is the first such name. Both models run unoptimised on the same random instances, with the
tensors between as further outputs; each tensor is judged by its own noise floor, as outputs are in `check`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from model_export.errors import FoldInvalid, first_line
from model_export.fold.check import (
    GROSS,
    JUMP_ULPS,
    NUM_FLOORS,
    SEED,
    UNOPTIMISED,
    Array,
    Arrays,
    Difference,
    find_feeds,
    is_floating,
    jitter,
    noise_floors,
    open_session,
    relative_difference,
    run,
)
from service.runtime import ort
