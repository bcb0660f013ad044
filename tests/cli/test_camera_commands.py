"""Commands that run a learned world along a path of the camera, given as motions or as poses."""

import numpy as np
import pytest
import torch
from conftest import save_world

from worldsim.camera import camera_poses
from worldsim.checkpoint import load_checkpoint, save_checkpoint
from worldsim.cli import main
from worldsim.video import read_video, write_video


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = save_world(tmp_path_factory.mktemp("worlds") / "camera", actions=3, camera=True)
    checkpoint = load_checkpoint(path)  # random weights: those of a new model ignore everything
    generator = torch.Generator().manual_seed(0)
    for parameter in checkpoint.model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return save_checkpoint(checkpoint, path, card="A test.")


def test_every_command_follows_motions_and_poses_alike(world, tmp_path, capsys):
    rng = np.random.default_rng(0)
    clip, out, motions, poses = (tmp_path / n for n in ("clip.npz", "out.npz", "motions.npy", "poses.npy"))
    write_video(clip, rng.integers(0, 255, (4, 32, 32, 3), np.uint8), 10.0)
    motion = rng.normal(0.0, 0.1, (3, 6))
    np.save(motions, motion)
    np.save(poses, camera_poses(motion))
    commands = (
        (["rollout", str(world), "--actions", "none", "--text", "a ball", "--first-steps", "2"], 4),
        (["generate", "a ball", "--frames", "4", "--checkpoint", str(world), "--first-steps", "2"], 4),
        (["extend", str(clip), "--frames", "3", "--checkpoint", str(world)], 7),
        (["extend", str(clip), "--frames", "3", "--backward", "--checkpoint", str(world), "--steps", "1"], 7),
        (["connect", str(clip), str(clip), "--frames", "2", "--checkpoint", str(world), "--steps", "1"], 10),
        (["edit", str(clip), "--text", "a ball", "--checkpoint", str(world), "--steps", "1"], 4),
    )
    for command, count in commands:
        made = []
        for camera in (["--camera", str(motions)], ["--camera", str(poses)]):
            assert main([*command, *camera, "--out", str(out)]) == 0, command
            made.append(read_video(out)[0])
            out.unlink()
        assert len(made[0]) == count
        # Poses give the motions back to rounding, which may move a pixel across the border between two levels.
        np.testing.assert_allclose(made[0].astype(int), made[1], atol=1)
    capsys.readouterr()
    assert main(["info", str(world)]) == 0
    assert "(0.1, 0.1, 0.1) rad" in capsys.readouterr().out


def test_a_wrong_path_of_the_camera_exits_with_two(world, tiny_bounce, tmp_path, capsys):
    np.save(tmp_path / "motions.npy", np.zeros((3, 6)))
    given = ["--camera", str(tmp_path / "motions.npy"), "--out", str(tmp_path / "out.npz")]
    for command, hint in (
        (["rollout", str(tiny_bounce), *given], "takes none"),
        (["rollout", str(world), "--frames", "4", *given], "as many of each"),
        (["rollout", str(world), "--camera", str(tmp_path / "none.npy")], ".npy"),
    ):
        assert main(command) == 2
        assert hint in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
