"""The few lines that the server says when it is ready: what is served, on what device, and a request to paste."""

from __future__ import annotations

import shlex

from service.batching import BITWISE, OFF
from service.protocols.descriptions import example_request, foldserve_version
from service.protocols.directory import UNAVAILABLE, Directory, Served
from service.protocols.predict import encode_request

LONGEST_PASTED_BODY = 240


def announce(directory: Directory, url: str, grpc: str = "") -> list[str]:
    """Say what is served at `url`, and by gRPC at another address if there is one."""
    loaded = [served for model in directory.table.models.values() for served in model.versions.values()]
    models = [
        line for one in loaded for line in (_describe_model(one), *_describe_precision(one), *_describe_device(one))
    ]
    return [
        f"foldserve {foldserve_version()}",
        *models,
        f"listening on {url}, documents at {url}/docs{f', gRPC on {grpc}' if grpc else ''}",
        _curl(directory, url),
    ]


def warn_of_devices(directory: Directory) -> list[str]:
    """Say which models compute on the CPU although a GPU would have been taken, and why."""
    placements = [served.model.predictor.placement for served in directory.each()]
    return [f"serving on the CPU: {reason}" for reason in sorted({placement.reason for placement in placements} - {""})]


def warn_of_failures(directory: Directory) -> list[str]:
    """Say which versions can not be loaded although others of their model are."""
    failed = [one for one in directory.states if one.state == UNAVAILABLE and not one.reason.startswith("not loaded")]
    return [f"{one.name}, version {one.version} can not be loaded: {one.reason}" for one in failed]


def _describe_model(served: Served) -> str:
    model = served.model
    if model.manifest is None:
        return f"{model.name}: a bare model, so no digests and no examples to replay"
    worst = max(model.self_check.max_differences.values(), default=0.0)
    return (
        f"{model.name}, version {model.version}: digests match, {model.self_check.num_examples} examples replayed, "
        f"largest difference {worst:.2g}"
    )


def _describe_precision(served: Served) -> list[str]:
    """Say that a model does not compute in float32, and what that costs."""
    manifest = served.model.manifest
    if manifest is None or manifest.precision is None:
        return []
    report = manifest.precision
    accuracies = f"accuracy {report.accuracy:.4f} on {report.num_instances} held-out instances"
    return [f"  computes in {report.name}: {accuracies}, {report.fp32_accuracy:.4f} in fp32"]


def _describe_device(served: Served) -> list[str]:
    model = served.model
    placement, certificate = model.predictor.placement, model.batching.certificate.overall
    microseconds = model.self_check.median_seconds * 1e6
    place = "on the event loop" if served.runner.thread is None else "in a thread of its own"
    lines = [f"  {placement.provider} (asked for: {placement.requested}), {microseconds:.0f} µs a run, {place}"]
    if placement.graphs:
        lines.append(f"  CUDA graphs: {placement.graphs}")
    if certificate not in {BITWISE, OFF}:
        lines.append(
            f"  batches are not bitwise (--no-bitwise): answers differ by up to {certificate} from those alone"
        )
    return [*lines, *(f"  {pace}" for pace in placement.paces)]


def _curl(directory: Directory, url: str) -> str:
    default = directory.table.models.get(directory.table.default or "")
    model = (default.served if default else next(directory.each())).model
    base = f"{url}/models/{model.name}"
    body = encode_request(example_request(model)).decode()
    post = f"curl -s {base}/predict -H 'content-type: application/json' -d"
    if len(body) <= LONGEST_PASTED_BODY:
        return f"try: {post} {shlex.quote(body)}"
    return f"try: curl -s {base}/example | {post} @-"
