"""`ites doctor`: what is installed, built and usable here, and what would make it faster.

PyTorch is imported by the functions, so that the help of all commands stays quick.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Annotated, Any

import typer

import ites
from ites.errors import ItesError

EXTRAS = {
    "view": ("plotly", "matplotlib", "imageio_ffmpeg", "PIL"),
    "log": ("tensorboard",),
    "data": ("cdflib", "hdf5plugin"),
    "export": ("ezc3d", "pygltflib", "onnx", "onnxscript"),
}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what is installed, built and usable here, and what would make it faster.

    Example: ites doctor
    """
    findings = examine()
    typer.echo(json.dumps(findings, indent=1) if as_json else describe(findings))


def examine() -> dict[str, Any]:
    """Everything that `ites doctor` says, ready for JSON."""
    import torch

    from ites.ops import _registry, backends

    devices, ops = ["cpu"], _registry.defined()
    gpus = []
    if torch.cuda.is_available():
        devices.append("cuda")
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {
            "ites": ites.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "triton": _version("triton"),
        },
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
        },
        "extensions": {name: _build_info(name) for name in ("_C", "_C_cuda")},
        "default_backend": os.environ.get("ITES_BACKEND"),
        "backends": {
            device: {
                op: {
                    "chosen": _chosen(op, device),
                    "refused": {
                        backend: reason
                        for backend in backends.BACKENDS
                        if (reason := backends.why_not(backend, op, device, torch.float32))
                    },
                }
                for op in ops
            }
            for device in devices
        },
        "measured": {device: backends.CHOICES[device]["measured"] for device in devices},
        "vendor_rule": backends.VENDOR_RULE,
        "extras": {
            extra: [name for name in modules if importlib.util.find_spec(name) is None]
            for extra, modules in EXTRAS.items()
        },
        "advice": _advice(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _build_info(name: str) -> dict[str, Any] | None:
    from ites.ops import backends

    reason = backends.MISSING.get("cpp" if name == "_C" else "cuda")
    if reason is not None:
        return None
    return importlib.import_module(f"ites.{name}").build_info()


def _chosen(op: str, device: str) -> str:
    import torch

    from ites.ops import backends

    try:
        return backends.choose(op, device, torch.float32)
    except ItesError as error:
        return f"none: {error}"


def _advice() -> list[str]:
    """What would make it faster, most first."""
    import torch

    from ites.ops import backends

    advice = []
    if not torch.cuda.is_available():
        advice.append("No NVIDIA GPU is usable by this PyTorch; on one, training takes minutes.")
    elif "cuda" in backends.MISSING:
        advice.append(f"CUDA kernels are missing: {backends.MISSING['cuda']}.")
    if "cpp" in backends.MISSING:
        advice.append(f"C++ kernels are missing: {backends.MISSING['cpp']}.")
    if os.environ.get("ITES_BACKEND") == "reference":
        advice.append("ITES_BACKEND=reference forces plain PyTorch; unset it.")
    if torch.get_num_threads() < (os.cpu_count() or 1):
        advice.append(
            f"PyTorch uses {torch.get_num_threads()} of {os.cpu_count()} cores; "
            "OMP_NUM_THREADS may hold it back."
        )
    return advice


def _grounds(measured: dict[str, Any] | None) -> str:
    """The reason for the choice of backends."""
    if measured is None:
        return "chosen by a guess: ites/ops/choices.json holds no measurement of such a device yet"
    device, version, commit = (measured[name] for name in ("device", "torch", "commit"))
    where = f"measured on {device}, torch {version}, commit {commit}"
    return f"the fastest backend that can run here, as {where}"


def describe(findings: dict[str, Any]) -> str:
    """The findings in words."""
    versions, machine = findings["versions"], findings["machine"]
    lines = [
        f"ites {versions['ites']}, Python {versions['python']}, torch {versions['torch']}, "
        f"triton {versions['triton'] or 'not installed'}",
        f"{machine['cores']} cores, {machine['threads']} threads; "
        f"GPU: {', '.join(machine['gpus']) or 'none'}",
        "",
    ]
    for name, info in findings["extensions"].items():
        built = ", ".join(f"{key} {value}" for key, value in info.items()) if info else "not usable"
        lines.append(f"ites.{name}: {built}")
    for device, ops in findings["backends"].items():
        lines += ["", f"On {device}, in float32, each op is run by:"]
        lines += [f"  {op:<24} {entry['chosen']}" for op, entry in ops.items()]
        lines.append(f"  {_grounds(findings['measured'][device])}")
        rule = findings["vendor_rule"]
        if device == "cpu" and rule is not None:
            lines.append(f"  but {', '.join(rule['ops'])} as for {rule['vendor']}: {rule['why']}")
        reasons: dict[tuple[str, str], list[str]] = {}
        for op, entry in ops.items():
            for backend, why in entry["refused"].items():
                reasons.setdefault((backend, why), []).append(op)
        for (backend, why), refused in reasons.items():
            some = "" if len(refused) == len(ops) else f"{', '.join(refused)} "
            lines.append(f"  {backend} cannot run {some}here: {why}")
    lines.append("")
    for extra, missing in findings["extras"].items():
        state = (
            f"lacks {', '.join(missing)}: pip install 'ites[{extra}]'" if missing else "complete"
        )
        lines.append(f"extra [{extra}]: {state}")
    lines += ["", *(findings["advice"] or ["Nothing here would make it faster."])]
    return "\n".join(lines)
