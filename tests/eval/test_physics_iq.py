import cv2
import numpy as np
import pytest
from golden import load
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.clip import Clip
from eval.errors import MeasureError
from eval.physics import motion_masks as mm
from eval.physics import physics_iq as iq
from eval.physics import rectangles, running_background
from eval.score import EVALUATORS

CASES, ARRAYS = load("physics_iq")
TAKES = ("take1", "take2")
VIDEOS = [(s, v, c) for s in (0, 1) for v in (0, 1, 2) for c in (*TAKES, "A", "D")]


def video(scenario, view, name):
    """RGB frames; candidate B and the copies are defined by the takes."""
    if name == "B":
        return np.repeat(video(scenario, view, "take1")[:1], 30, axis=0)
    name = name.removeprefix("copy_")
    return np.ascontiguousarray(ARRAYS[f"s{scenario}v{view}_{name}_video"][..., ::-1])


def table(prefix, *, variance):
    """A candidate's or the real takes' metrics as the reference wrote them."""
    names = (
        ("variance_mse", "variance_spatiotemporal_iou", "variance_spatial", "variance_weighted_spatial")
        if variance
        else ("v1_mse", "spatiotemporal_iou_v1", "spatial_iou_v1", "weighted_spatial_iou_v1")
    )
    return iq.Agreement(*(ARRAYS[f"{prefix}{name}"] for name in names))


def candidate_tables(name):
    return table(f"{name}_", variance=False), table("real_", variance=True)


def score_tables(name):
    return table(f"table_{name}__", variance=False), table(f"table_{name}__", variance=True)


@pytest.mark.parametrize(("scenario", "view", "name"), VIDEOS)
def test_masks_equal_the_reference_in_every_pixel(scenario, view, name):
    masks = mm.motion_masks(video(scenario, view, name))
    key = f"s{scenario}v{view}_{name}_mask"
    np.testing.assert_array_equal(masks * 255, ARRAYS[key])
    np.testing.assert_array_equal(mm.shrink(masks), ARRAYS[f"{key}small"])


def masks_by_definition(frames):
    """The published steps on whole frames, one after the other.

    OpenCV rounds the average through float32 except in the last few pixels of an image, where its scalar code does
    not; here it is float32 everywhere.
    """
    grey = [cv2.GaussianBlur(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (5, 5), 0) for f in frames]
    background, square = grey[0].astype(float), np.ones((5, 5), np.uint8)
    masks = [np.zeros_like(grey[0])]
    for image in grey[1:]:
        cv2.accumulateWeighted(image, background, 0.3)
        moved = (cv2.absdiff(image, np.rint(background.astype(np.float32)).astype(np.uint8)) > 10).astype(np.uint8)
        masks.append(cv2.morphologyEx(cv2.morphologyEx(moved, cv2.MORPH_OPEN, square), cv2.MORPH_CLOSE, square))
    return np.array(masks).astype(bool)


