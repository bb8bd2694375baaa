"""The service on a device that fails when a file says so: `FAILURE=/path python -m tests.faults.failing_device …`.

As long as the file is there, each run fails with its text, as ONNX Runtime's would. Workers, too, come through here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import service.buffers

FAILURE = Path(os.environ["FAILURE"])
plan_bound_run = service.buffers.plan_bound_run


def plan_failing_run(*arguments: Any) -> Callable[[], None]:
    """Plan a run that fails as long as the file is there."""
    run = plan_bound_run(*arguments)

    def fail_or_run() -> None:
        if FAILURE.exists():
            raise RuntimeError(FAILURE.read_text())
        run()

    return fail_or_run


service.buffers.plan_bound_run = plan_failing_run  # type: ignore[assignment]

if __name__ == "__main__":
    from service.__main__ import main

    sys.exit(main(sys.argv[1:]))
