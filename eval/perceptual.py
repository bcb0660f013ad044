"""A perceptual distance: shift-tolerant LPIPS, from weights that an installed package carries. Needs the extra.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018; Ghildyal & Liu,
"Shift-tolerant Perceptual Similarity Metric", ECCV 2022. Only the weights (BSD-2) are read from `stlpips-pytorch`, as
data: its code, and what its code imports, is not run. torch is imported when a distance is computed, never before.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.clip import Clip
from eval.errors import MeasureError
from eval.fidelity import check_pair, evidence, paired
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "stlpips_pytorch"
WEIGHTS = Path("weights", "vST0.0", "alex_shift_tolerant.pth")
REMEDY = "pip install torch; pip install --no-deps stlpips-pytorch"
# Below this the last layers have no pixels to mirror at their edges.
MIN_SIDE_PX = 32
UNIT_EPS = 1e-10


def perceptual_distance(frames: np.ndarray, reference: np.ndarray, *, batch: int = 8) -> np.ndarray:
    """Shift-tolerant LPIPS (AlexNet) of every frame; 0 for identical frames, about 0.7 for unrelated ones.

    Args:
        frames: uint8 (T, H, W, 3), RGB, at least 32 pixels high and wide.
        reference: uint8 (T, H, W, 3).
        batch: Frames that are compared at once; bounds the memory.

    Returns:
        (T,) float64.

    Raises:
        MeasureError: If the weights are not installed, shapes differ, or frames are smaller than 32 pixels.
    """
    check_pair(frames, reference)
    import torch  # noqa: PLC0415 - the base package works without torch

    weights = _weights()
    distances = []
    with torch.inference_mode():
        for start in range(0, len(frames), batch):
            part = slice(start, start + batch)
            pair = zip(_layers(frames[part], weights), _layers(reference[part], weights), strict=True)
            total = torch.zeros(len(frames[part]))
            for i, (a, b) in enumerate(pair):
                difference = (_unit(a) - _unit(b)) ** 2
                total += (difference * weights[f"lin{i}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
            distances.append(total.double().numpy())
    return np.concatenate(distances)


@dataclass(frozen=True)
class PerceptualFeature:
    """The mean over space and time of the network's last layer (256), for Fréchet and kernel distances.

    A `VideoFeature`. It sees what things look like in single frames, not how they move.
    """

    name: str = "stlpips-alex"
    batch: int = 8

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The feature (256,) of uint8 frames (T, H, W, 3); errors as `perceptual_distance`."""
        check_pair(frames, frames)
        import torch  # noqa: PLC0415 - the base package works without torch

        with torch.inference_mode():
            starts = range(0, len(frames), self.batch)
            last = [_layers(frames[s : s + self.batch], _weights())[-1].mean(dim=(2, 3)) for s in starts]
            return torch.cat(last).mean(dim=0).double().numpy()


@evaluator(
    "perceptual",
    suite="fidelity",
    unit="1",
    better="lower",
    needs=("reference",),
    claims=("late", "softening", "grain"),
)
def perceptual_score(clip: Clip, *, context: int = 1, batch: int = 8) -> Measurement:
    """Perceptual distance (shift-tolerant LPIPS) to the true video, mean over predicted frames."""
    frames, reference = paired(clip, context)
    if min(frames.shape[1:3]) < MIN_SIDE_PX:
        raise Unmeasurable("insufficient", f"frames of {frames.shape[1]}×{frames.shape[2]}, smaller than {MIN_SIDE_PX}")
    if not is_installed():
        raise Unmeasurable("failed", f"the pretrained weights are not installed: {REMEDY}")
    per_frame = evidence(perceptual_distance(frames, reference, batch=batch), context)
    value = float(np.nanmean(per_frame))
    return Measurement(
        value=value,
        normalised=max(0.0, 1.0 - value),
        uncertainty=standard_error(per_frame),
        coverage=1 - context / len(clip),
        per_frame=per_frame,
    )


def is_installed() -> bool:
    """Whether torch and the weights are there."""
    return find_spec("torch") is not None and find_spec(PACKAGE) is not None


@cache
def _weights() -> "dict[str, Tensor]":
    if not is_installed():
        raise MeasureError(expected="torch and the package stlpips-pytorch", got="not installed", remedy=REMEDY)
    import torch  # noqa: PLC0415 - the base package works without torch

    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return torch.load(Path(spec.origin).parent / WEIGHTS, map_location="cpu", weights_only=True)


def _layers(frames: np.ndarray, weights: "dict[str, Tensor]") -> "list[Tensor]":
    """The five rectified layers, (n, 64 | 192 | 384 | 256 | 256, h, w), of uint8 (n, H, W, 3)."""
    import torch  # noqa: PLC0415 - the base package works without torch
    from torch.nn import functional as F  # noqa: PLC0415

    if min(frames.shape[1:3]) < MIN_SIDE_PX:
        raise MeasureError(
            expected=f"frames of at least {MIN_SIDE_PX}×{MIN_SIDE_PX} pixels",
            got=f"{frames.shape[1]}×{frames.shape[2]}",
            remedy="Use SSIM or PSNR for smaller frames.",
        )

    def conv(x: "Tensor", name: str, padding: int) -> "Tensor":
        return F.conv2d(x, weights[f"net.{name}.weight"], weights[f"net.{name}.bias"], padding=padding)

    def blur_half(x: "Tensor", name: str) -> "Tensor":
        kernel = weights[f"net.{name}.filt"]
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    def pool(x: "Tensor") -> "Tensor":
        return F.max_pool2d(x, kernel_size=3, stride=1)

    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = (x - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    first = F.relu(blur_half(conv(x, "slice1.0", 2), "slice1.1"))
    second = F.relu(conv(blur_half(pool(first), "slice2.4"), "slice2.5", 2))
    third = F.relu(conv(blur_half(pool(second), "slice3.8"), "slice3.9", 1))
    fourth = F.relu(conv(third, "slice4.11", 1))
    return [first, second, third, fourth, F.relu(conv(fourth, "slice5.13", 1))]


def _unit(x: "Tensor") -> "Tensor":
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + UNIT_EPS)
