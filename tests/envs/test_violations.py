"""Violations: matched pairs of Bounce, what each breaks and by how much; nuisances that break nothing."""

import numpy as np
import pytest

from envs.bounce.truth import CONTACT_COLUMNS
from envs.errors import SceneError, SeverityError, UnknownNameError
from envs.violations import NUISANCES, Record, check_severity, compression, exposure, names, noise, nuisance, pair

BOUNCE = names("bounce")
SEED = 3


@pytest.fixture(scope="module")
def pairs():
    return {(name, s): pair(name, SEED, s) for name in BOUNCE for s in (0.0, 0.05, 0.5, 1.0)}


@pytest.mark.parametrize("name", BOUNCE)
def test_pairs_agree_up_to_the_onset_and_wholly_at_severity_zero(name, pairs):
    lawful, same = pairs[name, 0.0]
    np.testing.assert_array_equal(lawful.frames, same.frames)
    assert (lawful.name, lawful.onset, same.name, same.onset, same.severity) == (None, None, name, None, 0.0)
    lawful, violated = pairs[name, 1.0]
    assert violated.text == lawful.text
    assert violated.severity == 1.0
    assert lawful.frames.shape == violated.frames.shape == (32, 64, 64, 3)
    assert len(lawful.actions) == 31
    assert {k: v.shape for k, v in lawful.truth.items()} == {k: v.shape for k, v in violated.truth.items()}
    differ = np.flatnonzero((lawful.frames != violated.frames).any(axis=(1, 2, 3)))
    if name == "appear":
        assert (differ < violated.onset).all()
    else:
        assert (differ >= violated.onset).all()
        assert differ[0] <= violated.onset + 12
    assert len(differ) >= 5


@pytest.mark.parametrize("name", BOUNCE)
def test_severity_grows_from_none(name, pairs):
    def change(severity):
        lawful, violated = pairs[name, severity]
        stop = violated.onset + 6 if violated.onset and name != "appear" else None
        return np.abs(lawful.frames[:stop].astype(int) - violated.frames[:stop]).mean()

    small, half, full = change(0.05), change(0.5), change(1.0)
    assert 0 <= small < full
    assert half > 0
    assert small < 0.35 * max(half, full)


@pytest.mark.parametrize("name", BOUNCE)
def test_severity_is_continuous_at_none(name):
    """A tenth of a small severity changes the frames by about a tenth: nothing jumps where the violation begins."""
    change = {}
    for severity in (0.001, 0.01):
        lawful, violated = pair(name, SEED, severity)
        stop = None if name == "appear" else violated.onset + 6
        change[severity] = np.abs(lawful.frames[:stop].astype(int) - violated.frames[:stop]).mean()
    assert change[0.01] > 0
    assert change[0.001] < 0.2 * change[0.01]


@pytest.mark.parametrize("name", BOUNCE)
def test_pixel_statistics_match(name, pairs):
    lawful, violated = pairs[name, 1.0]
    # Objects are few and flat: their number of pixels may change (vanish, appear, duplicate), their kinds may not.
    background = lawful.frames[0, 0, 0]
    for record in (lawful, violated):
        np.testing.assert_array_equal(np.median(record.frames.reshape(-1, 3), axis=0), background)
    colours = [{tuple(c) for c in np.unique(r.frames[r.truth["segmentation"] > 0], axis=0)} for r in (lawful, violated)]
    assert len(colours[0] & colours[1]) >= 1


def test_the_same_seed_is_the_same_scene_at_every_severity(pairs):
    for name in BOUNCE:
        first = [pairs[name, s][0].frames[0] for s in (0.0, 0.05, 0.5, 1.0)]
        if name != "time_reversal":  # its scene loses energy by an amount that is the severity
            assert all(np.array_equal(first[0], f) for f in first)
        again = pair(name, SEED, 0.5)
        np.testing.assert_array_equal(again[1].frames, pairs[name, 0.5][1].frames)
        assert not np.array_equal(pair(name, SEED + 1, 0.5)[1].frames, again[1].frames)


def energy(record):
    return record.truth["energy_j"].sum(axis=2)


def touches(record, t, slot=0):
    """Whether a solid touched anything between frames t - 1 and t."""
    rows = record.truth["contacts"][t]
    return bool((rows[rows[:, 0] >= 0][:, :2] == slot).any())


def jump(record, t, slot=0):
    """Distance in metres between where a solid is at frame t and where free flight would have brought it."""
    x, v, g = (record.truth[k] for k in ("position_m", "velocity_m_per_s", "gravity_m_per_s2"))
    return float(np.linalg.norm(x[t, slot] - x[t - 1, slot] - 0.1 * v[t - 1, slot] - 0.005 * g[t - 1]))


def test_teleport_jumps_by_its_severity(pairs):
    for s in (0.05, 0.5, 1.0):
        _, violated = pairs["teleport", s]
        assert jump(violated, violated.onset) == pytest.approx(3.0 * s, abs=1e-6)


