import numpy as np
import pytest
from scipy import stats
from worlds import BLUE, GREEN, GREY, RED, Ball, box, draw, simulate

from eval import Clip
from eval.physics import laws
from eval.physics.contacts import contacts
from eval.physics.evidence import Z_ALARM, corrected, log_p_chi2, z_score
from eval.physics.flights import Gravity, fit
from eval.physics.motion import motion

GRAVITY = (0.0, 0.08)


def clip_of(balls, positions, *, masks=False, actions=None, **kwargs):
    frames, labels = draw(balls, positions, **kwargs)
    truth = {"segmentation": labels} if masks else {}
    return Clip(frames=frames, fps=10, truth=truth, actions=actions)


def scene():
    return [
        Ball(14, 12, 1.6, 0.2, r=5, colour=RED),
        Ball(44, 20, -1.1, 0.4, r=6, colour=BLUE, mass=2.0),
        Ball(26, 48, 0.5, -1.2, r=4.5, colour=GREEN),
    ]


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [0.5, 2.0, 4.0, 8.0, 20.0, 36.0, 45.0, 300.0])
def test_z_of_the_p_value_of_z_is_z(z):
    assert z_score(float(stats.norm.logsf(z))) == pytest.approx(z, rel=1e-4)


def test_the_chi_square_tail_continues_where_scipy_ends():
    for dof in (2, 4, 6):
        x = np.linspace(1300, 1500, 101)
        slopes = np.diff(log_p_chi2(x, dof)) / np.diff(x)
        assert np.isfinite(slopes).all()
        assert np.allclose(slopes, -0.5, atol=0.01)
    # Two degrees of freedom: exactly exp(-x/2).
    np.testing.assert_allclose(log_p_chi2([1.0, 50.0, 1e4], 2), [-0.5, -25.0, -5e3], rtol=1e-12)


def test_bonferroni():
    assert corrected(np.log(1e-3), 10) == pytest.approx(np.log(1e-2))
    assert corrected(np.log(0.5), 10) == 0.0


def test_the_error_of_an_acceleration_has_its_closed_form():
    n, sigma = 60, 0.3
    times = np.arange(n, dtype=float)
    found = fit(times, np.zeros((n, 2)), sigma)
    span = n  # n frames cover n intervals in the large-n formula
    assert np.sqrt(found.covariance[2, 2]) == pytest.approx(sigma * np.sqrt(720) / (span**2 * np.sqrt(n)), rel=0.01)


def test_parabola_errors_are_those_that_occur():
    rng = np.random.default_rng(0)
    times = np.arange(12.0)
    truth = 3.0 + 0.7 * times + 0.5 * 0.05 * times**2
    ends, chi2 = [], []
    for _ in range(600):
        points = np.stack([truth, truth], axis=1) + rng.normal(0, 0.1, (12, 2))
        state, covariance = fit(times, points, 0.1).at(11.0)
        ends.append((state[:, 0] - [truth[-1], 0.7 + 0.05 * 11, 0.05]) / np.sqrt(np.diag(covariance)))
        chi2.append(fit(times, points, 0.1).chi2)
    np.testing.assert_allclose(np.std(ends, axis=0), 1.0, rtol=0.12)
    assert np.mean(chi2) == pytest.approx(18, rel=0.05)


def test_known_gravity_sharpens_a_short_fit():
    times, points = np.arange(3.0), np.stack([np.arange(3.0), np.zeros(3)], axis=1)
    alone = fit(times, points, 0.1)
    helped = fit(times, points, 0.1, Gravity(value=np.zeros(2), error=1e-3))
    assert helped.covariance[1, 1] == pytest.approx(0.1**2 / 2, rel=0.01)
    assert helped.covariance[2, 2] < alone.covariance[2, 2]
    with pytest.raises(ValueError, match="parabola"):
        fit(times[:2], points[:2], 0.1)


