import numpy as np
import pytest

from eval import Clip, Measurement, Unmeasurable, evaluate, evaluator
from eval.batch import Failure
from eval.errors import ClipError, EvalError
from eval.score import EVALUATORS
from eval.simulation import simulated_clip


@evaluator("_sim_match", suite="_sim", unit="level", better="lower", needs=("reference",))
def match(clip):
    """Mean absolute difference to the reference."""
    difference = float(np.abs(clip.frames.astype(int) - clip.reference.frames).mean())
    return Measurement(value=difference, normalised=1.0 - difference / 255)


@evaluator("_sim_motion", suite="_sim", unit="level", better="higher")
def motion(clip):
    """Mean change; only of what moves."""
    change = float(np.abs(np.diff(clip.frames.astype(int), axis=0)).mean())
    if change == 0:
        raise Unmeasurable("inapplicable", "nothing moves")
    return Measurement(value=change, normalised=1.0)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    for name in [n for n in EVALUATORS if n.startswith("_sim")]:
        del EVALUATORS[name]


def cases(n=5):
    rng = np.random.default_rng(0)
    return [
        Clip(
            frames=rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
            fps=10,
            actions=np.arange(5) + i,
            text=f"case {i}",
            truth={"segmentation": np.zeros((6, 8, 8), np.int16), "K": np.eye(3)},
            name=f"case {i}",
        )
        for i in range(n)
    ]


def repeat_last(frames, actions, text, num_frames):
    assert len(actions) == num_frames - 1
    assert text.startswith("case")
    return np.concatenate([frames, np.repeat(frames[-1:], num_frames - len(frames), axis=0)])


def fail_on_two(frames, actions, text, num_frames):
    if text == "case 2":
        raise RuntimeError("out of memory")
    return repeat_last(frames, actions, text, num_frames)


def test_a_perfect_simulator_gets_what_the_truth_gets():
    true = cases()
    frames = {c.text: c.frames for c in true}
    found = evaluate(lambda f, a, text, n: frames[text], true, "_sim")
    assert found.mean("_sim_match").value == 1.0
    for case in found.cases:
        assert case.simulated["_sim_motion"].value == case.true["_sim_motion"].value


def test_what_the_truth_allows_to_measure_fixes_the_denominator():
    found = evaluate(repeat_last, cases(), "_sim", context=2)
    # The frozen tail still holds one change; with one given frame nothing moves at all.
    assert found.mean("_sim_motion").value == 1.0
    still = evaluate(repeat_last, cases(), "_sim")
    assert still.cases[0].simulated["_sim_motion"].status == "inapplicable"
    assert (still.mean("_sim_motion").value, still.mean("_sim_motion").failed) == (0.0, 5)


def test_a_simulator_that_fails_is_counted():
    found = evaluate(fail_on_two, cases(), "_sim")
    assert isinstance(found.cases[2].simulated, Failure)
    assert found.cases[2].simulated.error == "RuntimeError: out of memory"
    good = evaluate(repeat_last, [c for i, c in enumerate(cases()) if i != 2], "_sim").mean("_sim_match").value
    assert found.mean("_sim_match").value == pytest.approx(good * 4 / 5)


def test_results_depend_neither_on_workers_nor_on_resuming(tmp_path):
    seen = []
    alone = evaluate(repeat_last, cases(), "_sim", progress=lambda done, case: seen.append((done, case.name)))
    shared = evaluate(repeat_last, cases(), "_sim", workers=2, out=tmp_path)
    again = evaluate(repeat_last, cases(), "_sim", out=tmp_path)
    assert alone.to_json() == shared.to_json() == again.to_json()
    assert seen == [(i + 1, f"case {i}") for i in range(5)]
    assert len(list(tmp_path.iterdir())) == 10


def test_only_what_was_commanded_is_kept_as_truth():
    made = simulated_clip(repeat_last, cases()[0])
    assert set(made.truth) == {"K"}
    assert made.reference is not None
    np.testing.assert_array_equal(made.reference.frames, cases()[0].frames)


@pytest.mark.parametrize(
    "simulate",
    [
        lambda f, a, text, n: f,
        lambda f, a, text, n: np.zeros((n, 8, 8, 3), np.uint8),
        lambda f, a, text, n: np.repeat(f, n, axis=0).astype(float),
    ],
)
def test_wrong_simulations_are_named_errors(simulate):
    with pytest.raises(ClipError):
        simulated_clip(simulate, cases()[0])


def test_nonsense_is_refused():
    with pytest.raises(EvalError):
        evaluate(repeat_last, cases(), "_sim", workers=0)
    with pytest.raises(EvalError):
        evaluate(repeat_last, cases(), "_sim", context=0)
    with pytest.raises(ClipError):
        simulated_clip(repeat_last, cases()[0], context=6)
