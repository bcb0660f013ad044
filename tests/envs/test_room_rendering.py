"""Room's pictures against closed forms: depth, normals, cameras, texture filtering, shading, re-projection."""

from dataclasses import replace

import numpy as np
import pytest

from envs.errors import SceneError
from envs.room.camera import world_from_camera
from envs.room.env import RoomEnv
from envs.room.moves import ACTIONS
from envs.room.physics import World
from envs.room.rendering import Renderer
from envs.room.scene import SHAPES, Scene, Solid, rotation_matrix
from envs.room.staging import stage_of

ROOM = (5.0, 4.0, 2.6)
QUATERNION = tuple(np.array([0.7, 0.3, -0.5, 0.4]) / np.linalg.norm([0.7, 0.3, -0.5, 0.4]))
SIZES = {
    "sphere": (0.35, 0.35, 0.35),
    "box": (0.4, 0.25, 0.3),
    "cylinder": (0.3, 0.4, 0.4),
    "capsule": (0.25, 0.3, 0.3),
    "ellipsoid": (0.45, 0.3, 0.2),
}


def solid(shape="sphere", position=(0.6, 0.2, 1.1), quaternion=QUATERNION, **changes):
    return Solid(shape=shape, colour="red", size_m=SIZES[shape], position_m=position, quaternion=quaternion, **changes)


def scene(*solids, **changes):
    return Scene(**{"room_m": ROOM, "solids": solids, "lights_m": ((0.3, -0.4, 2.4),), "texture_seed": 5, **changes})


def draw(scene, camera, size=(48, 64), **options):
    renderer = Renderer(size, **options)
    return renderer.render(stage_of(World(scene, len(scene.solids) + 1)), camera), renderer


def camera(position=(-1.8, -0.3, 1.2), yaw=0.15, pitch=-0.1):
    return world_from_camera(np.array(position), yaw, pitch)


def rays_through_pixels(renderer, pose):
    """Directions of the pixel centres in the world, from K alone, with unit z in the camera's frame."""
    h, w = renderer.size
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
    return pixels @ np.linalg.inv(renderer.K).T @ pose[:3, :3].T


def hit_points(picture, renderer, pose):
    return pose[:3, 3] + picture.depth_m[..., None].astype(float) * rays_through_pixels(renderer, pose)


def test_depth_of_known_planes():
    pose = world_from_camera(np.array([-1.0, 0.0, 1.2]), 0.0, 0.0)
    picture, renderer = draw(scene(), pose, (64, 96))
    f, (h, w) = renderer.K[0, 0], renderer.size
    x = (np.arange(w) + 0.5 - w / 2) / f
    y = (np.arange(h) + 0.5 - h / 2) / f
    with np.errstate(divide="ignore"):
        front = np.full((h, w), 3.5)
        sides = np.broadcast_to(2.0 / np.abs(x), (h, w))
        floor = np.broadcast_to(np.where(y > 0, 1.2 / y, np.inf)[:, None], (h, w))
        ceiling = np.broadcast_to(np.where(y < 0, -1.4 / y, np.inf)[:, None], (h, w))
    expected = np.minimum(np.minimum(front, sides), np.minimum(floor, ceiling))
    assert {v.any() for v in (expected == front, expected == sides, expected == floor, expected == ceiling)} == {True}
    np.testing.assert_allclose(picture.depth_m, expected, rtol=0, atol=1e-6)


def test_depth_of_a_known_sphere():
    ball, pose = solid(), camera()
    picture, renderer = draw(scene(ball), pose, (96, 128))
    rays = rays_through_pixels(renderer, pose)
    towards = pose[:3, 3] - np.array(ball.position_m)
    a, b, c = (rays**2).sum(-1), (rays * towards).sum(-1), towards @ towards - 0.35**2
    inside = b**2 - a * c > 0
    depth = (-b - np.sqrt(np.where(inside, b**2 - a * c, 0.0))) / a
    np.testing.assert_array_equal(picture.segmentation == 2, inside)
    assert inside.sum() > 250
    np.testing.assert_allclose(picture.depth_m[inside], depth[inside], rtol=0, atol=1e-6)