@pytest.mark.parametrize("seed", range(60))
def test_masks_of_any_video_are_those_of_whole_frames(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    height, width, side, count = *rng.integers(6, 60, 2), rng.integers(3, 20), rng.choice([8, 70])
    frames = np.repeat(rng.integers(60, 180, (1, height, width, 3), dtype=np.uint8), count, axis=0)
    frames += rng.integers(0, rng.integers(1, 14), frames.shape, dtype=np.uint8)
    first, last = sorted(rng.integers(0, count + 1, 2))
    for frame in frames[first:last]:
        y, x = rng.integers(0, height), rng.integers(0, width)
        frame[y : y + side, x : x + side] = rng.integers(0, 256, 3)
    # Small videos that are treated as large ones are.
    monkeypatch.setattr(running_background, "BLOCK_PIXELS", int(rng.choice([1 << 10, 1 << 13, 1 << 20])))
    monkeypatch.setattr(running_background, "LARGE_PIXELS", rng.choice([1, 1 << 16]))
    monkeypatch.setattr(mm, "READ_PIXELS", int(rng.choice([1, 1 << 11, 1 << 19])))
    monkeypatch.setattr(rectangles, "CALL_CELLS", int(rng.choice([0, 1 << 4, 1 << 11])))
    masks = mm.motion_masks(frames)
    np.testing.assert_array_equal(masks, masks_by_definition(frames))
    for factor, antialias in ((4, False), (3, True)):
        small, small_masks = mm.condense(frames, factor=factor, antialias=antialias)
        np.testing.assert_array_equal(small, mm.shrink(frames, factor=factor, antialias=antialias))
        np.testing.assert_array_equal(small_masks, mm.shrink(masks, factor=factor, antialias=antialias))


@given(
    cells=st.integers(1, 12).flatmap(
        lambda w: st.lists(st.lists(st.booleans(), min_size=w, max_size=w), min_size=1, max_size=12)
    ),
    cost=st.sampled_from([0, 3, 1 << 11]),
)
def test_rectangles_hold_every_cell_once_and_are_no_larger_than_one_box(cells, cost):
    cells = np.array(cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rectangles, "CALL_CELLS", cost)
        found = rectangles.cover(cells)
    times = np.zeros(cells.shape, int)
    for r in found:
        times[r.top : r.bottom, r.left : r.right] += 1
    assert times.max(initial=0) <= 1
    assert (times[cells] == 1).all()
    assert sum(r.area for r in found) <= sum(r.area for r in rectangles.cover(cells, split=False))


@pytest.mark.parametrize("scenario", [0, 1])
def test_shrunk_frames_equal_the_reference_in_every_pixel(scenario):
    for view in range(3):
        small = mm.shrink(video(scenario, view, "take1"))[15]
        np.testing.assert_array_equal(small[..., ::-1], ARRAYS[f"s{scenario}_take1_small0"][view])


@pytest.mark.parametrize("name", ["A", "B", "D", "copy_take1", "copy_take2"])
def test_metrics_and_scores_from_frames_equal_the_reference(name):
    shape = [[(s, v) for v in range(3)] for s in (0, 1)]
    generated, take1, take2 = ([[video(s, v, n) for s, v in row] for row in shape] for n in (name, *TAKES))
    found = iq.physics_iq(generated, take1, take2, fps=6)
    for mine, golden in zip((found.candidate, found.variance), candidate_tables(name), strict=True):
        np.testing.assert_allclose(mine.mse, golden.mse, rtol=0, atol=1e-7)
        for field in ("spatiotemporal_iou", "spatial_iou", "weighted_spatial_iou"):
            np.testing.assert_allclose(getattr(mine, field), getattr(golden, field), rtol=0, atol=1e-12)
    expected = CASES["outputs"][name]
    assert found.original == pytest.approx(expected["original_score_0_100"], abs=0.01)
    assert found.verified == pytest.approx(expected["verified_score_0_1"], abs=1e-4)
    low, high = found.verified_interval
    assert low <= found.verified <= high


@pytest.mark.parametrize("name", CASES["outputs"])
def test_scores_from_per_frame_lists_equal_the_reference(name):
    tables, expected = candidate_tables(name), CASES["outputs"][name]
    original, verified = iq.original_score(*tables), iq.verified_score(*tables)
    assert original.score == expected["original_score_0_100"]
    assert original.physical_variance == expected["physical_variance_all_metrics"]
    assert verified.score == pytest.approx(expected["verified_score_0_1"], abs=1e-12)
    views = expected["view_scores_unclipped_order_scenario_major"]["final_arithmetic"]
    np.testing.assert_allclose(verified.per_view.ravel(), views, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES["score_tables"]["results"])
def test_scores_of_odd_tables_equal_the_reference(name):
    tables, expected = score_tables(name), CASES["score_tables"]["results"][name]
    original, verified = iq.original_score(*tables), iq.verified_score(*tables)
    np.testing.assert_equal(original.score, expected["original_score_0_100"])
    assert original.physical_variance == expected["physical_variance_all_metrics"]
    output = expected["iqtable_output"]
    assert verified.score == pytest.approx(output["final_score_view"], abs=1e-12)
    for column, key in enumerate(("spatial", "weighted_spatial", "spatiotemporal", "mse")):
        assert verified.per_metric[..., column].mean() == pytest.approx(output[f"score_{key}_view"], abs=1e-12)


def squares(path, size=(48, 64), side=12, level=220):
    frames = np.full((len(path), *size, 3), 40, np.uint8)
    for frame, (x, y) in zip(frames, path, strict=True):
        frame[y : y + side, x : x + side] = level
    return frames


PATH = [(2 + 2 * t, 4 + t) for t in range(20)]


@pytest.mark.parametrize("fixed", [False, True])
def test_a_video_agrees_fully_with_itself(fixed):
    found = iq.agreement(squares(PATH), squares(PATH), fixed=fixed)
    assert found.mse.max() == 0
    assert np.all(found.spatiotemporal_iou == 1)
    assert found.spatial_iou == found.weighted_spatial_iou == found.spacetime_iou == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_overlaps_are_shares_symmetric_and_counted_by_hand(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((5, 4, 6)) < rng.random((5, 1, 1)) * 0.5 for _ in range(2))
    found, swapped = iq.mask_overlap(a, b), iq.mask_overlap(b, a)
    np.testing.assert_allclose(np.hstack(found), np.hstack(swapped), rtol=1e-15)
    assert np.all((np.hstack(found) >= 0) & (np.hstack(found) <= 1))
    for t in range(5):
        union = sum(x or y for x, y in zip(a[t].flat, b[t].flat, strict=True))
        both = sum(x and y for x, y in zip(a[t].flat, b[t].flat, strict=True))
        assert found[0][t] == (both / union if union else 1.0)


def test_fixed_mode_gives_a_still_video_nothing_for_frames_in_which_nothing_moves():
    late = squares([PATH[0]] * 12 + PATH[:8])
    still = np.repeat(late[:1], 20, axis=0)
    published, fixed = iq.agreement(still, late), iq.agreement(still, late, fixed=True)
    assert published.spatiotemporal_iou.mean() > 0.5
    assert fixed.spacetime_iou == 0


def test_fixed_mode_keeps_errors_that_rounding_swallows():
    shape = (1, 1, 6)
    small = iq.Agreement(np.full(shape, 4e-5), np.ones(shape), *(np.ones((1, 1)),) * 3)
    variance = small._replace(mse=np.full(shape, 1e-5))
    # Rounded to four decimals both errors vanish, and 0.0000 passes for perfect.
    assert iq.verified_score(small, variance).per_metric[0, 0, 3] == 1.0
    expected = (1e-5 + iq.QUANTISATION_MSE) / (4e-5 + iq.QUANTISATION_MSE)
    assert iq.verified_score(small, variance, fixed=True).per_metric[0, 0, 3] == pytest.approx(expected)


@given(st.lists(st.floats(0, 1) | st.integers(0, 20000).map(lambda n: n / 20000), min_size=1, max_size=20))
def test_per_frame_values_are_rounded_as_python_rounds(values):
    mse = np.array(values).reshape(1, 1, -1)
    table = iq.Agreement(mse, mse, np.ones((1, 1)), np.ones((1, 1)))
    rounded = np.array([round(v, 4) for v in values]).reshape(mse.shape)
    np.testing.assert_array_equal(iq._as_read(table).mse, rounded)


def test_identical_takes_leave_the_fixed_mse_ratio_continuous():
    truth = squares(PATH)
    kwargs = {"fps": 10, "seconds": 2.0}

    def mse_ratio(offset, *, fixed):
        found = iq.physics_iq([[truth + np.uint8(offset)]], [[truth]], [[truth]], fixed=fixed, **kwargs)
        return iq.verified_score(found.candidate, found.variance, fixed=fixed).per_metric[0, 0, 3]

    # Published: one more grey level turns full marks into none, because 1/255² rounds to 0 and (2/255)² to 1e-4.
    assert mse_ratio(1, fixed=False) == 1.0
    assert mse_ratio(2, fixed=False) < 1e-3
    # Fixed: both sides carry the mean square 1/6 of two roundings.
    for offset in range(4):
        assert mse_ratio(offset, fixed=True) == pytest.approx((1 / 6) / (offset**2 + 1 / 6), rel=1e-5)
    assert iq.physics_iq([[truth]], [[truth]], [[truth]], fixed=True, **kwargs).verified == 1.0
    assert iq.physics_iq([[truth]], [[truth]], [[truth]], fixed=True, **kwargs).original == 100.0


def test_fixed_shrinking_sees_what_the_published_sampling_misses():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 0, :] = mask[0, 3, :] = True  # half of every 4×4 block, none of its centre
    assert not mm.shrink(mask).any()
    assert mm.shrink(mask, antialias=True)[0, 0].all()