# --- lawful clips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("restitution", [1.0, 0.7])
def test_a_lawful_clip_breaks_no_law(masks, restitution):
    balls = scene()
    positions, angles = simulate(balls, 60, gravity=GRAVITY, restitution=restitution)
    clip = clip_of(balls, positions, masks=masks, angles=angles)
    measured = {law.name: law(clip) for law in laws.LAWS}
    for name, found in measured.items():
        assert found.value is None or found.value < Z_ALARM, (name, found.details)
        if found.value is not None:
            assert (found.normalised, found.offending) == (1.0, ())
    needed = {"continuity", "inertia", "equal_gravity", "energy", "restitution", "rigidity", "permanence", "support"}
    assert needed <= {n for n, s in measured.items() if s.value is not None}


@pytest.mark.parametrize("restitution", [1.0, 0.8, 0.5])
def test_gravity_and_restitution_are_measured(restitution):
    balls = [Ball(16, 14, 0.2, 0.0, r=5), Ball(46, 20, -0.1, 0.0, r=6, colour=BLUE)]
    positions, _ = simulate(balls, 60, gravity=GRAVITY, restitution=restitution)
    clip = clip_of(balls, positions)
    found = motion(clip)
    assert found.gravity is not None
    np.testing.assert_allclose(found.gravity.value, GRAVITY, atol=5 * found.gravity.error)
    measured = laws.restitution(clip)
    np.testing.assert_allclose(measured.details["restitutions"], restitution, atol=0.03)


def test_a_collision_shares_momentum_by_mass():
    balls = [Ball(14, 30, 1.5, 0.1, r=5), Ball(48, 33, -1.0, 0.0, r=6, colour=BLUE, mass=2.5)]
    positions, _ = simulate(balls, 34, restitution=0.9, walls=False)
    clip = clip_of(balls, positions)
    (contact,) = [c for c in contacts(motion(clip)) if c.kind == "pair"]
    change = np.linalg.norm(contact.velocities[:, 1] - contact.velocities[:, 0], axis=1)
    assert change.max() / change.min() == pytest.approx(2.5, rel=0.02)
    assert laws.momentum(clip).value < Z_ALARM


# --- violations -------------------------------------------------------------------------------------------------------


def fly(n=40, onset=20):
    balls = [Ball(12, 40, 0.9, -1.3, r=5)]
    positions, _ = simulate(balls, n, gravity=(0, 0.06), walls=False)
    return balls, positions, np.arange(n) >= onset, np.arange(n) - onset


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("kind", ["teleport", "impulse", "gravity", "freeze"])
def test_mid_air_violations_are_found_where_they_happen(kind, masks):
    balls, positions, late, since = fly()
    broken = positions.copy()
    if kind == "teleport":
        broken[late, 0, 0] += 1.0
    if kind == "impulse":
        broken[late, 0] += np.outer(since[late] + 1, [0.0, -0.25])
    if kind == "gravity":
        broken[late, 0, 1] -= 0.5 * 0.03 * since[late] ** 2
    if kind == "freeze":
        broken[late, 0] = positions[20, 0]
    law, tolerance = {
        "teleport": (laws.continuity, 1),
        "impulse": (laws.inertia, 1),
        "gravity": (laws.constant_acceleration, 4),
        "freeze": (laws.inertia, 1),
    }[kind]
    lawful, violated = law(clip_of(balls, positions, masks=masks)), law(clip_of(balls, broken, masks=masks))
    assert lawful.value < Z_ALARM < violated.value
    assert violated.details["alarm"]
    assert violated.normalised == pytest.approx(Z_ALARM / violated.value)
    assert min(abs(np.array(violated.offending) - 20)) <= tolerance


def test_an_impulse_is_no_jump_and_a_jump_no_impulse():
    balls, positions, late, since = fly()
    pushed, moved = positions.copy(), positions.copy()
    pushed[late, 0] += np.outer(since[late] + 0.5, [0.3, 0.0])
    moved[late, 0, 0] += 2.0
    assert laws.continuity(clip_of(balls, pushed)).value < Z_ALARM
    assert laws.inertia(clip_of(balls, moved)).value < Z_ALARM


