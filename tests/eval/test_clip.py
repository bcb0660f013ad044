import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import Clip, as_frames
from eval.errors import ClipError, EvalError


def frames(t=4, h=6, w=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 6, 8, 3), np.float32),
        np.zeros((4, 6, 8), np.uint8),
        np.zeros((4, 6, 8, 4), np.uint8),
        np.zeros((0, 6, 8, 3), np.uint8),
        np.zeros((4, 0, 8, 3), np.uint8),
        [[0]],
    ],
)
def test_wrong_frames_are_named_errors(bad):
    with pytest.raises(ClipError, match=r"expected .*; got .*"):
        Clip(frames=bad, fps=10)


@pytest.mark.parametrize("fps", [0, -1, np.nan, np.inf])
def test_wrong_fps(fps):
    with pytest.raises(ClipError, match="fps"):
        Clip(frames=frames(), fps=fps)


@pytest.mark.parametrize(
    "actions", [np.zeros(4), np.zeros((2, 3)), np.array([0, np.nan, 1.0]), np.array(["a", "b", "c"]), [0, 0, 0]]
)
def test_wrong_actions(actions):
    with pytest.raises(ClipError, match="actions"):
        Clip(frames=frames(4), fps=10, actions=actions)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("segmentation", np.zeros((3, 6, 8), np.int16)),
        ("segmentation", np.zeros((4, 8, 6), np.int16)),
        ("depth_m", np.zeros((4, 6, 8, 1), np.float32)),
        ("K", np.zeros((3, 4))),
        ("world_from_camera", np.zeros((4, 3, 4))),
        ("position_m", np.zeros((5, 2, 2))),
        ("position_m", np.array([None] * 4)),
        ("position_m", [[0]] * 4),
        ("position_m", np.float64(3.0)),
    ],
)
def test_wrong_truth(key, value):
    with pytest.raises(ClipError, match=key):
        Clip(frames=frames(4), fps=10, truth={key: value})


@pytest.mark.parametrize("shape", [(3, 6, 8), (4, 6, 9)])
def test_reference_must_match(shape):
    with pytest.raises(ClipError, match="reference"):
        Clip(frames=frames(4), fps=10, reference=Clip(frames=frames(*shape), fps=10))


def test_window_cuts_everything_alike():
    truth = {"position_m": np.arange(8.0).reshape(4, 2), "K": np.eye(3)}
    reference = Clip(frames=frames(seed=1), fps=10)
    clip = Clip(frames=frames(), fps=10, actions=np.arange(3), truth=truth, reference=reference)
    part = clip.window(1, 3)
    np.testing.assert_array_equal(part.frames, clip.frames[1:3])
    np.testing.assert_array_equal(part.actions, [1])
    np.testing.assert_array_equal(part.truth["position_m"], truth["position_m"][1:3])
    assert part.truth["K"].shape == (3, 3)
    np.testing.assert_array_equal(part.reference.frames, reference.frames[1:3])


def test_missing_names_what_is_not_there():
    clip = Clip(frames=frames(), fps=10, text="a ball")
    assert clip.missing(("text", "actions", "reference", "depth_m")) == ("actions", "reference", "depth_m")


def test_digest_depends_on_everything_a_score_can_depend_on():
    base = {"frames": frames(), "fps": 10.0, "actions": np.arange(3), "text": "a", "truth": {"x": np.arange(4.0)}}
    others = [
        {"frames": frames(seed=1)},
        {"frames": base["frames"].reshape(4, 8, 6, 3)},
        {"fps": 11.0},
        {"actions": np.array([0, 1, 3])},
        {"actions": None},
        {"actions": np.arange(3.0)},
        {"text": None},
        {"truth": {"y": np.arange(4.0)}},
        {"truth": {"x": np.arange(4.0) + 1}},
        {"reference": Clip(frames=frames(seed=2), fps=10)},
    ]
    digests = {Clip(**{**base, **o}).digest for o in [{}, *others]}
    assert len(digests) == len(others) + 1
    assert Clip(**base).digest == Clip(**base, name="other label").digest


def test_one_rate_is_one_digest_however_it_is_written():
    digests = {Clip(frames=frames(), fps=fps).digest for fps in (10, 10.0, np.float32(10), np.int64(10))}
    assert len(digests) == 1
    assert Clip(frames=frames(), fps=10, text="None").digest not in digests


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3)))
def test_grey_becomes_three_equal_channels(video):
    rgb = as_frames(video)
    assert rgb.shape == (*video.shape, 3)
    assert (rgb == video[..., None]).all()


@given(hnp.arrays(np.uint8, (2, 3, 4, 3)))
def test_floats_in_unit_range_round_trip(video):
    np.testing.assert_array_equal(as_frames(video / 255.0), video)


def test_alpha_is_dropped():
    rgba = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    np.testing.assert_array_equal(as_frames(rgba), rgba[..., :3])


@pytest.mark.parametrize(
    "bad",
    [
        np.full((2, 3, 4, 3), np.nan),
        np.full((2, 3, 4, 3), 1.01),
        np.full((2, 3, 4, 3), -0.01),
        np.zeros((2, 3, 4, 3), np.int64),
        np.zeros((2, 3, 4, 2)),
        np.zeros((2, 3)),
    ],
)
def test_as_frames_refuses_what_it_cannot_know(bad):
    with pytest.raises(EvalError):
        as_frames(bad)
