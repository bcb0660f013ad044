"""Which frames matter: weights by which windows rich in events are drawn more often."""

import numpy as np

from worldsim.data.dataset import Dataset
from worldsim.errors import ConfigError


def event_frames(dataset: Dataset) -> np.ndarray:
    """Frames at which something happened: bool (num_frames,).

    An event is a reward other than the episode's most common one, a termination, or, where the truth tells contacts, a
    frame with more of them than the frame before.
    """
    happened = np.zeros(dataset.num_frames, bool)
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


def event_weights(dataset: Dataset, *, share: float = 0.5) -> np.ndarray:
    """Weights for `Windows`: all frames weigh alike, and frames with events more, `share` of the whole.

    Args:
        dataset: Where the windows come from.
        share: Share of all weight that lies on the events, in [0, 1). Without any event all frames weigh alike.

    Returns:
        float64 (num_frames,).

    Raises:
        ConfigError: If `share` is out of range.
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(expected="a share in [0, 1)", got=share, remedy="0.5 gives events half of the weight.")
    happened = event_frames(dataset)
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
