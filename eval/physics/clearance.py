"""Which near misses were misses: where an object that is known to fly cannot have reached what lay near.

`flights.nearness` errs on the safe side: it knows no direction. Beside a stretch of flight more can be said. What flies
up to a frame enters the next interval with its velocity, and if that takes it to nothing within the interval, it met
nothing there, for it would have had to meet something first to get elsewhere. The same holds backwards in time. So
flights grow at both ends, interval by interval, until a contact is possible.
"""

from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from eval.physics.flights import ALIAS_SHARE, GAP_ERROR_PX, Nearness, edge_error
from eval.physics.tracks import Tracks

# Moments within an interval at which the distance of two outlines is looked at.
MOMENTS = np.linspace(0.0, 1.0, 9)
AHEAD, BACK = 1, -1


def cleared(tracks: Tracks, near: Nearness) -> Nearness:
    """`near` without what cannot have been touched, given the flights on either side.

    Args:
        tracks: N objects over T frames.
        near: What each may have touched, from distances alone.
    """
    grown = _Growth(tracks, near)
    waiting = [(t, k) for t, k in zip(*np.nonzero(~near.free), strict=True)]
    while True:
        changed = [(t, k) for t, k in waiting if any(grown.clear(int(t), int(k), way) for way in (AHEAD, BACK))]
        if not changed:
            return grown.near
        waiting = [(t, k) for t, k in waiting if not grown.near.free[t, k]]


class _Growth:
    """Flights that grow into the intervals beside them."""

    def __init__(self, tracks: Tracks, near: Nearness) -> None:
        self.tracks = tracks
        self.near = replace(
            near, **{name: getattr(near, name).copy() for name in ("scenery", "border", "objects", "free")}
        )
        self.step = np.diff(tracks.centroid_px, axis=0)
        self.edge_error = edge_error(tracks)
        placed = tracks.whole & tracks.apart
        self.placed = placed[:-1] & placed[1:]

    def clear(self, t: int, k: int, way: int) -> bool:
        """Clears what object k cannot have met between frames t and t+1, seen from the flight before or after.

        Returns:
            Whether anything was cleared.
        """
        beside = t - way
        if not (0 <= beside < len(self.step) and self.near.free[beside, k] and self.placed[t, k]):
            return False
        at, move = (t if way == AHEAD else t + 1), way * self.step[beside, k]
        before = int(self.near.border[t, k].sum()) + int(self.near.scenery[t, k]) + int(self.near.objects[t, k].sum())
        swing, pull = self._swing(beside, k), self._pull(self.step[:, k])
        gap = self.tracks.border_px[at, k] + np.array([move[0], -move[0], move[1], -move[1]])
        self.near.border[t, k] &= gap <= swing + pull + 0.5 * self.edge_error[k]
        if self.near.scenery[t, k]:
            room = self.tracks.around.scenery_px[at, k] - float(np.linalg.norm(move))
            self.near.scenery[t, k] = room <= swing + pull + 0.5 * GAP_ERROR_PX
        for j in np.flatnonzero(self.near.objects[t, k]):
            if self._misses(t, k, int(j), way):
                self.near.objects[t, [k, j], [j, k]] = False
                self._refresh(t, int(j))
        self._refresh(t, k)
        after = int(self.near.border[t, k].sum()) + int(self.near.scenery[t, k]) + int(self.near.objects[t, k].sum())
        return after < before

    def _refresh(self, t: int, k: int) -> None:
        near = self.near
        touched = near.scenery[t, k] or near.border[t, k].any() or near.objects[t, k].any()
        near.free[t, k] = self.placed[t, k] and not touched

    def _misses(self, t: int, k: int, j: int, way: int) -> bool:
        """Whether k and j, both in flight beside the interval and near nothing else in it, keep apart."""
        beside, at = t - way, t if way == AHEAD else t + 1
        others = np.delete(self.near.objects[t, [k, j]], [k, j], axis=1)
        else_near = others.any() or self.near.border[t, [k, j]].any() or self.near.scenery[t, [k, j]].any()
        if else_near or not self.near.free[beside, j] or not self.placed[t, j]:
            return False
        move = way * (self.step[beside, k] - self.step[beside, j])
        # What pulls both alike brings them no nearer.
        slack = self._swing(beside, k) + self._swing(beside, j) + self._pull(self.step[:, k] - self.step[:, j])
        pixels = [np.argwhere(self.tracks.labels[at] == item + 1)[:, ::-1].astype(float) for item in (k, j)]
        path = pixels[0][None] + MOMENTS[:, None, None] * move
        nearest = float(KDTree(pixels[1]).query(path.reshape(-1, 2))[0].min())
        return nearest - 1.0 > slack + 0.5 * GAP_ERROR_PX

    def _swing(self, t: int, k: int) -> float:
        """How much further than its outline object k may reach in an interval if it turns as it does in interval t."""
        fold = int(self.tracks.fold[k])
        if fold == 0:
            return 0.0
        x, y = self.tracks.centroid_px[:, k].T
        left, right, top, bottom = self.tracks.extent_px[:, k].T
        reach = np.stack([x - left, right - x, y - top, bottom - y])[:, self.tracks.whole[:, k]]
        most = float(reach.max() - reach.min())
        turn = abs(float(self.tracks.turn_rad[t + 1, k] - self.tracks.turn_rad[t, k]))
        # A turn that is not known, or too fast to be told from its opposite, may be any.
        return min(most, float(reach.max()) * turn) if turn < ALIAS_SHARE * np.pi / fold else most

    @staticmethod
    def _pull(step: np.ndarray) -> float:
        """Twice the usual change of step: more than a steady force changes it within an interval."""
        change = np.linalg.norm(np.diff(step, axis=0), axis=-1)
        usual = np.median(change[np.isfinite(change)]) if np.isfinite(change).any() else 0.0
        return 2.0 * float(usual)
