"""Which object the actions drive: it is not in free flight, whatever it touches."""

from typing import Literal

import numpy as np
from scipy import stats

from eval.clip import Clip
from eval.physics.tracks import Tracks
from eval.score import Unmeasurable

# The actions must beat "they explain nothing" at this level.
AGENT_LOG_P = np.log(1e-6)
Agent = int | Literal["auto"] | None


def agent_of(clip: Clip, tracks: Tracks, agent: Agent) -> int | None:
    """Which object the actions drive.

    Args:
        clip: Its actions decide; without actions, or with one and the same action throughout, nothing is driven.
        tracks: The objects.
        agent: An object index, None for no agent, or "auto": slot 0 where objects come from the truth's segmentation,
            else the object whose second differences the actions explain best.

    Raises:
        Unmeasurable: If "auto" cannot tell which of the tracked objects the actions drive.
    """
    if agent is None or isinstance(agent, int):
        return agent
    if clip.actions is None or len(clip) < 4:
        return None
    actions = clip.actions.reshape(len(clip.actions), -1).astype(float)
    if np.all(actions == actions[0]):
        return None
    if tracks.source == "segmentation":
        return 0
    explained = [_explained_by(actions, tracks, k) for k in range(len(tracks))]
    best = int(np.argmin(explained))
    if explained[best] > AGENT_LOG_P:
        raise Unmeasurable("insufficient", "actions are given, but no object's motion can be told to follow them")
    return best


def _explained_by(actions: np.ndarray, tracks: Tracks, k: int) -> float:
    """Log p-value of the F test that actions have no linear part in the object's second differences."""
    second = np.diff(tracks.centroid_px[:, k], n=2, axis=0)
    usable = tracks.whole[2:, k] & tracks.whole[1:-1, k] & tracks.whole[:-2, k]
    # The acceleration about frame i + 1 is driven by the actions of the intervals before and after it.
    codes = _codes(actions)
    design = np.concatenate([codes[:-1] + codes[1:], np.ones((len(codes) - 1, 1))], axis=1)[usable]
    target = second[usable]
    if len(target) < 8:
        return 0.0
    # Contacts are outliers that would drown the actions.
    middle = np.median(target, axis=0)
    spread = 1.4826 * np.median(np.abs(target - middle), axis=0) + 1e-3
    calm = np.all(np.abs(target - middle) < 6.0 * spread, axis=1)
    design, target = design[calm], target[calm]
    rank = int(np.linalg.matrix_rank(design))
    rest = len(target) - rank
    if rest < 4 or rank < 2:
        return 0.0
    fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    within = np.sum((target - fitted) ** 2)
    total = np.sum((target - target.mean(axis=0)) ** 2)
    ratio = ((total - within) / (2 * (rank - 1))) / max(within / (2 * rest), 1e-12)
    return float(stats.f.logsf(ratio, 2 * (rank - 1), 2 * rest))


def _codes(actions: np.ndarray) -> np.ndarray:
    """One column per value of a single whole-numbered action, else the actions themselves."""
    if actions.shape[1] == 1 and np.all(actions == np.round(actions)):
        values = np.unique(actions)
        return (actions == values[None, 1:]).astype(float)
    return actions
