"""`python -m service.doctor`, which also works where the server itself can not be imported."""

from __future__ import annotations

import sys

from service.doctor.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
