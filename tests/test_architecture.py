"""The rules of the house, as assertions over the source: which room may import which, and what no room may do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("service", "model_export")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
KEPT_OUT_OF_SERVICE = {"torch", "onnx", "onnx_ir", "onnxscript", "sklearn", "lightning", "pandas", "model_export"}
THE_DOOR = {f"service.{name}" for name in ("bundle", "device", "errors", "images", "predictor", "runtime")}

# Later may import earlier, never the other way; modules of one line do not import each other in a circle.
DOCTOR = (
    ("doctor", "doctor.finding", "doctor.surroundings"),
    ("doctor.apart", "doctor.cgroup", "doctor.gpu_hardware", "doctor.identity", "doctor.pace"),
    ("doctor.packages", "doctor.places", "doctor.report"),
    ("doctor.capacity", "doctor.cuda_libraries", "doctor.gpu_driver", "doctor.gpu_tool", "doctor.gpu_trial"),
    ("doctor.model_files", "doctor.runtime_build"),
    ("doctor.leftovers", "doctor.model_run"),
    ("doctor.probes",),
    ("doctor.command",),
    ("doctor.__main__",),
)
READING = (
    (
        "protocols.open_inference.familiar",
        "protocols.json_document",
        "protocols.tensor_json",
        "protocols.npy_header",
        "protocols.image_requests",
    ),
    ("protocols.table_rows", "protocols.predictions", "protocols.number_bytes", "protocols.open_inference"),
    ("protocols.instance_lists", "protocols.open_inference.datatypes", "protocols.open_inference.framing"),
    ("protocols.dataframes", "protocols.input_columns", "protocols.csv_rows", "protocols.open_inference.document"),
    ("protocols.open_inference.asking",),
    ("protocols.open_inference.tensors", "protocols.open_inference.documents"),
    ("protocols.open_inference.writing",),
)
GRPC_CONTRACT = (
    ("open_inference_grpc", "open_inference_grpc.messages"),
    ("open_inference_grpc.reading", "open_inference_grpc.tensors", "open_inference_grpc.writing"),
    ("open_inference_grpc.contract",),
)
GRPC_SERVER = (
    ("open_inference_grpc.catalog", "open_inference_grpc.statuses"),
    ("open_inference_grpc.answering", "open_inference_grpc.inferring"),
    ("open_inference_grpc.server",),
    ("grpc_door",),
)
ORDER_OF_SERVICE = (
    ("errors", "runtime", "complaints", "spare_memory", "json_text"),
    ("device_failures", "trace_context", "wall_clock", "sampling", "backlog"),
    ("bundle", "device", "cudart", "ulps", "counts", "number_text", "vertex_environment", "spinning"),
    ("wording", "protocols.answer", "protocols.paths", "placement", "buffers", "providers", "cuda"),
    ("diagnosis", "session", "scheduler", "settings", "metrics", "images", "request_ids", "route_groups"),
    ("entries", "logs", "logs.remarks"),
    ("logs.formats", "spans"),
    ("logs.line_file", "tracing"),
    ("logs.throttle",),
    ("logs.access", "logs.records"),
    ("logs.opening",),
    ("security_headers",),
    ("tail", "tail.counters", "tail.slow"),
    ("tail.watch", "tail.causes"),
    ("tail.recorder", "tail.report"),
    ("tail.__main__",),
    ("instance", "batches", "batching", "fastest", "exposition"),
    ("predictor",),
    *DOCTOR,
    ("repository",),
    ("versions", "protocols.contract", "protocols.http_errors"),
    ("wishes", "protocols.bugs", "protocols.compression", "keys", "keys.key"),
    ("keys.file", "permissions"),
    ("gate", "keys.__main__"),
    *READING,
    ("protocols.predict", "protocols.open_inference.contract"),
    ("protocols.tensorflow", "protocols.vertex", "protocols.invocations"),
    *GRPC_CONTRACT,
    ("protocols.contracts", "protocols.runner"),
    ("protocols.lane",),
    ("protocols.hot_path", "protocols.directory"),
    ("request_journal",),
    ("loading", "protocols.descriptions", "protocols.dressing", "protocols.probes", "protocols.responses"),
    ("management", "protocols.tail", "protocols.schemas"),
    ("open_inference_catalog",),
    ("protocols.openapi",),
    ("protocols.documents",),
    ("protocols.open_inference_routes", "protocols.tensorflow_routes", "protocols.management_routes"),
    ("protocols.tail_routes", "protocols.fastapi_app"),
    *GRPC_SERVER,
    ("app", "announcement", "answers", "heads"),
    ("connection", "workers"),
    ("server",),
    ("__main__",),
)
PARTS_OF_THE_STORY = ("freeze", "fold", "export", "verify", "precision")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (names & {_name(module) for module in MODULES}) or {node.module}


def _graph() -> dict[str, set[str]]:
    names = {_name(path) for path in MODULES}
    return {_name(path): {name for name in _imports(path) if name in names} for path in MODULES}


def test_service_imports_nothing_that_trains_or_exports() -> None:
    found = {
        (_name(path), name)
        for path in (ROOT / "service").rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] in KEPT_OUT_OF_SERVICE
    }
    assert found == set()


def test_model_export_enters_service_by_the_door_only() -> None:
    found = {
        (_name(path), name)
        for path in (ROOT / "model_export").rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] == "service" and name not in THE_DOOR
    }
    assert found == set()


def test_there_is_no_circle_of_imports() -> None:
    graph = _graph()
    while leaves := {name for name, imported in graph.items() if not imported - {name}}:
        graph = {name: imported - leaves for name, imported in graph.items() if name not in leaves}
    assert graph == {}


def test_in_service_arrows_point_one_way() -> None:
    rank = {f"service.{name}": place for place, names in enumerate(ORDER_OF_SERVICE) for name in names}
    graph = {name: imported for name, imported in _graph().items() if name in rank}
    assert {name for name in _graph() if name.startswith("service.") and name != "service.protocols"} == set(rank)
    backwards = {(a, b) for a, imported in graph.items() for b in imported if b in rank and rank[b] > rank[a]}
    assert backwards == set()


def test_the_parts_of_the_story_do_not_import_one_another() -> None:
    def part(name: str) -> str | None:
        words = name.split(".")
        return words[1] if len(words) > 1 and words[0] == "model_export" and words[1] in PARTS_OF_THE_STORY else None

    crossings = {
        (a, b) for a, imported in _graph().items() for b in imported if part(a) and part(b) and part(a) != part(b)
    }
    assert crossings == set()


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        _name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv"}
    }
    # runtime: one line, and its head says why; the doctor: what others have set, and the server does not look at
    assert readers <= {"service.settings", "service.runtime", "service.doctor.surroundings"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_happens_at_import(path: Path) -> None:
    """At the top of a module there are definitions, values and a docstring: no bare call, no loop."""
    body = ast.parse(path.read_text()).body
    doing = [
        node
        for node in body[1:]
        if _name(path) not in {"service.runtime", "model_export.ir"}  # their heads say why
        if isinstance(node, ast.For | ast.While | ast.With | ast.Try)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    ]
    assert doing == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(docstring.split("\n\n")[0].split()) >= 5


def test_onnx_runtime_is_imported_where_its_telemetry_is_off() -> None:
    importers = {_name(path) for path in MODULES if "onnxruntime" in _imports(path)}
    assert importers == {"service.runtime"}


@pytest.mark.parametrize("module", ["service.session", "model_export.pipeline", "model_export.fold.instances"])
def test_onnx_runtime_reports_to_nobody(module: str, tmp_path: Path) -> None:
    """With telemetry on it writes a device id below the home directory as soon as a session opens."""
    model = ROOT / "tests" / "golden" / "players" / "1" / "model.onnx"
    code = f"import {module}; from service.runtime import ort; ort.InferenceSession({str(model)!r})"
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment | {"HOME": str(tmp_path)})
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "matplotlib" not in str(path)] == []


def test_onnx_ir_is_imported_where_sympy_is_put_off() -> None:
    importers = {name for name in _graph() if name.startswith("model_export")}
    wanted = {_name(path) for path in MODULES if {"onnx_ir"} & set(_imports(path))}
    assert wanted & importers == {"model_export.ir"}


def test_no_pickle_crosses_the_door() -> None:
    """`checkpoint` names pickle's error, and loads with weights_only; nobody loads a pickle."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "np.load", "numpy.load"}:
                safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert safe.get("weights_only") == "True" or safe.get("allow_pickle") == "False", path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {"pickle.load", "pickle.loads"}, path


def test_a_serving_interpreter_has_nothing_loaded_that_trains() -> None:
    code = (
        "import sys, service.__main__, service.app; "
        f"print(sorted(name for name in {KEPT_OUT_OF_SERVICE!r} if name in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["fold", "diff", "inspect"])
def test_commands_on_files_need_no_torch(command: str) -> None:
    module = f"model_export.commands.{'present' if command == 'inspect' else command}"
    code = f"import sys, model_export.__main__, {module}; print({{'torch', 'sympy.core'}} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "set()"


def test_symbolic_lengths_still_have_their_arithmetic() -> None:
    """sympy is put off, not put away."""
    code = "from model_export.ir import ir; print(ir.SymbolicDim('batch') * 2 + 1)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "2*batch + 1"