def test_hovering_and_unequal_gravity():
    balls = [Ball(16, 10, 0.3, 0, r=5), Ball(46, 10, -0.2, 0, r=5, colour=BLUE)]
    positions, _ = simulate(balls, 28, gravity=(0, 0.1), walls=False)
    assert laws.support(clip_of(balls, positions)).value < Z_ALARM
    assert laws.equal_gravity(clip_of(balls, positions)).value < Z_ALARM
    slow = positions.copy()
    slow[:, 1, 1] = 10 + 0.7 * (positions[:, 1, 1] - 10)
    assert laws.equal_gravity(clip_of(balls, slow)).value > Z_ALARM
    hover = positions.copy()
    hover[12:, 1] = hover[12, 1]
    found = laws.support(clip_of(balls, hover))
    assert found.value > Z_ALARM
    assert set(range(14, 26)) <= set(found.offending)


def test_gains_at_contacts():
    balls = [Ball(30, 15, 0.4, 0.0, r=5)]
    positions, _ = simulate(balls, 44, gravity=GRAVITY, restitution=1.15)
    clip = clip_of(balls, positions)
    assert laws.energy(clip).value > Z_ALARM
    assert laws.restitution(clip).value > Z_ALARM
    assert laws.restitution(clip).details["restitutions"][0] == pytest.approx(1.15, abs=0.03)
    backwards = simulate(balls, 44, gravity=GRAVITY, restitution=0.85)[0][::-1]
    assert laws.energy(clip_of(balls, backwards)).value > Z_ALARM


def test_momentum_that_is_not_shared():
    balls = [Ball(14, 30, 1.5, 0.1, r=5), Ball(48, 33, -1.0, 0.0, r=6, colour=BLUE)]
    positions, _ = simulate(balls, 34, walls=False)
    contact = int(np.argmin(np.linalg.norm(positions[:, 0] - positions[:, 1], axis=1)))
    later = np.arange(34) > contact
    broken = positions.copy()
    broken[later, 1] += np.outer(np.arange(34)[later] - contact, [0.0, 0.3])
    assert laws.momentum(clip_of(balls, positions)).value < Z_ALARM
    assert laws.momentum(clip_of(balls, broken)).value > Z_ALARM


@pytest.mark.parametrize("masks", [False, True])
def test_passing_through_is_penetration_and_bouncing_is_not(masks):
    balls = [Ball(12, 30, 1.5, 0, r=6), Ball(52, 32, -1.5, 0, r=6, colour=BLUE)]
    bounced, _ = simulate(balls, 28, walls=False)
    start = np.array([[b.x, b.y] for b in balls])
    speed = np.array([[b.vx, b.vy] for b in balls])
    through = start + np.arange(28)[:, None, None] * speed
    lawful = laws.non_penetration(clip_of(balls, bounced, masks=masks))
    assert lawful.status == "inapplicable" or lawful.value < Z_ALARM
    assert laws.non_penetration(clip_of(balls, through, masks=masks)).value > Z_ALARM


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("kind", ["vanish", "appear", "flicker", "recolour"])
def test_permanence(kind, masks):
    balls = [*fly()[0], Ball(45, 14, 0.0, 0.0, r=5, colour=BLUE)]
    positions, _ = simulate(balls, 40, gravity=(0, 0.03), walls=False)
    t = np.arange(40)
    shown = np.ones((40, 2), bool)
    colours = np.array([[b.colour for b in balls]] * 40, float)
    if kind == "vanish":
        shown[t >= 20, 1] = False
    if kind == "appear":
        shown[t < 20, 1] = False
    if kind == "flicker":
        shown[20:22, 1] = False
    if kind == "recolour":
        colours[t >= 20, 1] += [40, 20, -30]
    lawful = laws.permanence(clip_of(balls, positions, masks=masks))
    violated = laws.permanence(clip_of(balls, positions, masks=masks, visible=shown, colours=colours))
    assert lawful.value < Z_ALARM < violated.value
    assert {19, 20} & set(violated.offending)