def distance_and_normal(shape, size, local):
    """An implicit function that vanishes on the surface with unit slope there, and its outward gradient, local axes."""
    a, b, _ = size
    if shape == "sphere":
        r = np.linalg.norm(local, axis=-1)
        return r - a, local / r[:, None]
    if shape == "ellipsoid":
        gradient = local / np.square(size)
        k0, k1 = np.linalg.norm(local / size, axis=-1), np.linalg.norm(gradient, axis=-1)
        return k0 * (k0 - 1.0) / k1, gradient / k1[:, None]
    if shape == "capsule":
        axis = np.zeros_like(local)
        axis[:, 2] = np.clip(local[:, 2], -b, b)
        r = np.linalg.norm(local - axis, axis=-1)
        return r - a, (local - axis) / r[:, None]
    if shape == "box":
        excess = np.abs(local) - size
        face = excess.argmax(axis=-1)
        return excess.max(axis=-1), np.eye(3)[face] * np.sign(np.take_along_axis(local, face[:, None], 1))
    radial = np.linalg.norm(local[:, :2], axis=-1)
    side = np.concatenate([local[:, :2] / radial[:, None], np.zeros((len(local), 1))], axis=1)
    cap = np.array([0.0, 0.0, 1.0]) * np.sign(local[:, 2:])
    on_side = radial - a > np.abs(local[:, 2]) - b
    return np.maximum(radial - a, np.abs(local[:, 2]) - b), np.where(on_side[:, None], side, cap)


@pytest.mark.parametrize("shape", SHAPES)
def test_hits_lie_on_the_surface_with_its_normal(shape):
    body, pose = solid(shape), camera()
    picture, renderer = draw(scene(body), pose, (96, 96))
    seen = picture.segmentation == 2
    assert seen.sum() > 200
    rotation = rotation_matrix(body.quaternion)
    local = (hit_points(picture, renderer, pose)[seen] - body.position_m) @ rotation
    distance, normal = distance_and_normal(shape, np.array(body.size_m), local)
    np.testing.assert_allclose(distance, 0.0, atol=1e-6)
    facing = np.einsum("pi,pi->p", picture.normals[seen] @ rotation, normal)
    # Within a micrometre of an edge either face's normal is right.
    assert np.quantile(facing, 0.01) > 1 - 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_segmentation_is_the_silhouette(shape):
    """A pixel shows the solid exactly if its ray enters it: checked by sampling the ray densely."""
    body, pose = solid(shape), camera()
    picture, renderer = draw(scene(body), pose, (32, 32))
    rays = rays_through_pixels(renderer, pose).reshape(-1, 3)
    steps = np.linspace(0.5, 4.5, 4001)
    least = np.empty(len(rays))
    for i, ray in enumerate(rays):
        local = (pose[:3, 3] + steps[:, None] * ray - body.position_m) @ rotation_matrix(body.quaternion)
        least[i] = distance_and_normal(shape, np.array(body.size_m), local)[0].min()
    clear = np.abs(least) > 2e-3
    np.testing.assert_array_equal((picture.segmentation.ravel() == 2)[clear], least[clear] < 0)
    assert (least[clear] < 0).sum() > 20


def test_normals_are_unit_and_face_the_camera():
    pose = camera()
    picture, renderer = draw(
        scene(*(solid(s, (0.2 + 0.3 * i, i * 0.8 - 1.5, 0.8)) for i, s in enumerate(SHAPES))), pose
    )
    np.testing.assert_allclose(np.linalg.norm(picture.normals, axis=-1), 1.0, atol=1e-6)
    assert ((picture.normals * rays_through_pixels(renderer, pose)).sum(-1) < 1e-6).all()


