"""`--device fastest`: batch 1 is measured on both, the faster serves, and the table is shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from service.announcement import announce
from service.app import create_app
from service.batching import SIZES_ON_A_GPU, Batching, Certificate
from service.device import why_no_cuda
from service.errors import DeviceUnavailable
from service.fastest import choose_faster, measure_paces
from service.placement import Pace, Placement
from service.predictor import open_predictor
from service.session import Session, open_session
from service.settings import Settings
from tests.service.tiny_models import tiny_model, write_tiny_bundle

SLOW_SECONDS = 0.001  # a hundred times what the tiny model takes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_model().save(tmp_path / "m.onnx")


def slowed(session: Session, *, from_size: int = 1) -> Session:
    """Let batches of at least `from_size` take their time."""
    bind = session.bind

    def slow(run: Callable[[], None]) -> Callable[[], None]:
        def run_slowly() -> None:
            time.sleep(SLOW_SECONDS)
            run()

        return run_slowly

    def bind_slowly(sizes: tuple[int, ...]) -> object:
        batches = bind(sizes)
        for size, batch in batches.items():
            if size >= from_size:
                batch._run = slow(batch._run)
        return batches

    session.bind = bind_slowly  # type: ignore[method-assign, assignment]
    return session


def sessions(path: Path) -> tuple[Session, Session]:
    """Open two real sessions on the CPU; the second one stands for a GPU."""
    on_cpu, on_gpu = (open_session(path, device="cpu") for _ in range(2))
    on_gpu.placement = Placement(requested="cuda", provider="CUDAExecutionProvider", reason="", nodes={})
    return on_cpu, on_gpu


def test_the_device_that_is_faster_for_one_instance_serves(path: Path) -> None:
    on_cpu, on_gpu = sessions(path)
    assert choose_faster(on_cpu, slowed(on_gpu)) is on_cpu
    on_cpu, on_gpu = sessions(path)
    assert choose_faster(slowed(on_cpu), on_gpu) is on_gpu


def test_what_larger_batches_take_is_shown_and_decides_nothing(path: Path) -> None:
    on_cpu, on_gpu = sessions(path)
    chosen = choose_faster(slowed(on_cpu, from_size=2), slowed(on_gpu, from_size=1))
    assert chosen is on_cpu
    assert [pace.size for pace in chosen.placement.paces] == [1, *SIZES_ON_A_GPU]
    assert chosen.placement.paces[0].cpu_us < 1e6 * SLOW_SECONDS <= chosen.placement.paces[0].gpu_us
    assert chosen.placement.paces[1].cpu_us >= 1e6 * SLOW_SECONDS


def test_a_gpu_that_is_no_faster_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fastest._time", lambda _: 1e-5)
    on_cpu, on_gpu = sessions(path)
    assert choose_faster(on_cpu, on_gpu) is on_cpu


def test_the_placement_says_what_was_asked_for_and_what_was_measured(path: Path) -> None:
    on_cpu, on_gpu = sessions(path)
    placement = choose_faster(slowed(on_cpu), on_gpu).placement
    assert (placement.requested, placement.provider, placement.reason) == ("fastest", "CUDAExecutionProvider", "")
    shown = msgspec.json.decode(msgspec.json.encode(placement))["paces"][0]
    assert shown["size"] == 1
    assert shown["gpu_us"] < shown["cpu_us"]
    assert str(placement.paces[0]).startswith("batch of 1: CPU ")


def test_measuring_is_short(path: Path) -> None:
    """Of a model that takes a millisecond: five rounds at least, a tenth of a second at most, for each size."""
    on_cpu, on_gpu = sessions(path)
    begin = time.perf_counter()
    measure_paces(slowed(on_cpu), slowed(on_gpu))
    assert time.perf_counter() - begin < 3  # ten times what it should take


def test_without_a_gpu_the_cpu_serves_and_says_why(path: Path) -> None:
    if not why_no_cuda():
        pytest.skip("there is a GPU driver here")
    placement = open_predictor(path, device="fastest").placement
    assert (placement.requested, placement.provider) == ("fastest", "CPUExecutionProvider")
    assert placement.reason.startswith("no GPU can be used: ")
    assert placement.paces == ()


def test_the_announcement_shows_the_table_the_graphs_and_what_is_not_bitwise(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    app = create_app(Settings(models=tmp_path, device="cpu"))

    async def main() -> list[str]:
        async with app.running():
            model = app.directory.find_default().model
            paces = (Pace(size=1, cpu_us=9.0, gpu_us=31.5), Pace(size=16, cpu_us=80.0, gpu_us=33.0))
            session = model.predictor._session
            session.placement = replace(session.placement, requested="fastest", graphs="captured", paces=paces)
            object.__setattr__(model, "batching", Batching(certificate=Certificate(overall="3 ulp")))
            return announce(app.directory, "http://here")

    said = asyncio.run(main())
    assert "  CUDA graphs: captured" in said
    assert "  batch of 1: CPU 9.0 µs, GPU 31.5 µs" in said
    assert "  batch of 16: CPU 80.0 µs, GPU 33.0 µs" in said
    assert "  batches are not bitwise (--no-bitwise): answers differ by up to 3 ulp from those alone" in said


@pytest.mark.gpu
def test_on_a_gpu_both_are_measured(path: Path) -> None:
    try:
        open_session(path, device="cuda")
    except DeviceUnavailable as err:
        pytest.skip(str(err))
    placement = open_predictor(path, device="fastest").placement
    assert [pace.size for pace in placement.paces] == [1, *SIZES_ON_A_GPU]
    assert all(min(pace.cpu_us, pace.gpu_us) > 0 for pace in placement.paces)