def test_fixed_scores_rank_the_planted_candidates():
    shape = [[(s, v) for v in range(3)] for s in (0, 1)]
    take1, take2 = ([[video(s, v, n) for s, v in row] for row in shape] for n in TAKES)
    scores = {
        name: iq.physics_iq(
            [[video(s, v, name) for s, v in row] for row in shape], take1, take2, fps=6, fixed=True
        ).verified
        for name in ("A", "B", "D", "copy_take2")
    }
    assert scores["copy_take2"] > scores["A"] > scores["D"]
    # A frozen frame earns only the view in which the real takes do not move either, and its background's MSE.
    assert scores["B"] < 1 / 6 + 0.25


def test_resampling_takes_the_nearest_frame_and_makes_none_up():
    frames = np.arange(31)
    np.testing.assert_array_equal(mm.resample(frames, fps=30, to_fps=10), np.arange(0, 31, 3))
    np.testing.assert_array_equal(mm.resample(frames[:3], fps=10, to_fps=20), [0, 0, 1, 2, 2])
    with pytest.raises(MeasureError):
        mm.resample(frames, fps=0, to_fps=10)


def test_tables_without_spacetime_overlap_serve_the_published_scores():
    view = iq.agreement(squares(PATH), squares(PATH))._replace(spacetime_iou=None)
    tables = iq.stack([[view]]), iq.stack([[view]])
    assert iq.original_score(*tables).score == 100.0
    with pytest.raises(MeasureError, match="spacetime_iou"):
        iq.original_score(*tables, fixed=True)


