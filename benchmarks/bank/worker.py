"""One process that judges one tool on many cases and writes each verdict at once, so that a crash costs one case only.

`python -m benchmarks.bank.worker TOOL FILE`, with lines `CASE SIZES` on standard input; FILE gets one JSON object a
line. What the tool prints goes wherever its standard output goes, and is nobody's business.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from benchmarks.bank import BANK
from benchmarks.bank.errors import NotComparable
from benchmarks.bank.judge import Judgement, judge, make_trial
from benchmarks.bank.tools import find_tool

SQUARE, DIFFERENT = "square", "different"


def main(tool_name: str, path: Path) -> None:
    """Judge until standard input ends."""
    tool, cases = find_tool(tool_name), {case.name: case for case in BANK}
    warnings.simplefilter("ignore")
    with path.open("a", encoding="utf-8") as file:
        for line in sys.stdin:
            name, sizes = line.split()
            try:
                judgement = judge(make_trial(cases[name], square=sizes == SQUARE), tool)
            except NotComparable as err:
                judgement = Judgement("unjudged", 0, str(err))
            file.write(json.dumps({"case": name, "sizes": sizes} | asdict(judgement)) + "\n")
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