@pytest.mark.parametrize("masks", [False, True])
def test_leaving_and_hiding_are_lawful(masks):
    balls = [Ball(8, 20, 1.5, 0, r=5), Ball(50, 45, 1.2, 0, r=5, colour=BLUE), Ball(-8, 50, 1.1, 0, r=4, colour=GREEN)]
    positions, _ = simulate(balls, 34, walls=False)
    clip = clip_of(balls, positions, masks=masks, scenery=(box((64, 64), 25, 0, 41, 36), GREY, True))
    assert laws.permanence(clip).value < Z_ALARM


@pytest.mark.parametrize("kind", ["grow", "reshape"])
def test_rigidity(kind):
    balls, positions, late, _ = fly()
    radii = np.full((40, 1), 5.0)
    if kind == "grow":
        radii[late] *= 1.06
    frames, _ = draw(balls, positions, radii=radii)
    if kind == "reshape":
        square = [Ball(**{**vars(balls[0]), "shape": "box", "r": 5 * np.sqrt(np.pi) / 2})]
        frames[late] = draw(square, positions)[0][late]
    found = laws.rigidity(Clip(frames=frames, fps=10))
    assert laws.rigidity(clip_of(balls, positions)).value < Z_ALARM < found.value
    assert set(found.offending) & {19, 20, 21}


def slide(acceleration, n=24):
    block = [Ball(12, 51, 0, 0, r=5, shape="box", colour=RED)]
    t = np.arange(n)
    x = 12 + 1.0 * t + 0.5 * acceleration * t**2
    positions = np.stack([x, np.full(n, 51.0)], axis=1)[:, None]
    return clip_of(block, positions, scenery=(box((64, 64), 0, 56, 64, 64), GREY, False))


def test_friction_only_slows():
    assert laws.friction(slide(-0.03)).value < Z_ALARM
    assert laws.friction(slide(0.0)).value < Z_ALARM
    assert laws.friction(slide(0.03)).value > Z_ALARM


# --- agents, refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [False, True])
def test_the_driven_object_is_found_and_left_out(masks):
    rng = np.random.default_rng(3)
    actions = rng.integers(0, 5, 40).repeat(2)[:59]
    push = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])[actions] * 0.12
    # Brought back to the middle, so that it meets no wall.
    x, v = np.array([32.0, 22.0]), np.zeros(2)
    path = [x]
    for a in push:
        v = v + a - 0.02 * (x - [32, 22])
        x = x + v - 0.5 * a
        path.append(x)
    driven = np.array(path)
    free, _ = simulate([Ball(10, 52, 0.3, -0.6, r=4, colour=BLUE)], 60, gravity=(0, 0.02))
    balls = [Ball(0, 0, r=5, colour=(25, 25, 25)), Ball(0, 0, r=4, colour=BLUE)]
    clip = clip_of(balls, np.stack([driven, free[:, 0]], axis=1), masks=masks, actions=actions)
    found = motion(clip)
    assert found.agent is not None
    place = found.tracks.centroid_px[0, found.agent]
    np.testing.assert_allclose(place, [32, 22], atol=0.5)
    assert laws.inertia(clip).value < Z_ALARM
    assert laws.inertia(clip, agent=None).value > Z_ALARM
    assert {f.item for f in found.flights} == {1 - found.agent}


def test_actions_that_drive_nothing_seen_are_a_reason_not_a_guess():
    balls = scene()[:1]
    positions, _ = simulate(balls, 40, walls=False)
    actions = np.random.default_rng(0).integers(0, 5, 39)
    found = laws.inertia(clip_of(balls, positions[:30], actions=actions[:29]))
    assert (found.status, found.value) == ("insufficient", None)
    assert "actions" in found.reason
    constant = laws.inertia(clip_of(balls, positions[:30], actions=np.zeros(29, int)))
    assert constant.value < Z_ALARM


def test_laws_without_occasion_say_so():
    balls, positions, _, _ = fly()
    clip = clip_of(balls, positions)
    for law in (laws.momentum, laws.restitution, laws.friction, laws.non_penetration):
        assert law(clip).status == "inapplicable", law.name
    weightless = clip_of(balls, simulate([Ball(12, 30, 0.9, 0, r=5)], 40, walls=False)[0])
    assert laws.support(weightless).status == "inapplicable"
