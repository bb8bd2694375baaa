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

__all__ = ["ONLY_FATAL", "ort", "serving_options"]

ONLY_FATAL = 4


def serving_options() -> ort.SessionOptions:
    """The options that models are served with: one thread and no spinning.

    A small model is done before a second thread has woken up.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = ONLY_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options