def test_vanished_and_unborn_objects_are_absent(pairs):
    _, gone = pairs["vanish", 1.0]
    assert gone.truth["present"][: gone.onset].all()
    assert not gone.truth["present"][gone.onset :, 0].any()
    assert not gone.truth["full_masks"][gone.onset :, 0].any()
    _, born = pairs["appear", 1.0]
    assert not born.truth["present"][: born.onset, 0].any()
    assert born.truth["present"][born.onset :].all()


def test_a_duplicate_adds_an_object_of_the_same_kind(pairs):
    lawful, violated = pairs["duplicate", 1.0]
    present = violated.truth["present"].sum(axis=1)
    assert (present[: violated.onset] == 2).all()
    assert (present[violated.onset :] == 3).all()
    assert (lawful.truth["present"].sum(axis=1) == 2).all()
    apart = violated.truth["position_m"][violated.onset :, 2] - violated.truth["position_m"][violated.onset :, 0]
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), 2.5)


def test_swaps_change_looks_and_leave_motion(pairs):
    for name in ("colour_swap", "shape_swap", "vanish", "duplicate"):
        lawful, violated = pairs[name, 1.0]
        for key in ("position_m", "velocity_m_per_s", "contacts"):
            n = lawful.truth["present"][0].sum()
            a, b = lawful.truth[key], violated.truth[key]
            np.testing.assert_array_equal(a[:, :n] if key != "contacts" else a, b[:, :n] if key != "contacts" else b)
    lawful, violated = pairs["colour_swap", 1.0]
    t = violated.onset
    for k in range(2):
        seen = [np.median(r.frames[t][r.truth["segmentation"][t] == k + 1], axis=0) for r in (lawful, violated)]
        other = np.median(lawful.frames[t][lawful.truth["segmentation"][t] == 2 - k], axis=0)
        np.testing.assert_array_equal(seen[1], other)
        assert not np.array_equal(seen[0], other)
    lawful, violated = pairs["shape_swap", 1.0]
    areas = [r.truth["full_masks"][violated.onset, 0].sum() for r in (lawful, violated)]
    assert areas[0] == pytest.approx(areas[1], rel=0.1)
    assert (lawful.truth["full_masks"][violated.onset, 0] != violated.truth["full_masks"][violated.onset, 0]).any()


def test_pass_through_overlaps_more_with_severity(pairs):
    def depth(record):
        x, masks = record.truth["position_m"], record.truth["full_masks"]
        radii = np.sqrt(masks[0].sum(axis=(1, 2)) / np.pi) / 6.4
        return (radii.sum() - np.linalg.norm(x[:, 0] - x[:, 1], axis=1)).max()

    lawful, violated = pairs["pass_through", 1.0]
    assert depth(lawful) < 0.15
    assert depth(pairs["pass_through", 0.5][1]) > depth(lawful) + 0.2
    assert depth(violated) >= depth(pairs["pass_through", 0.5][1])
    np.testing.assert_array_equal(violated.truth["velocity_m_per_s"][0], violated.truth["velocity_m_per_s"][-1])
    momentum = pairs["pass_through", 0.5][1].truth["momentum_kg_m_per_s"].sum(axis=1)
    np.testing.assert_allclose(momentum, np.broadcast_to(momentum[0], momentum.shape), atol=1e-9)


def test_gravity_turns_round(pairs):
    lawful, violated = pairs["gravity_change", 1.0]
    t = violated.onset
    np.testing.assert_array_equal(violated.truth["gravity_m_per_s2"][-1], -lawful.truth["gravity_m_per_s2"][-1])
    bend = lambda r: r.truth["velocity_m_per_s"][t + 1, :, 1] - r.truth["velocity_m_per_s"][t, :, 1]  # noqa: E731
    np.testing.assert_allclose(bend(violated), -bend(lawful), atol=1e-9)


def test_energy_is_gained_where_it_is_said_to_be(pairs):
    for s in (0.5, 1.0):
        lawful, violated = pairs["energy_gain", s]
        t = violated.onset - 1
        ratio = violated.truth["energy_j"][t, 0, 0] / lawful.truth["energy_j"][t, 0, 0]
        assert 1.2 < ratio <= (1 + s) ** 2 + 1e-9
        assert touches(violated, t)
        np.testing.assert_allclose(energy(lawful).sum(axis=1), energy(lawful).sum(axis=1)[0], rtol=1e-6)
    lawful, violated = pairs["impulse", 1.0]
    t = violated.onset - 1
    change = violated.truth["velocity_m_per_s"][t, 0] - lawful.truth["velocity_m_per_s"][t, 0]
    assert np.linalg.norm(change) == pytest.approx(4.0)
    assert not any(touches(violated, k) for k in range(t - 1, t + 2))