def test_bad_input_is_a_named_error():
    frames = squares(PATH)
    with pytest.raises(MeasureError):
        iq.agreement(frames, frames[:-1])
    with pytest.raises(MeasureError):
        mm.motion_masks(frames.astype(float))
    with pytest.raises(MeasureError):
        mm.shrink(frames[:, :3, :3])
    with pytest.raises(MeasureError):
        iq.mask_overlap(frames[..., 0], frames[..., 0])
    with pytest.raises(MeasureError, match="at least 50 frames"):
        iq.physics_iq([[frames]], [[frames]], [[frames]], fps=10)
    with pytest.raises(MeasureError, match="same views"):
        iq.physics_iq([[frames]], [[frames, frames]], [[frames, frames]], fps=4)
    with pytest.raises(MeasureError, match="same scenarios"):
        iq.physics_iq([], [[frames]], [[frames]], fps=4)
    with pytest.raises(MeasureError):
        iq.physics_iq([], [], [], fps=4)
    tables = candidate_tables("A")
    with pytest.raises(MeasureError, match="finite"):
        iq.verified_score(tables[0]._replace(mse=tables[0].mse * np.nan), tables[1])
    with pytest.raises(MeasureError, match="spacetime_iou"):
        iq.verified_score(*tables, fixed=True)


def clip_of(frames, reference):
    return Clip(frames=frames, fps=10, reference=Clip(frames=reference, fps=10))


def test_agreement_evaluator_is_one_for_the_truth_and_falls_with_error():
    measure, truth = EVALUATORS["physics_iq_agreement"], squares(PATH)
    assert measure(clip_of(truth, truth)).value == 1.0
    shifted = [measure(clip_of(np.roll(truth, k, axis=2), truth)).value for k in (0, 2, 5, 10)]
    assert np.all(np.diff(shifted) < 0)
    still = np.repeat(truth[:1], 20, axis=0)
    assert measure(clip_of(still, truth)).value == 0.0
    assert measure(clip_of(still, still)).status == "inapplicable"
    assert measure(clip_of(truth[:1], truth[:1])).status == "insufficient"
    assert measure(clip_of(truth, still)).value == 0.0
