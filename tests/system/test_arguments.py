"""Arguments of public functions: of another type than annotated, and of numpy's types."""

from pathlib import Path

import numpy as np
import pytest

import ites
from ites.errors import ItesError
from ites.export import export
from ites.system.arguments import checked


@checked("f")
def given(
    number: float | None = None,
    whole: int | None = None,
    text: str | None = None,
    pair: tuple[int, int] | None = None,
    place: float | tuple[float, float] | None = None,
    path: str | Path | None = None,
    table: dict[str, float] | None = None,
    flag: bool = False,
    **others: object,
) -> dict[str, object]:
    return {name: value for name, value in locals().items() if value is not None}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("number", np.float64(30), 30.0),
        ("number", np.array(30.0), 30.0),
        ("number", 30, 30),
        ("whole", np.int64(3), 3),
        ("flag", np.bool_(True), True),
        ("pair", [1080, 1920], (1080, 1920)),
        ("pair", (1080.0, 1920.0), (1080, 1920)),
        ("pair", np.array([1080, 1920]), (1080, 1920)),
        ("place", np.array([1.5, 2.5]), (1.5, 2.5)),
        ("place", np.float32(1.5), 1.5),
    ],
)
def test_numbers_of_numpy_become_pythons(name, value, expected):
    found = given(**{name: value})[name]
    assert found == expected and type(found) is type(expected)
    if isinstance(expected, tuple):
        assert [type(one) for one in found] == [type(one) for one in expected]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("number", "30", "f: number must be a number, got '30'"),
        ("number", True, "a number, got True"),
        ("number", 10**400, "a number, got 1000"),
        ("number", 1 + 2j, "a number, got"),
        ("whole", 2.5, "a whole number, got 2.5"),
        ("text", 5, "text, got 5"),
        ("pair", 1080, "two whole numbers, got 1080"),
        ("pair", (1080.5, 1920), "two whole numbers, got"),
        ("pair", (1080,), "two whole numbers, got"),
        ("pair", ("1080", "1920"), "two whole numbers, got"),
        ("place", (1, 2, 3), "a number or two numbers, got"),
        ("path", 5, "text or of type Path"),
        ("flag", "no", "True or False, got 'no'"),
    ],
)
def test_other_types_are_refused(name, value, words):
    with pytest.raises(ItesError, match=words):
        given(**{name: value})


def test_numbers_that_are_not_finite_are_the_functions_own_matter():
    assert np.isnan(given(number=float("nan"))["number"])
    assert given(pair=(float("inf"), 5))["pair"] == (float("inf"), 5)
    assert given(other=[1])["others"] == {"other": [1]}


@pytest.mark.parametrize("wrong", [5, b"x", {}, float("nan")])
def test_every_public_function_names_its_argument(tmp_path, wrong):
    array = np.zeros((3, 17, 2))
    out = tmp_path / "out"
    calls = {
        "lift: fps": lambda: ites.lift(array, fps=str(wrong)),
        "lift: layout": lambda: ites.lift(array, layout=wrong),
        "lift: run": lambda: ites.lift(array, run=wrong),
        "lift: bone": lambda: ites.lift(array, bone=["knee"]),
        "Lifter: layout": lambda: ites.Lifter(layout=wrong),
        "Lifter: height": lambda: ites.Lifter(height="1.8"),
        "evaluate: data": lambda: ites.evaluate("run", wrong),
        "view: path": lambda: ites.view(wrong),
        "view: max_clips": lambda: ites.view("x.npz", max_clips=2.5),
        "load_model: path": lambda: ites.load_model(wrong),
        "train: data": lambda: ites.train(wrong, out),
        "fit: files": lambda: ites.fit(5, out),
        "fit: skeleton": lambda: ites.fit("x.npy", out, skeleton=wrong),
        "export: out": lambda: export("x.npz", wrong),
    }
    for words, call in calls.items():
        with pytest.raises(ItesError, match=f"^{words} must be "):
            call()
