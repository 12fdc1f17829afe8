"""The released program's checkpoints."""

import numpy as np
import pytest
import torch

from ites.errors import ItesError
from ites.released.convert import convert, convert_model
from ites.runs.checkpoint import load_model


def released_teacher(width=8, blocks=1, atoms=3):
    generator = torch.Generator().manual_seed(0)

    def conv(out, inputs):
        return torch.randn(out, inputs, 1, 1, generator=generator)

    state = {}

    def layer(name, out, inputs):
        state[f"{name}.weight"], state[f"{name}.bias"] = conv(out, inputs), torch.randn(out)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(5)

    layer("fe_net.0.conv1", width, 34)
    norm("fe_net.0.bn1", width)
    inner = width // 4
    for block in range(1, blocks + 1):
        for number, (out, inputs) in enumerate(((inner, width), (inner, inner), (width, inner)), 1):
            layer(f"fe_net.{block}.conv{number}", out, inputs)
            norm(f"fe_net.{block}.bn{number}", out)
    layer("alpha_layer", atoms, width)
    layer("shape_layer", 51, atoms)
    layer("rot_layer", 3, width)
    layer("trans_layer", 1, width)
    return state


def test_names_and_layouts():
    state = released_teacher()
    teacher = convert_model(state)
    sizes = {"width": 8, "blocks": 1, "atoms": 3, "distance": 5.0}
    assert teacher.sizes() == {**sizes, "upright": False}
    assert torch.equal(teacher.dictionary, state["shape_layer.weight"][:, :, 0, 0].T)
    assert torch.equal(teacher.blocks[0].linear2.weight, state["fe_net.1.conv2.weight"][..., 0, 0])
    assert torch.equal(teacher.blocks[0].norm3.running_var, state["fe_net.1.bn3.running_var"])


@pytest.mark.parametrize("wrap", (lambda s: s, lambda s: {"state_dict": s, "epoch": 3}))
def test_a_checkpoint_file(tmp_path, wrap):
    state = {f"module.{name}": tensor for name, tensor in released_teacher().items()}
    torch.save(wrap(state), tmp_path / "released.pth")
    convert(tmp_path / "released.pth", tmp_path / "ours.safetensors", scale=0.7)
    model, metadata = load_model(tmp_path / "ours.safetensors")
    assert metadata.kind == "teacher" and metadata.scale == 0.7
    assert torch.equal(model.input.weight, state["module.fe_net.0.conv1.weight"][..., 0, 0])


def test_an_npz_file(tmp_path):
    np.savez(tmp_path / "t.npz", **{n: t.numpy() for n, t in released_teacher().items()})
    convert(tmp_path / "t.npz", tmp_path / "ours.safetensors", scale=1.0)
    assert (tmp_path / "ours.safetensors").is_file()


def test_refusals(tmp_path):
    with pytest.raises(ItesError, match="got no file"):
        convert(tmp_path / "absent.pth", tmp_path / "o.safetensors", 1.0)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ItesError, match="expected a PyTorch checkpoint"):
        convert(tmp_path / "text.pth", tmp_path / "o.safetensors", 1.0)
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ItesError, match="expected a released ITES teacher or student"):
        convert(tmp_path / "other.pth", tmp_path / "o.safetensors", 1.0)
    assert not (tmp_path / "o.safetensors").exists()


def test_files_that_are_no_checkpoints_are_one_line(tmp_path):
    """Nobody is advised to load anything unsafely, and a text file is not said to hold pickles."""

    def refusal(path):
        with pytest.raises(ItesError) as caught:
            convert(path, tmp_path / "o.safetensors", 1.0)
        line = str(caught.value)
        assert path.name in line and len(line) <= 300 and line.isprintable()
        assert not any(word in line for word in ("weights_only", "unsafe", "trust", "pickle"))
        return line

    path = tmp_path / "x.pth"
    path.write_text("epoch,loss\n1,0.5\n")
    assert "got a text file" in refusal(path)
    torch.save({"a": ItesError}, path)
    assert "ItesError" in refusal(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refusal(path)
    torch.save({"fe_net.0.conv1.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    assert "expected at most" in refusal(path)
    state = released_teacher()
    state["fe_net.0.conv1.weight"] = torch.zeros(1000, 34, 1, 1)
    torch.save(state, path)
    assert "expected a released ITES teacher" in refusal(path)
    state = released_teacher()
    state["fe_net.0.conv1.weight"][0] = torch.nan
    torch.save(state, path)
    assert "finite" in refusal(path)
    state = released_teacher()
    state["fe_net.1000000000.conv1.weight"] = torch.zeros(2, 8)
    torch.save(state, path)
    assert "expected a released ITES teacher" in refusal(path)
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_makes_no_sense_is_refused(tmp_path, scale):
    torch.save(released_teacher(), tmp_path / "released.pth")
    with pytest.raises(ItesError, match="scale: expected a number that is finite and positive"):
        convert(tmp_path / "released.pth", tmp_path / "o.safetensors", scale)
