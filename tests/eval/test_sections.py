"""Ready-made sections: they show what was measured, and nothing where nothing was."""

import gymnasium as gym
import numpy as np
import pytest
from worlds import BLUE, RED, Ball, draw, simulate

import envs  # noqa: F401 - registers the worlds
from eval import Clip, score
from eval.geometry.sfm import is_available
from eval.physics.tracks import track
from eval.pictures import SERIES_RGB, tracks_picture
from eval.report import Facts, Picture, Plot, Scores, Videos, write_report
from eval.sections import breaks, clip_section, cloud_block, matches_block, tracks_block, verdicts


@pytest.fixture(scope="module")
def flight():
    balls = [Ball(12, 14, 0.9, 0.2, r=5, colour=RED), Ball(44, 20, -0.7, 0.1, r=6, colour=BLUE)]
    positions, angles = simulate(balls, 24, gravity=(0, 0.06))
    frames, _ = draw(balls, positions, angles)
    return Clip(frames=frames, fps=10.0, name="flight"), positions


@pytest.fixture(scope="module")
def walk():
    """Ten frames of a room from a camera that strafes, at 192 px, of which nothing else is told."""
    env = gym.make("envs:Room-v0", size=(192, 192), camera_path="orbit")
    frame, info = env.reset(seed=5)
    frames = [frame]
    while len(frames) < 10:
        frame, _, _, _, info = env.step(info["scripted_action"])
        frames.append(frame)
    return Clip(frames=np.stack(frames), fps=10.0, name="walk")


def test_tracks_are_drawn_where_the_objects_are(flight):
    clip, positions = flight
    tracks = track(clip)
    picture = tracks_picture(clip.frames, tracks, side_px=320)  # five times as large
    for k in range(len(tracks)):
        own = int(np.argmin(np.linalg.norm(positions[-1] - tracks.centroid_px[-1, k], axis=1)))
        x, y = (5 * positions[-1, own]).round().astype(int)
        assert picture[y, x].tolist() == list(SERIES_RGB[k])  # the disc at the end of the path
    (block,) = tracks_block(clip, score(clip, ["permanence"]))
    assert block.caption.startswith("2 objects tracked from pixels alone")


def test_section_of_a_broken_flight_names_the_frame(flight, tmp_path):
    clip, _ = flight
    frames = clip.frames.copy()
    frames[14:] = frames[14:, :, ::-1]  # the scene is mirrored in mid-flight
    broken = Clip(frames=frames, fps=10.0, name="broken")
    report = score(broken, ["continuity", "permanence"])
    section = clip_section(broken, report)
    videos = section.blocks[0]
    assert isinstance(videos, Videos)
    assert set(videos.marked["video"]) == set(breaks(report))
    assert any(13 <= i <= 15 for i in breaks(report))
    assert {type(b) for b in section.blocks} == {Videos, Facts, Scores, Plot, Picture}
    assert write_report(tmp_path / "r.html", title="t", lead="l", sections=[section], provenance={}).exists()


def test_verdicts_say_what_was_tested_and_why_the_rest_was_not(flight):
    clip, _ = flight
    still = Clip(frames=np.repeat(clip.frames[:1], 24, axis=0), fps=10.0, name="still")
    said = verdicts(score(still, ["inertia", "permanence", "flicker", "psnr"]))
    assert list(said) == ["physics", "quality", "fidelity"]
    assert said["physics"].startswith("Nothing could be tested. ")
    assert "for want of" in said["fidelity"]
    frames = clip.frames.copy()
    frames[14:] = frames[14:, :, ::-1]
    broken = verdicts(score(Clip(frames=frames, fps=10.0), ["continuity", "tsed"]))
    assert "Broken: continuity at frames 1" in broken["physics"]
    assert broken["geometry"].startswith("Nothing could be tested. 1 for want of")


def test_nothing_is_drawn_of_what_was_not_measured(flight):
    clip, _ = flight
    report = score(clip, ["psnr", "epipolar_magsac", "sfm"])
    assert all(s.value is None for s in report.values())
    assert [*tracks_block(clip, report), *matches_block(clip, report), *cloud_block(clip, report)] == []
    assert breaks(report) == ()


def test_matches_and_model_of_a_walk_are_shown(walk):
    report = score(walk, ["epipolar_magsac", *(["sfm"] if is_available() else [])])
    assert report["epipolar_magsac"].value is not None
    (lines,) = matches_block(walk, report)
    assert lines.image.shape == (384, 2 * 384 + 4, 3)
    assert "matches lie within a pixel of their epipolar lines" in lines.caption
    if is_available():
        assert report["sfm"].value
        (cloud,) = cloud_block(walk, report)
        assert f"{report['sfm'].details['points']} points" in cloud.caption
        assert f"{report['sfm'].details['frames_registered']} of 10 cameras" in cloud.caption
