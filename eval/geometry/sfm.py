"""Structure from motion through pycolmap (extra `sfm`): cameras and points from frames alone.

COLMAP: Schönberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.geometry.epipolar import fundamental_from_poses, sampson_distance
from eval.geometry.pose import check_intrinsics, relative_pose

# A pair of neighbouring frames this close is not matched exhaustively but with its next ten: cost grows linearly.
_EXHAUSTIVE = 24
_MIN_MODEL_FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The largest model of a set of frames; empty (no frame registered) where COLMAP found none.

    Attributes:
        registered: (T,) bool.
        world_from_camera: (T, 4, 4), NaN where not registered; scale and world frame are arbitrary.
        K: (3, 3) in pixels, as given or as estimated; None if there is no model.
        points: (N, 3).
        colours: (N, 3) uint8.
        track_lengths: (N,) number of frames that see each point.
        errors_px: (O,) reprojection error of each observation.
        untriangulated_px: (U,) for each matched keypoint of a registered frame that is no observation (seen under too
            small an angle, or inconsistent), the median Sampson distance of its matches under the model's cameras.
        num_matched: (T,) keypoints of each frame that match some other frame, before any geometry.
        num_models: Into how many separate models the frames fell.
    """

    registered: np.ndarray
    world_from_camera: np.ndarray
    K: np.ndarray | None
    points: np.ndarray
    colours: np.ndarray
    track_lengths: np.ndarray
    errors_px: np.ndarray
    untriangulated_px: np.ndarray
    num_matched: np.ndarray
    num_models: int

    def explained_share(self, threshold_px: float) -> float:
        """Share of all matched keypoints, of unregistered frames too, that the model explains within a threshold.

        By the point's reprojection where there is one, else by the matches' epipolar lines: what is seen under too
        small an angle to be triangulated is no evidence against a model whose cameras explain it.
        """
        matched = int(self.num_matched.sum())
        explained = (self.errors_px <= threshold_px).sum() + (self.untriangulated_px <= threshold_px).sum()
        return float(explained) / matched if matched else 0.0


def is_available() -> bool:
    """Whether pycolmap is installed."""
    return importlib.util.find_spec("pycolmap") is not None


def reconstruct(frames: np.ndarray, *, K: np.ndarray | None = None, seed: int = 0, threads: int = 1) -> Reconstruction:
    """Reconstructs cameras and points from frames.

    Args:
        frames: uint8 (T, H, W, 3) or (T, H, W), T >= 3.
        K: (3, 3) in pixels if known; else one pinhole camera with the focal length estimated.
        seed: Of the robust estimators. With one thread, equal seeds give equal models.
        threads: Number of threads.

    Raises:
        MeasureError: If pycolmap is not installed, there are fewer than three frames, or frames or `K` are
            something else.
    """
    if not is_available():
        raise MeasureError(
            expected="pycolmap", got="no such package", remedy="Install it: pip install 'worldsim[sfm]'."
        )
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[-1] == 3)):
        raise MeasureError(
            expected="frames uint8 (T, H, W, 3) or (T, H, W)",
            got=f"{frames.dtype} {frames.shape}",
            remedy="eval.clip.as_frames converts float video.",
        )
    K = None if K is None else check_intrinsics(K)
    if len(frames) < _MIN_MODEL_FRAMES:
        raise MeasureError(expected="at least 3 frames", got=len(frames), remedy="Pass a longer clip.")
    pycolmap: Any = importlib.import_module("pycolmap")
    with TemporaryDirectory() as folder, _quiet(pycolmap):
        images, database = Path(folder) / "images", Path(folder) / "database.db"
        names = _write_images(images, frames)
        _extract_and_match(pycolmap, database, images, names, K=K, threads=threads)
        matches = _matches(pycolmap, database, names)
        (Path(folder) / "models").mkdir()
        pycolmap.set_random_seed(seed)
        options = _mapping_options(pycolmap, seed=seed, threads=threads, refine_focal=K is None)
        models = pycolmap.incremental_mapping(database, images, Path(folder) / "models", options)
        largest = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
        return _result(largest, names, matches, len(models))