def test_time_reversal_gains_energy_and_its_partner_loses_it(pairs):
    lawful, violated = pairs["time_reversal", 1.0]
    np.testing.assert_array_equal(lawful.frames[0], violated.frames[0])
    assert energy(violated)[-1, 0] > 1.2 * energy(violated)[0, 0]
    # A lossy bounce is resolved to half a substep of free fall, so the last small ones may gain a ten-thousandth.
    assert (np.diff(energy(lawful)[:, 0]) < 2e-4 * energy(lawful)[0, 0]).all()
    impulses = violated.truth["contacts"][..., CONTACT_COLUMNS.index("impulse_x_n_s") :][..., :2]
    used = violated.truth["contacts"][..., 0] >= 0
    gained = np.where(used[..., None], impulses, 0.0).sum(axis=1)
    fell = 0.1 * lawful.truth["gravity_m_per_s2"][0] * lawful.truth["mass_kg"][0, 0]
    change = np.diff(violated.truth["momentum_kg_m_per_s"][:, 0], axis=0)
    # Impulses act on the wall; the object receives the opposite. Rest is resolved to a substep of free fall.
    np.testing.assert_allclose(change, fell - gained[1:], atol=0.05 * np.linalg.norm(fell))


def test_a_frozen_object_hangs_while_the_other_moves_on(pairs):
    lawful, violated = pairs["frozen", 1.0]
    t = violated.onset
    held = violated.truth["position_m"][t - 1 :, 0]
    np.testing.assert_allclose(held, np.broadcast_to(held[0], held.shape), atol=1e-12)
    np.testing.assert_array_equal(violated.truth["position_m"][:, 1], lawful.truth["position_m"][:, 1])


@pytest.mark.parametrize("severity", [-0.1, 1.1, float("nan"), "0.5", None])
def test_severities_outside_the_unit_interval_are_refused(severity):
    with pytest.raises(SeverityError, match="severity in"):
        pair("teleport", 0, severity)
    with pytest.raises(SeverityError):
        check_severity(severity)


def test_unknown_violations_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="teleport"):
        pair("teleprot", 0, 0.5)
    with pytest.raises(UnknownNameError, match="bounce"):
        names("bonce")


# ---------------------------------------------------------------------- nuisances


@pytest.fixture(scope="module")
def record(pairs):
    return pairs["energy_gain", 1.0][1]


def test_level_zero_changes_nothing(record):
    for name in NUISANCES:
        same = nuisance(name, record, 0.0, np.random.default_rng(0))
        np.testing.assert_array_equal(same.frames, record.frames)
        assert same.onset == record.onset
        np.testing.assert_array_equal(same.truth["contacts"], record.truth["contacts"])


def test_noise_has_the_stated_spread(record):
    frames = np.full((8, 64, 64, 3), 128, np.uint8)
    noisy = noise(frames, 0.5, np.random.default_rng(0)).astype(float) - 128
    assert noisy.std() == pytest.approx(10.0, rel=0.02)
    assert abs(noisy.mean()) < 0.1
    assert record.frames.dtype == noise(record.frames, 1.0, np.random.default_rng(0)).dtype


def test_exposure_is_one_gain_for_the_whole_clip():
    frames = np.arange(8 * 8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 8, 3) % 150
    gains = {round(float(exposure(frames, 0.5, np.random.default_rng(k)).sum() / frames.sum()), 2) for k in range(8)}
    assert gains == {0.8, 1.2}


def test_compression_keeps_means_and_removes_detail():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 36, 52, 3)).astype(np.uint8)
    light, heavy = (compression(frames, level, rng).astype(float) for level in (0.01, 1.0))
    assert np.abs(light - frames).max() <= 3
    assert 5 < np.abs(heavy - frames).mean() < 60
    assert heavy.mean() == pytest.approx(frames.mean(), abs=2)
    smooth = np.full((1, 16, 16, 3), 100, np.uint8)
    assert np.abs(compression(smooth, 1.0, rng).astype(int) - 100).max() <= 1


def test_a_lower_frame_rate_keeps_truth_in_step(record):
    half = nuisance("frame_rate", record, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(half.frames, record.frames[::2])
    np.testing.assert_array_equal(half.truth["position_m"], record.truth["position_m"][::2])
    assert half.fps == record.fps / 2
    assert len(half.actions) == len(half.frames) - 1
    assert half.onset == -(-record.onset // 2)

    def impulse(r):
        contacts = r.truth["contacts"]
        return contacts[contacts[..., 0] >= 0][:, 6:8].sum(axis=0)

    shown = Record(**{**vars(record), "truth": {"contacts": record.truth["contacts"][:31]}})
    np.testing.assert_allclose(impulse(half), impulse(shown))


def test_a_start_offset_moves_the_onset(record):
    late = nuisance("start_offset", record, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(late.frames, record.frames[8:])
    assert late.onset == record.onset - 8
    with pytest.raises(UnknownNameError, match="noise"):
        nuisance("nois", record, 0.5, np.random.default_rng(0))
    short = Record(**{**vars(record), "frames": record.frames[:2]})
    with pytest.raises(SceneError, match="two frames"):
        nuisance("frame_rate", short, 1.0, np.random.default_rng(0))