def test_nearer_solid_hides_the_farther():
    near, far = solid("sphere", (0.0, 0.0, 1.2)), replace(solid("box", (1.2, 0.25, 1.2)), colour="blue")
    pose = world_from_camera(np.array([-1.8, 0.0, 1.2]), 0.0, 0.0)
    both, _ = draw(scene(near, far), pose)
    alone, _ = draw(scene(near), pose)
    np.testing.assert_array_equal(both.segmentation == 2, alone.segmentation == 2)
    assert (both.segmentation == 3).any()


def env(**options):
    return RoomEnv(task=False, factors={"motion": "rest"}, **options)


def test_camera_moves_as_actions_say():
    world = env()
    _, info = world.reset(seed=4)
    before = info["truth"]["world_from_camera"]
    expected = {
        "forward": before[:3, 2] * [1, 1, 0],
        "left": -before[:3, 0],
        "turn left": None,
        "look up": None,
    }
    for name, direction in expected.items():
        world.reset(seed=4)
        *_, info = world.step(ACTIONS.index(name))
        after = info["truth"]["world_from_camera"]
        if direction is not None:
            step = 0.15 * direction / np.linalg.norm(direction)
            np.testing.assert_allclose(after[:3, 3] - before[:3, 3], step, atol=1e-9)
            np.testing.assert_allclose(after[:3, :3], before[:3, :3], atol=1e-12)
        else:
            # The new optical axis leans by 7.5 degrees towards the old left, or up.
            np.testing.assert_allclose(after[:3, 3], before[:3, 3], atol=1e-9)
            side = -before[:3, 0] if name == "turn left" else -before[:3, 1]
            turn = np.arcsin(after[:3, 2] @ side)
            scale = np.cos(world.get_state().pitch_rad) if name == "turn left" else 1.0
            np.testing.assert_allclose(np.sin(turn), scale * np.sin(np.radians(7.5)), atol=1e-9)
    rotation = before[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def warp(source, target, K):
    """Where the pixels of the target frame are in the source frame: columns, rows, and depth there."""
    h, w = target["depth_m"].shape
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    pose = np.linalg.inv(source["world_from_camera"]) @ target["world_from_camera"]
    points = (rays * target["depth_m"][..., None].astype(float)) @ pose[:3, :3].T + pose[:3, 3]
    pixels = points @ K.T
    return pixels[..., 0] / pixels[..., 2], pixels[..., 1] / pixels[..., 2], points[..., 2]


def nearest(image, columns, rows):
    return image[np.floor(rows).astype(int), np.floor(columns).astype(int)]


@pytest.mark.parametrize("path", ["orbit", "dolly", "loop"])
def test_reprojection_agrees_with_the_segmentation(path):
    """Depth and poses carry a frame into another: there the same solid is seen wherever the point is not hidden."""
    world = env(size=(160, 160), camera_path=path)
    agree = total = 0
    for seed in range(3):
        _, info = world.reset(seed=seed)
        truths = [info["truth"]]
        for _ in range(12):
            *_, info = world.step(info["scripted_action"])
            truths.append(info["truth"])
        for i, j in ((0, 3), (2, 8), (12, 5)):
            source, target = truths[i], truths[j]
            columns, rows, depth = warp(source, target, source["K"])
            inside = (depth > 0.05) & (columns > 0) & (columns < 160) & (rows > 0) & (rows < 160)
            columns, rows = np.where(inside, columns, 0.5), np.where(inside, rows, 0.5)
            there = nearest(source["depth_m"], columns, rows)
            unoccluded = inside & (depth < there * 1.03)
            same = nearest(source["segmentation"], columns, rows) == target["segmentation"]
            agree += (same & unoccluded).sum()
            total += unoccluded.sum()
    assert total > 100_000
    assert agree / total > 0.995


def test_warped_colours_differ_by_resampling_alone():
    """Light and textures are fixed in the world: a point keeps its colour from every viewpoint.

    Compared at 512 pixels, where a nearest-pixel look-up moves a texture by little; a wrong pose, depth or pixel centre
    would not: shifting the look-up by two pixels trebles the error.
    """
    world = env(size=(512, 512), camera_path="dolly", antialias=False)
    frame, info = world.reset(seed=1)
    frames, truths = [frame], [info["truth"]]
    for _ in range(3):
        frame, *_, info = world.step(info["scripted_action"])
        frames.append(frame)
        truths.append(info["truth"])
    columns, rows, depth = warp(truths[0], truths[3], truths[0]["K"])
    inside = (depth > 0.05) & (columns > 0) & (columns < 508) & (rows > 0) & (rows < 508)
    columns, rows = np.where(inside, columns, 0.5), np.where(inside, rows, 0.5)
    visible = inside & (np.abs(depth - nearest(truths[0]["depth_m"], columns, rows)) < 0.01 * depth)
    assert visible.mean() > 0.5

    def error(shift):
        warped = nearest(frames[0], np.where(inside, columns + shift, 0.5), np.where(inside, rows + shift, 0.5))
        return np.abs(warped.astype(float) - frames[3])[visible].mean()

    assert error(0) < 2.0
    assert error(2) > 3 * error(0)


def linear(frame):
    encoded = frame / 255.0
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def test_textures_are_filtered_not_aliased():
    """A small picture equals the box-filtered large one, which has 8 x 8 true samples to the pixel."""
    world = scene(solid("box", (0.8, 0.9, 0.5)), solid("sphere", (1.0, -0.5, 0.35)))
    small, _ = draw(world, camera(), (64, 64))
    large, _ = draw(world, camera(), (512, 512))
    mean = linear(large.rgb).reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    error = linear(small.rgb) - mean
    # The small picture's Gaussian is wider than a box, so it is a little softer, never noisier.
    assert np.sqrt((error**2).mean()) < 0.02
    assert abs(error.mean()) < 1e-3
    crude = linear(large.rgb)[4::8, 4::8]
    assert np.sqrt((error**2).mean()) < 0.5 * np.sqrt(((crude - mean) ** 2).mean())


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_textures_have_detail_at_every_size(size):
    """Neighbouring pixels of the room differ: optical flow finds something to hold on to."""
    picture, _ = draw(scene(), camera(), (size, size))
    gray = picture.rgb.astype(float).mean(axis=-1)
    assert np.abs(np.diff(gray, axis=1)).mean() > 1.0


def test_light_is_lambert_and_shadows_fall_behind_solids():
    """With one solid between lamp and floor, floor points are dark exactly if the segment to the lamp meets it."""
    ball = solid("sphere", (0.5, 0.0, 1.0))
    pose = world_from_camera(np.array([-1.5, 0.0, 1.8]), 0.0, -0.5)
    with_ball, renderer = draw(scene(ball), pose, (96, 96), antialias=False)
    without, _ = draw(scene(), pose, (96, 96), antialias=False)
    room = with_ball.segmentation == 0
    points = hit_points(with_ball, renderer, pose)
    lamp = np.array([0.3, -0.4, 2.4])
    towards = lamp - points
    share = np.clip(((np.array(ball.position_m) - points) * towards).sum(-1) / (towards**2).sum(-1), 0, 1)
    distance = np.linalg.norm(points + share[..., None] * towards - ball.position_m, axis=-1)
    clear = room & (np.abs(distance - 0.35) > 1e-3)
    dark = (with_ball.rgb.sum(-1).astype(int) < without.rgb.sum(-1)) & clear
    np.testing.assert_array_equal(dark[clear], (distance < 0.35)[clear])
    assert dark.sum() > 50


@pytest.mark.parametrize("size", [(0, 64), (64, -1), (64.5, 64), (64, 64, 3)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(SceneError):
        Renderer(size)


def test_cameras_outside_the_room_are_refused():
    with pytest.raises(SceneError):
        draw(scene(), camera(position=(-2.6, 0.0, 1.2)))


@pytest.mark.parametrize("fov", [0.0, 180.0, float("nan")])
def test_impossible_fields_of_view_are_refused(fov):
    with pytest.raises(SceneError):
        Renderer((64, 64), fov)