def _write_images(folder: Path, frames: np.ndarray) -> list[str]:
    folder.mkdir()
    names = [f"{i:06d}.png" for i in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        cv2.imwrite(str(folder / name), frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return names


def _extract_and_match(
    pycolmap: Any,  # noqa: ANN401 - the package is optional
    database: Path,
    images: Path,
    names: list[str],
    *,
    K: np.ndarray | None,
    threads: int,
) -> None:
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE" if K is None else "PINHOLE"
    if K is not None:
        reader.camera_params = ",".join(repr(float(v)) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.sift.max_num_features = 2048
    pycolmap.extract_features(
        database,
        images,
        image_names=names,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    if len(names) <= _EXHAUSTIVE:
        pycolmap.match_exhaustive(database, matching, device=pycolmap.Device.cpu)
    else:
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap = 10
        pycolmap.match_sequential(database, matching, pairing, device=pycolmap.Device.cpu)


def _mapping_options(pycolmap: Any, *, seed: int, threads: int, refine_focal: bool) -> Any:  # noqa: ANN401
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = _MIN_MODEL_FRAMES
    options.num_threads = threads
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = refine_focal
    # Video has short baselines: COLMAP's defaults (16 degrees, 100 inliers) are made for photo collections.
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_min_num_inliers = 50
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = 1.0
    return options


def _matches(pycolmap: Any, database: Path, names: list[str]) -> dict[tuple[int, int], np.ndarray]:  # noqa: ANN401
    """Keypoint indices (M, 2) of the matches of each pair of frames a < b that has any, before any geometry."""
    opened = pycolmap.Database.open(database)
    try:
        ids = [opened.read_image_with_name(name).image_id for name in names]
        pairs = [(a, b) for a in range(len(ids)) for b in range(a + 1, len(ids))]
        found = {(a, b): opened.read_matches(ids[a], ids[b]) for a, b in pairs if opened.exists_matches(ids[a], ids[b])}
        return {pair: np.asarray(match).reshape(-1, 2) for pair, match in found.items() if len(match)}
    finally:
        opened.close()


def _matched_counts(matches: dict[tuple[int, int], np.ndarray], num_frames: int) -> np.ndarray:
    matched: list[set[int]] = [set() for _ in range(num_frames)]
    for (a, b), pairs in matches.items():
        matched[a].update(pairs[:, 0].tolist())
        matched[b].update(pairs[:, 1].tolist())
    return np.array([len(m) for m in matched])


def _result(
    model: Any,  # noqa: ANN401
    names: list[str],
    matches: dict[tuple[int, int], np.ndarray],
    num_models: int,
) -> Reconstruction:
    poses = np.full((len(names), 4, 4), np.nan)
    counts = _matched_counts(matches, len(names))
    if model is None:
        nothing = np.zeros(0)
        return Reconstruction(
            registered=np.zeros(len(names), bool),
            world_from_camera=poses,
            K=None,
            points=nothing.reshape(0, 3),
            colours=nothing.reshape(0, 3).astype(np.uint8),
            track_lengths=nothing.astype(int),
            errors_px=nothing,
            untriangulated_px=nothing,
            num_matched=counts,
            num_models=num_models,
        )
    K = np.eye(3)
    keypoints: dict[int, np.ndarray] = {}
    errors: dict[int, np.ndarray] = {}
    for image in model.images.values():
        if not image.has_pose:
            continue
        index = names.index(image.name)
        poses[index] = np.eye(4)
        poses[index][:3] = image.cam_from_world().inverse().matrix()
        K = np.asarray(image.camera.calibration_matrix())
        keypoints[index] = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
        errors[index] = np.full(len(keypoints[index]), np.nan)
        for i, point in enumerate(image.points2D):
            if point.has_point3D():
                projected = image.project_point(model.points3D[point.point3D_id].xyz)
                errors[index][i] = np.inf if projected is None else float(np.linalg.norm(projected - point.xy))
    points = list(model.points3D.values())
    return Reconstruction(
        registered=np.asarray(np.isfinite(poses).all(axis=(1, 2))),
        world_from_camera=poses,
        K=K,
        points=np.array([p.xyz for p in points]).reshape(-1, 3),
        colours=np.array([p.color for p in points], dtype=np.uint8).reshape(-1, 3),
        track_lengths=np.array([p.track.length() for p in points], dtype=int),
        errors_px=np.concatenate([e[~np.isnan(e)] for e in errors.values()]),
        untriangulated_px=_untriangulated(matches, keypoints, errors, poses, K),
        num_matched=counts,
        num_models=num_models,
    )


def _untriangulated(
    matches: dict[tuple[int, int], np.ndarray],
    keypoints: dict[int, np.ndarray],
    errors: dict[int, np.ndarray],
    poses: np.ndarray,
    K: np.ndarray,
) -> np.ndarray:
    """Median Sampson distance of each matched keypoint of registered frames that has no reprojection error."""
    distances: dict[tuple[int, int], list[float]] = {}
    for (a, b), pairs in matches.items():
        if a not in keypoints or b not in keypoints:
            continue
        F = fundamental_from_poses(relative_pose(poses[a], poses[b]), K, K)
        found = sampson_distance(keypoints[a][pairs[:, 0]], keypoints[b][pairs[:, 1]], F)
        for frame, indices in ((a, pairs[:, 0]), (b, pairs[:, 1])):
            for i in np.flatnonzero(np.isnan(errors[frame][indices])):
                distances.setdefault((frame, int(indices[i])), []).append(float(found[i]))
    return np.array([float(np.median(d)) for d in distances.values()])


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:  # noqa: ANN401
    """COLMAP logs every step to the standard error."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
