"""Which frames matter: weights by which windows rich in events are drawn more often."""

import numpy as np

from worldsim.data.dataset import Dataset
from worldsim.errors import ConfigError


def event_frames(dataset: Dataset, *, change: np.ndarray | None = None, fast: float = 0.05) -> np.ndarray:
    """Frames at which something happened: bool (num_frames,).

    An event is a reward other than the episode's most common one, a termination, or, where the truth tells contacts, a
    frame with more of them than the frame before; and, if `change` is given, an abrupt change.

    Args:
        dataset: Where the frames are.
        change: (num_frames,) how abruptly each frame changes, as from `abrupt_change`.
        fast: The share of frames, those of largest change, that count as events.

    Raises:
        ConfigError: If `change` has another length.
    """
    happened = np.zeros(dataset.num_frames, bool)
    if change is not None:
        if change.shape != happened.shape:
            raise ConfigError(expected=f"change of {happened.shape}", got=change.shape, remedy="Give one a frame.")
        happened |= (change > np.quantile(change, 1.0 - fast)) & (change > 0.0)
    rewards, ended = dataset.read("rewards"), dataset.read("terminated")
    contacts = _num_contacts(dataset)
    for start, length in zip(dataset.starts, dataset.lengths, strict=True):
        steps, frames = slice(start, start + length - 1), slice(start + 1, start + length)
        values, counts = np.unique(rewards[steps], return_counts=True)
        # A consequence of actions[i] is seen in frame i + 1.
        happened[frames] |= (rewards[steps] != values[counts.argmax()]) | ended[steps]
        if contacts is not None:
            happened[frames] |= contacts[frames] > contacts[steps]
    return happened


def abrupt_change(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """How far each frame is from going on as the two before it, (num_frames,) float32.

    The mean square of the second difference over time: steady motion in a smooth latent has little, bounces and sudden
    appearances much. An episode's first two frames have none.

    Args:
        dataset: Whose frames they are.
        values: (num_frames, ...) of each frame, for example latents; may lie on disk.
    """
    change = np.zeros(dataset.num_frames, np.float32)
    for start, length in zip(dataset.starts, dataset.lengths, strict=True):
        rows = np.asarray(values[start : start + length], dtype=np.float32).reshape(length, -1)
        change[start + 2 : start + length] = np.square(np.diff(rows, n=2, axis=0)).mean(axis=1)
    return change


def event_weights(dataset: Dataset, *, share: float = 0.5, change: np.ndarray | None = None) -> np.ndarray:
    """Weights for `Windows`: all frames weigh alike, and frames with events more, `share` of the whole.

    Args:
        dataset: Where the windows come from.
        share: Share of all weight that lies on the events, in [0, 1). Without any event all frames weigh alike.
        change: See `event_frames`.

    Returns:
        float64 (num_frames,).

    Raises:
        ConfigError: If `share` is out of range.
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(expected="a share in [0, 1)", got=share, remedy="0.5 gives events half of the weight.")
    happened = event_frames(dataset, change=change)
    weights = np.ones(dataset.num_frames)
    if happened.any():
        weights[happened] += share / (1.0 - share) * dataset.num_frames / happened.sum()
    return weights


def _num_contacts(dataset: Dataset) -> np.ndarray | None:
    """Contacts of each frame, (num_frames,): rows of `truth/contacts` whose first number, a slot, is one."""
    if "contacts" not in dataset.truth_keys:
        return None
    first = dataset.read("truth/contacts")[..., 0]
    return (np.nan_to_num(first, nan=-1.0) >= 0.0).sum(axis=1)
