"""Learned networks as plug-ins: depth, matching and features, for whoever has the weights.

Learned scores (MEt3R, arXiv 2501.06336, and its kin) need large networks and hallucinate geometry on noise, so none
ships here. A plug-in says what it is and whether it can run, and never downloads anything by itself.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np

from eval.errors import MeasureError

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether a plug-in can run, and if not, why."""

    ok: bool
    reason: str = ""


@runtime_checkable
class Plugin(Protocol):
    """What every plug-in says of itself; the three enter a score's provenance through `repr`."""

    @property
    def name(self) -> str:
        """Of the network and its weights."""
        ...

    @property
    def version(self) -> str:
        """Of the weights: another version may give other scores."""
        ...

    @property
    def precision(self) -> Precision:
        """Number format of the computation."""
        ...

    def health(self) -> Health:
        """Whether packages and weights are present; must not download and must not raise."""
        ...


@runtime_checkable
class DepthNetwork(Plugin, Protocol):
    """Metric depth from frames."""

    def depth_m(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W) along the optical axis, in the unit of the poses, of frames uint8 (T, H, W, 3)."""
        ...


@runtime_checkable
class MatchingNetwork(Plugin, Protocol):
    """Matches between two frames."""

    def match(self, frame_a: np.ndarray, frame_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (M, 2) and (M, 2), centres at +0.5, of frames uint8 (H, W, 3)."""
        ...


@runtime_checkable
class FeatureNetwork(Plugin, Protocol):
    """Dense features."""

    def features(self, frames: np.ndarray) -> np.ndarray:
        """float32 (T, h, w, C) of frames uint8 (T, H, W, 3); h and w may be smaller than H and W."""
        ...


@dataclass(frozen=True, kw_only=True, repr=False)
class TorchFeatures:
    """A torch module as a `FeatureNetwork`.

    Attributes:
        module: Takes float (N, 3, H, W), normalised by `mean` and `std`, gives (N, C, h, w).
        name: Of network and weights.
        version: Of the weights.
        precision: Number format of the computation.
        device: Where it runs.
        mean: Per channel, of values in [0, 1].
        std: Per channel.
        batch: Frames at a time.
    """

    module: Any
    name: str
    version: str
    precision: Precision = "float32"
    device: str = "cpu"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    batch: int = 16

    def __repr__(self) -> str:
        return f"{self.name}@{self.version} ({self.precision})"

    def health(self) -> Health:
        """Whether torch, the device and a module are there."""
        if importlib.util.find_spec("torch") is None:
            return Health(ok=False, reason="torch is not installed")
        torch = importlib.import_module("torch")
        if not isinstance(self.module, torch.nn.Module):
            return Health(ok=False, reason=f"the module is a {type(self.module).__name__}, not a torch.nn.Module")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            return Health(ok=False, reason="no CUDA device")
        return Health(ok=True)

    def features(self, frames: np.ndarray) -> np.ndarray:
        """See `FeatureNetwork.features`.

        Raises:
            MeasureError: If the plug-in is not healthy, or the module gives another shape or numbers that are not
            finite.
        """
        require_health(self)
        torch = importlib.import_module("torch")
        dtype = getattr(torch, self.precision)
        module = self.module.to(device=self.device, dtype=dtype).eval()
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        made = []
        with torch.inference_mode():
            for start in range(0, len(frames), self.batch):
                x = torch.from_numpy(frames[start : start + self.batch]).to(self.device)
                x = (x.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
                made.append(module(x.to(dtype)).float().cpu().numpy())
        features = np.concatenate(made)
        if features.ndim != 4 or len(features) != len(frames) or not np.isfinite(features).all():
            raise MeasureError(
                expected=f"finite features of shape ({len(frames)}, C, h, w) from {self!r}",
                got=str(features.shape),
                remedy="Wrap the module so that it returns a dense feature map.",
            )
        return features.transpose(0, 2, 3, 1)


def require_health(plugin: Plugin) -> None:
    """Raises `MeasureError` with the plug-in's own reason if it cannot run."""
    health = plugin.health()
    if not health.ok:
        raise MeasureError(expected=f"{plugin.name} to be able to run", got=health.reason, remedy="See its reason.")


def feature_distance(target: np.ndarray, source: np.ndarray, pixels: np.ndarray, visible: np.ndarray) -> float:
    """1 - mean cosine similarity between features of a view and those of another warped to it, as MEt3R defines it.

    Args:
        target: (h, w, C).
        source: (h, w, C).
        pixels: (H, W, 2), where each pixel of the target lies in the source, see `eval.geometry.depth.correspond`.
        visible: (H, W) bool.

    Returns:
        In [0, 2]; 0 for equal features.

    Raises:
        MeasureError: If nothing is visible.
    """
    if not visible.any():
        raise MeasureError(expected="views that overlap", got="none visible", remedy="Choose nearer frames.")
    height, width = visible.shape
    scale = np.array([source.shape[1] / width, source.shape[0] / height])
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    here = _sample_features(target, grid * scale)[visible]
    there = _sample_features(source, np.where(visible[..., None], pixels, 0.5) * scale)[visible]
    norms = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    return float(1.0 - ((here * there).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


def _sample_features(features: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear samples (H, W, C) of features (h, w, C) at pixels (H, W, 2) of their own grid, centres at +0.5."""
    at = (pixels - 0.5).astype(np.float32)
    # OpenCV takes at most four channels at a time here.
    parts = [
        cv2.remap(
            np.ascontiguousarray(features[..., c : c + 4], dtype=np.float32),
            at[..., 0],
            at[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(*pixels.shape[:2], -1)
        for c in range(0, features.shape[-1], 4)
    ]
    return np.concatenate(parts, axis=-1)
