"""The tests that only a GPU runs are skipped elsewhere: their names are held here."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
NAMES = {
    "gpu/test_on_gpu.py": {
        "test_a_second_gpu_trains_as_the_first",
        "test_a_streamed_feed_gives_the_resident_one",
        "test_a_streamed_feed_of_a_second_gpu",
        "test_captured_lifter_gives_what_the_cpu_gives",
        "test_captured_lifter_of_the_general_model",
        "test_captured_steps_are_the_launched_ones",
        "test_evaluate_gives_what_the_cpu_gives",
        "test_layers_in_one_launch_are_those_of_two_ops",
        "test_lift_gives_what_the_cpu_gives",
        "test_seeds_together_are_those_alone",
        "test_steps_on_a_gpu_are_those_on_a_cpu",
    },
    "training/test_capture.py": {"test_cuda_graphs_give_the_plain_losses"},
}


def test_no_test_of_a_gpu_is_lost():
    for file, names in NAMES.items():
        tree = ast.parse((TESTS / file).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        found = {name for name in defined if name.startswith("test_")}
        assert found == names if file.startswith("gpu/") else found >= names, file
