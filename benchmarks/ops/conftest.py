"""Which rows are timed, and on what: options that `benchmarks.ops.run` gives to pytest."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.config
import torch._functorch.config

from benchmarks import machine
from benchmarks.ops import cases
from ites.system.memory import keep_freed_memory


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the op benchmarks."""
    group = parser.getgroup("ites")
    group.addoption("--device", default="auto", help="cpu or cuda")
    group.addoption("--batches", default="1,4096", help="numbers of poses")
    group.addoption("--compiled-batches", default="", help="those at which torch.compile races")
    group.addoption("--providers", default=",".join(cases.PROVIDERS))
    group.addoption("--seconds", type=float, default=0.1, help="spent on a row")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def pytest_configure(config: pytest.Config) -> None:
    """Settings that the timings need."""
    keep_freed_memory()  # as in training: the op's time, not that of clearing pages
    # Compiled graphs must keep their buffers: the backward pass alone is timed over and over.
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.recompile_limit = 256
    if machine.pick_device(config.getoption("--device")).type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for every provider


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for every row of the module's cases."""
    if "row" in metafunc.fixturenames:
        option = metafunc.config.getoption
        rows = cases.rows(
            metafunc.module.CASES,
            machine.pick_device(option("--device")),
            _numbers(option("--batches")),
            option("--providers").split(","),
            _numbers(option("--compiled-batches")),
        )
        metafunc.parametrize("row", list(rows), ids=str)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return machine.pick_device(request.config.getoption("--device"))


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return request.config.getoption("--seconds")
