"""What a run of the bank found, as tables: one row a tool, then one row a case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.bank.case import Case
from benchmarks.bank.judge import num_nodes
from benchmarks.bank.run import Outcome, Results
from benchmarks.bank.tools import FOLDSERVE, Tool, version_of
from benchmarks.computer import describe_computer
from benchmarks.tables import table

Cells = tuple[str, ...]
SIGNS = {"folded": "✔", "left": "–", "wrong": "✗", "invalid": "💥", "unjudged": "·"}
TOOL_COLUMNS = (
    "tool",
    "folded",
    "left",
    "wrong",
    "invalid",
    "traps right",
    "traps wrong",
    "traps invalid",
    "nodes left",
)

LEGEND = (
    "✔ folded, – left (in a trap that is right), ✗ wrong answers, 💥 invalid, · not judged; "
    "two signs where sizes matter: all different / all equal."
)

METHOD = """\
Each case is a small graph around BatchNormalization: a pattern that an exact fold can clear, or a trap in which the
BatchNorm must stay. Each comes in two variants, with all sizes different and with all sizes equal; a tool's verdict on
a case is the worse of the two. The right answers are onnx.reference's on the raw model in float64, at the same batch
size, for a batch of one and of three. `folded`: no BatchNorm is left, no chain of Mul and Add in its place, no more
nodes than before, and the answers are right. `left`: the answers are right. `wrong`: they differ by more than 1e-3 of
the largest, where ONNX Runtime without its optimisations is within 1e-4 on the raw model (float16: 5e-2 and 2e-2).
`invalid`: an exception, a crash, or a model that the checker or ONNX Runtime refuses. In a trap, leaving the BatchNorm
is right. The tools' models run in ONNX Runtime without its optimisations; the row of ONNX Runtime counts the nodes of
its basic level, where its BatchNorm fusions are, and its answers are those of its default level. `nodes left` are the
nodes that compute from the inputs, over all cases and variants; arithmetic on constants alone is not counted."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is told about a run."""

    date: str
    command: str
    tools: tuple[Tool, ...]
    cases: tuple[Case, ...]
    results: Results

    @property
    def patterns(self) -> tuple[Case, ...]:
        """The cases in which there is something to fold."""
        return tuple(case for case in self.cases if case.foldable)

    @property
    def traps(self) -> tuple[Case, ...]:
        """The others."""
        return tuple(case for case in self.cases if not case.foldable)


def describe_machine(tools: Sequence[Tool]) -> dict[str, str]:
    """The machine and the versions: verdicts depend on the latter."""
    versions = ", ".join(f"{tool.name} {version_of(tool)}" for tool in tools)
    return describe_computer(("onnx", "onnx-ir", "numpy")) | {"tools": versions}


def headline(report: Report) -> str:
    """One sentence: the best of the others beside foldserve."""
    others = [tool for tool in report.tools if tool.name != FOLDSERVE]
    said = [_summary(report, tool.name) for tool in report.tools if tool.name == FOLDSERVE]
    best = max(others, key=lambda tool: _counts(report, tool.name, report.patterns)["folded"], default=None)
    return "; ".join([*said, *([f"the best of the others: {_summary(report, best.name)}"] if best else [])])


def tool_rows(report: Report) -> list[Cells]:
    """One row a tool, in the order of `TOOL_COLUMNS`, and the raw graphs' number of nodes for comparison."""
    raw = sum(
        num_nodes(case.variant(square=square, dtype="float32")) for case in report.cases for square in (False, True)
    )
    return [*(_tool_row(report, tool.name) for tool in report.tools), ("(raw graphs)", *[""] * 7, str(raw))]


def case_columns(report: Report) -> Cells:
    """The header of the table of cases."""
    return ("case", "what it is", *(tool.short for tool in report.tools))


def case_rows(report: Report, cases: Sequence[Case]) -> list[Cells]:
    """One row a case."""
    return [
        (case.name, case.what, *(_sign(report.results[tool.name][case.name]) for tool in report.tools))
        for case in cases
    ]


def failures(report: Report) -> list[str]:
    """What went wrong where, in words."""
    return [
        f"{tool.name}, {case.name}, {sizes}: {judgement.verdict}, {' '.join(judgement.detail.split())}"
        for tool in report.tools
        for case in report.cases
        for sizes, judgement in (
            ("sizes different", report.results[tool.name][case.name].different),
            ("sizes equal", report.results[tool.name][case.name].square),
        )
        if judgement.detail
    ]


def render(report: Report) -> str:
    """The report as Markdown."""
    return (
        "\n\n".join(
            [
                "# Folding, beside others",
                f"{headline(report)}.",
                f"{report.date}, by `{report.command}`. {_size(report)}.",
                table(("machine", ""), list(describe_machine(report.tools).items()), left=frozenset({0, 1})),
                METHOD,
                table(TOOL_COLUMNS, tool_rows(report)),
                "\n".join(f"* {tool.name}: `{tool.call}`" for tool in report.tools),
                LEGEND,
                *_sections(report, "Patterns", report.patterns),
                *_sections(report, "Traps", report.traps),
                "## What went wrong",
                "\n".join(f"* {line}" for line in failures(report)) or "Nothing.",
            ]
        )
        + "\n"
    )


def _size(report: Report) -> str:
    return f"The bank has {len(report.patterns)} patterns and {len(report.traps)} traps"


def by_family(cases: Sequence[Case]) -> dict[str, tuple[Case, ...]]:
    """The cases of each family, in the order of the bank."""
    families = dict.fromkeys(case.family for case in cases)
    return {family: tuple(case for case in cases if case.family == family) for family in families}


def _sections(report: Report, title: str, cases: Sequence[Case]) -> list[str]:
    """A heading, and a table for each family."""
    tables = [
        f"### {family.replace('_', ' ')}\n\n{_case_table(report, own)}" for family, own in by_family(cases).items()
    ]
    return [f"## {title}", *tables]


def _case_table(report: Report, cases: Sequence[Case]) -> str:
    columns = case_columns(report)
    return table(columns, case_rows(report, cases), left=frozenset(range(len(columns))))


def _tool_row(report: Report, tool: str) -> Cells:
    patterns, traps = (_counts(report, tool, cases) for cases in (report.patterns, report.traps))
    nodes = sum(outcome.num_nodes for outcome in report.results[tool].values())
    numbers = (
        *(patterns[verdict] for verdict in ("folded", "left", "wrong", "invalid")),
        traps["left"] + traps["folded"],
        traps["wrong"],
        traps["invalid"],
        nodes,
    )
    return (tool, *map(str, numbers))


def _counts(report: Report, tool: str, cases: Sequence[Case]) -> Counter[str]:
    return Counter(report.results[tool][case.name].worst.verdict for case in cases)


def _summary(report: Report, tool: str) -> str:
    counts, traps = (_counts(report, tool, cases) for cases in (report.patterns, report.traps))
    wrong, invalid = (counts[verdict] + traps[verdict] for verdict in ("wrong", "invalid"))
    return (
        f"{tool} folds {counts['folded']} of {len(report.patterns)} patterns, "
        f"is wrong on {wrong} of {len(report.cases)} cases and breaks {invalid}"
    )


def _sign(outcome: Outcome) -> str:
    """One sign, or two where the variants differ: sizes different, then equal."""
    signs = [SIGNS[judgement.verdict] for judgement in (outcome.different, outcome.square)]
    return signs[0] if signs[0] == signs[1] else "/".join(signs)
