"""The one door to ONNX Runtime: imports it with its telemetry off, unless the environment says otherwise.

Since 1.29 its official Linux builds report to their maker by default (microsoft/onnxruntime#27379): they write a device
id and a database below the home directory and start a thread. Only the environment turns that off, and only before the
library is loaded; `disable_telemetry_events()` comes too late. So this happens at import, against the rule of the
house, and every other module takes `ort` from here. ORT_DISABLE_TELEMETRY=0 in the environment turns it on again.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
