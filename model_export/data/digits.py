"""scikit-learn's handwritten digits: 1,797 images of 8×8 that come with the library, so the first run needs no file."""

from __future__ import annotations

import numpy as np

from model_export.data.splits import Labelled, Split
from service.bundle import ImageSpec

# Ink is bright. A value counts the inked ones of sixteen points, so it is whole; a picture's white is sixteen.
PICTURE = ImageSpec(mode="L", height=8, width=8, scale=16 / 255, whole=True)


def read_digits() -> Labelled:
    """Instances [1797, 1, 8, 8] with values 0..16; the labels are the digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    instances = np.ascontiguousarray(digits.images[:, None], dtype=np.float32)
    labels = tuple(str(name) for name in digits.target_names)
    everything = Split(instances, digits.target.astype(np.int64))
    return Labelled(name="digits", everything=everything, labels=labels, image=PICTURE)
