"""What the service does before it can answer, step by step: `python -m benchmarks.opening <bundle>` in a fresh process.

It writes one line of JSON: seconds of each step. It imports nothing at its top that the service imports too.
"""

import sys
import time
from typing import Any


class Watch:
    """Seconds of one step after the other, of this process."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, step: str) -> None:
        """A step ends here."""
        now = time.perf_counter()
        self.steps[step], self._last = now - self._last, now


def time_steps(bundle_path: str) -> dict[str, float]:
    """Do what the service does from its start until it is ready, and time the parts."""
    watch = Watch()
    import service.app
    import service.server
    import service.workers

    watch.note("import")
    settings = service.settings.read_settings(["--models", bundle_path, "--device", "cpu"])
    app = service.app.create_app(settings)
    watch.note("settings")
    import asyncio

    asyncio.run(_get_ready(app))
    watch.note("open and check the model")
    return watch.steps


async def _get_ready(app: Any) -> None:
    async with app.running():
        pass


def _open_again(bundle_path: str) -> dict[str, float]:
    """Two parts of the last step, by themselves."""
    from pathlib import Path

    from service.bundle import read_bundle
    from service.predictor import open_predictor

    watch = Watch()
    bundle = read_bundle(Path(bundle_path))
    watch.note("of which read the bundle")
    open_predictor(bundle.model_path, bundle.manifest.signature, "cpu")
    watch.note("of which open the session")
    return watch.steps


if __name__ == "__main__":
    found = time_steps(sys.argv[1]) | _open_again(sys.argv[1])
    import json

    sys.stdout.write(json.dumps(found) + "\n")
