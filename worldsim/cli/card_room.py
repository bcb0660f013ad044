"""Figures that only a world learned from Room can have: one coherent room, a camera that obeys, places that stay."""

from collections.abc import Sequence

import numpy as np

from envs.room.env import RoomEnv
from envs.room.moves import ACTIONS
from eval import Clip
from eval.fidelity import psnr
from eval.geometry.following import camera_following
from eval.geometry.known_depth import residual_flow
from eval.score import Evaluator
from worldsim.cli.card_figures import CEILING_DB, through_the_tokenizer
from worldsim.cli.card_rows import Figure, mean_figure, ratio_figure
from worldsim.cli.demo_cases import DREAM, FRESH_SEED, GIVEN, STILL, TRUTH, WORLDS, Case, dream, make_cases
from worldsim.data import Episode
from worldsim.simulator import Simulator

COHERENT_FRAMES = 32
QUARTER_TURN = 12
_STAY, _LEFT, _RIGHT = (ACTIONS.index(name) for name in ("stay", "turn left", "turn right"))
_TURN_SEED = 3_000_000  # so that no two figures share a room


def room_figures(simulator: Simulator, *, cases: int, seed: int) -> list[Figure]:
    """Geometry of the dream under the true camera and depth, beside the true frames and a frozen picture; memory.

    Args:
        simulator: A world learned from Room.
        cases: Episodes for each figure.
        seed: Which fresh rooms.
    """
    rng = np.random.default_rng(seed)
    made = make_cases(WORLDS["room"], simulator, cases=cases, frames=GIVEN + COHERENT_FRAMES, seed=seed)
    return coherence(made, rng) + returning(simulator, cases=cases, seed=FRESH_SEED + seed + _TURN_SEED, rng=rng)


def coherence(cases: Sequence[Case], rng: np.random.Generator) -> list[Figure]:
    """Residual-flow outliers and camera-following of dream, true frames and a frozen picture.

    An episode counts where the true frames can be measured; a video that then cannot be measured counts as the worst.
    """
    figures = []
    for evaluator, name, worst in (
        (residual_flow, f"residual-flow outliers over {COHERENT_FRAMES} frames", 1.0),
        (camera_following, f"camera error avoided over {COHERENT_FRAMES} frames", 0.0),
    ):
        true = [_reading(evaluator, case.clips[TRUTH]) for case in cases]
        measured = [case for case, value in zip(cases, true, strict=True) if value is not None]
        if not measured:
            continue
        read = {}
        for label, shown in ((DREAM, "dream"), (TRUTH, "true frames"), (STILL, "last frame repeated")):
            values = [_reading(evaluator, case.clips[label]) for case in measured]
            read[label] = [worst if v is None else v for v in values]
            figures.append(mean_figure(f"{name}, {shown}", "", read[label], rng))
        if evaluator is residual_flow and sum(read[TRUTH]) > 0.0:
            multiple = f"{name}, dream as a multiple of true frames"
            figures.append(ratio_figure(multiple, read[DREAM], read[TRUTH], rng))
    return figures


def _reading(evaluator: Evaluator, clip: Clip) -> float | None:
    """The share of outliers, or the share of a standing camera's error that was avoided; None without a value."""
    found = evaluator(clip)
    return found.value if evaluator.better == "lower" and evaluator.unit == "share" else found.normalised


def returning(simulator: Simulator, *, cases: int, seed: int, rng: np.random.Generator) -> list[Figure]:
    """PSNR to the true frame at the turning point and back where the camera began, all within the model's window.

    Nothing in these rooms moves. The turn is as wide as the window allows, a right angle at most.
    """
    turns = min(QUARTER_TURN, (simulator.checkpoint.model.config.window - GIVEN) // 2)
    if turns < 1:
        return []
    actions = np.array([_STAY] * (GIVEN - 1) + [_LEFT] * turns + [_RIGHT] * turns)
    episodes = [_film(simulator.frame_size, actions, seed + k) for k in range(cases)]
    dreamt = dream(simulator, episodes, seed=seed)
    truth = np.stack([e.frames for e in episodes])
    held = np.repeat(truth[:, GIVEN - 1 : GIVEN], truth.shape[1], axis=1)
    angle = f"by {7.5 * turns:g}°"
    away, back = GIVEN - 1 + turns, GIVEN - 1 + 2 * turns
    returned = _psnr_at(dreamt, truth, back)
    # Nothing moves: the view that the dream comes back to is the last one that it was shown.
    shown = through_the_tokenizer(simulator, truth[:, GIVEN - 1 : GIVEN])
    lost = np.subtract(_psnr_at(shown, truth[:, GIVEN - 1 :], 0), returned)
    # A standing camera returns perfectly: that figure says nothing.
    return [
        mean_figure(f"PSNR turned away {angle}, dream", "dB", _psnr_at(dreamt, truth, away), rng),
        mean_figure(f"PSNR turned away {angle}, last frame repeated", "dB", _psnr_at(held, truth, away), rng),
        mean_figure(f"PSNR returned {angle}, dream", "dB", returned, rng),
        mean_figure(f"PSNR lost from first visit to return, turned away {angle}", "dB", lost.tolist(), rng),
    ]


def _psnr_at(videos: np.ndarray, truth: np.ndarray, at: int) -> list[float]:
    """Of one frame of each video, at most `CEILING_DB`."""
    return [float(min(psnr(v[at : at + 1], t[at : at + 1])[0], CEILING_DB)) for v, t in zip(videos, truth, strict=True)]


def _film(size: tuple[int, int], actions: np.ndarray, seed: int) -> Episode:
    """An episode of a room in which nothing but the camera moves."""
    env = RoomEnv(size=size, factors={"motion": "rest"})
    frame, info = env.reset(seed=seed)
    steps = [env.step(a) for a in actions]
    env.close()
    return Episode(
        frames=np.stack([frame, *(s[0] for s in steps)]),
        actions=actions,
        rewards=np.array([s[1] for s in steps], np.float32),
        terminated=np.array([s[2] for s in steps]),
        truncated=np.array([s[3] for s in steps]),
        fps=10.0,
        caption=info["caption"],
        seed=seed,
    )
