"""The backends: which are available, which can run a call, which one runs it, and why.

| backend | what it is | runs |
|---|---|---|
| reference | plain PyTorch: the meaning of every op | anywhere |
| cpp | vectorised C++ (`ites._C`) | float32, float64 on a CPU |
| cuda | CUDA C++ (`ites._C_cuda`) | float32, bf16, fp16 on an NVIDIA GPU |
| triton | Triton kernels (`ites.kernels`) | the same; on a CPU under `TRITON_INTERPRET=1` |

Without a named backend `choices.json` decides: it lists the fastest backends per op and kind of
device, and where they were measured. `python -m benchmarks.ops.choose` writes it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ites.errors import ItesError

BACKENDS = ("reference", "cpp", "cuda", "triton")

_HALF = (torch.bfloat16, torch.float16)
_DTYPES = {
    "cpp": (torch.float32, torch.float64),
    "cuda": (torch.float32, *_HALF),
    "triton": (torch.float32, *_HALF),
}
_HALF_OPS = ("graph_mix", "batch_norm_relu")


def _vendor(path: str = "/proc/cpuinfo") -> str:
    """The processor's vendor string: GenuineIntel, AuthenticAMD; "" if unknown."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in islice(file, 8):  # of the first processor
                name, _, value = line.partition(":")
                if name.strip() == "vendor_id":
                    return value.strip()
    except OSError:
        pass
    return ""


CHOICES: dict[str, Any] = json.loads(Path(__file__).with_name("choices.json").read_text("utf-8"))
"""By kind of device: where it was `measured` (null: nowhere yet), and the backends, fastest first,
of each of the `ops`, and by `default` of those not listed. Processors of some `vendors` have other
ops faster, and `why`."""


def _vendor_rule(vendor: str, mkl: bool) -> dict[str, Any] | None:
    """What `CHOICES` says of a vendor's processors, where PyTorch has MKL; None where nothing."""
    rule = CHOICES["cpu"]["vendors"].get(vendor) if mkl else None
    return None if rule is None else {"vendor": vendor, **rule}


VENDOR_RULE = _vendor_rule(_vendor(), torch.backends.mkl.is_available())
if VENDOR_RULE is not None:
    CHOICES["cpu"]["ops"].update(VENDOR_RULE["ops"])


def _missing() -> dict[str, str]:
    """Backends that are not installed or not usable here, each with the reason and the remedy."""
    missing = {}
    try:
        importlib.import_module("ites._C")
    except Exception as error:  # one built for another PyTorch may raise anything
        missing["cpp"] = (
            f"the extension ites._C is not built ({error}); reinstall with a C++ compiler "
            "and without ITES_NO_EXT"
        )
    if torch.version.cuda is None:
        missing["cuda"] = "this PyTorch has no CUDA; install a CUDA build of PyTorch"
    else:
        try:
            importlib.import_module("ites._C_cuda")
        except Exception as error:
            missing["cuda"] = (
                f"the extension ites._C_cuda is not built ({error}); reinstall with nvcc on PATH "
                "or ITES_CUDA=1"
            )
    if importlib.util.find_spec("triton") is None:
        missing["triton"] = "Triton is not installed; pip install triton"
    return missing


MISSING = _missing()
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def _checked(name: str | None, who: str) -> str | None:
    if name not in (None, "", *BACKENDS):
        raise ItesError(f"{who}: backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name or None


_default = _checked(os.environ.get("ITES_BACKEND"), "ITES_BACKEND")


@contextmanager
def using(backend: str | None) -> Iterator[None]:
    """Within the block `backend` runs every call that names none; None changes nothing.

    Raises:
        ItesError: there is no such backend.
    """
    global _default
    before = _default
    _default = _checked(backend, "using") or before
    try:
        yield
    finally:
        _default = before


def _has_clusters() -> bool:
    """Whether every GPU here has clusters of blocks; true where there is none to ask."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return all(torch.cuda.get_device_capability(index) >= (9, 0) for index in range(count))


# As torch.compiler.assume_constant_result does, which would import the compiler and Triton.
_has_clusters._dynamo_marked_constant = True  # type: ignore[attr-defined]


def on_gpu(tensor: torch.Tensor) -> bool:
    """Whether a tensor's operators launch GPU kernels, each of which costs microseconds."""
    return tensor.is_cuda


def why_not(backend: str, op: str, device: str, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot run `op` on tensors of this device and dtype; None where it can."""
    if backend == "reference":
        return None
    if backend in MISSING:
        return MISSING[backend]
    if backend == "cpp" and device != "cpu":
        return f"it runs on CPU tensors, got {device}; use cuda or triton"
    if backend == "cuda" and device != "cuda":
        return f"it runs on CUDA tensors, got {device}; move the tensors or use cpp"
    if backend == "triton" and device != "cuda" and not INTERPRETED:
        return f"it runs on CUDA tensors, got {device}; set TRITON_INTERPRET=1 to interpret it"
    if backend == "cuda" and op == "linear_norm_relu" and not _has_clusters():
        return (
            "it needs clusters of blocks, compute capability 9.0; "
            "linear and batch_norm_relu run instead"
        )
    if dtype not in _DTYPES[backend] or (dtype in _HALF and op not in _HALF_OPS):
        allowed = [str(d).removeprefix("torch.") for d in _DTYPES[backend]]
        if op not in _HALF_OPS:
            allowed = [d for d in allowed if d not in ("bfloat16", "float16")]
        return f"it takes {', '.join(allowed)}, got {str(dtype).removeprefix('torch.')}"
    return None


def choose(op: str, device: str, dtype: torch.dtype, backend: str | None = None) -> str:
    """The backend that runs `op` on tensors of this device and dtype.

    Args:
        op: name of the op, as in `ites.ops`.
        device: "cpu" or "cuda".
        dtype: of the op's first tensor.
        backend: an explicit choice; None takes the default set by `ITES_BACKEND` or `using`, and
            failing that the fastest that can run, by `CHOICES`.

    Raises:
        ItesError: an explicit choice does not exist or cannot run, with the reason.
    """
    if torch.compiler.is_compiling():
        return _choose(op, device, dtype, backend)
    asked = op, device, dtype, backend or _default
    chosen = _chosen.get(asked)
    if chosen is None:
        chosen = _chosen[asked] = _choose(op, device, dtype, backend)
    return chosen


_chosen: dict[tuple[str, str, torch.dtype, str | None], str] = {}
"""What `choose` answered before: an op asks at every call."""


def _choose(op: str, device: str, dtype: torch.dtype, backend: str | None) -> str:
    wanted = _checked(backend, op) or _default
    if wanted is not None:
        reason = why_not(wanted, op, device, dtype)
        if reason is not None:
            raise ItesError(f"{op}: backend {wanted!r} cannot run here: {reason}")
        return wanted
    table = CHOICES.get(device, CHOICES["cuda"])
    for candidate in table["ops"].get(op, table["default"]):
        if why_not(candidate, op, device, dtype) is None:
            return candidate
    return "reference"
