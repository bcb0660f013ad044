import importlib
import subprocess
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest

from eval import perceptual
from eval.clip import Clip
from eval.errors import MeasureError
from eval.score import EVALUATORS

needs_weights = pytest.mark.skipif(not perceptual.is_installed(), reason="stlpips-pytorch is not installed")


def scene(seed=0, frames=3, size=64):
    rng = np.random.default_rng(seed)
    return np.stack([cv2.GaussianBlur(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), (0, 0), 2)] * frames)


def clip_of(frames, reference):
    return Clip(frames=frames, fps=10, reference=Clip(frames=reference, fps=10))


def test_eval_does_not_import_torch():
    code = "import sys, eval.perceptual, eval.features, eval.control, eval.fidelity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_weights
def test_distance_equals_the_published_network(monkeypatch):
    torch = importlib.import_module("torch")
    # Imported by the package, never used on this path.
    for name in ("torchvision", "torchsummary", "IPython"):
        stub = ModuleType(name)
        stub.models, stub.summary, stub.embed = ModuleType("models"), None, None
        monkeypatch.setitem(sys.modules, name, stub)
    published = importlib.import_module("stlpips_pytorch.stlpips").LPIPS(
        net="alex", variant="shift_tolerant", verbose=False
    )
    for size in (32, 64, 75):
        a, b = scene(0, 2, size), scene(1, 2, size)
        first, second = (torch.from_numpy(v).permute(0, 3, 1, 2).float() / 127.5 - 1 for v in (a, b))
        with torch.inference_mode():
            expected = published(first, second).flatten().numpy()
        np.testing.assert_allclose(perceptual.perceptual_distance(a, b), expected, rtol=1e-5, atol=1e-7)


@needs_weights
def test_distance_is_zero_for_identical_symmetric_and_batch_free():
    a, b = scene(0, 5), scene(1, 5)
    np.testing.assert_array_equal(perceptual.perceptual_distance(a, a), 0)
    forth, back = perceptual.perceptual_distance(a, b), perceptual.perceptual_distance(b, a, batch=2)
    np.testing.assert_allclose(forth, back, rtol=1e-5)


@needs_weights
def test_distance_grows_with_blur_and_forgives_a_shift():
    truth = scene(2, 1, 96)
    blurred = [
        perceptual.perceptual_distance(np.stack([cv2.GaussianBlur(truth[0], (0, 0), s)]), truth)[0] for s in (1, 3, 6)
    ]
    assert 0 < blurred[0] < blurred[1] < blurred[2]
    shifted = np.roll(truth, 1, axis=2)
    equal_mse = np.clip(
        truth + np.random.default_rng(0).normal(0, (shifted - truth.astype(float)).std(), truth.shape), 0, 255
    )
    assert perceptual.perceptual_distance(shifted, truth)[0] < (
        0.5 * perceptual.perceptual_distance(equal_mse.astype(np.uint8), truth)[0]
    )


@needs_weights
def test_score_and_feature():
    score = EVALUATORS["perceptual"](clip_of(scene(1), scene(0)))
    assert score.status == "ok"
    assert 0 < score.value < 1.5
    assert np.isnan(score.per_frame[0])
    assert EVALUATORS["perceptual"](clip_of(scene(0), scene(0))).normalised == 1.0
    feature = perceptual.PerceptualFeature()
    assert feature(scene(0)).shape == (256,)
    np.testing.assert_allclose(feature(scene(0, 5)), feature(scene(0, 2)), rtol=1e-5)


@needs_weights
def test_too_small_frames_are_named():
    small = scene(0, 2, 24)
    with pytest.raises(MeasureError, match="32"):
        perceptual.perceptual_distance(small, small)
    assert EVALUATORS["perceptual"](clip_of(small, small)).status == "insufficient"


def test_missing_weights_are_named_with_their_remedy(monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package_of_weights")
    perceptual._weights.cache_clear()
    score = EVALUATORS["perceptual"](clip_of(scene(1), scene(0)))
    assert score.status == "failed"
    assert "pip install --no-deps stlpips-pytorch" in score.reason
    with pytest.raises(MeasureError, match="stlpips-pytorch"):
        perceptual.perceptual_distance(scene(1), scene(0))
    perceptual._weights.cache_clear()
