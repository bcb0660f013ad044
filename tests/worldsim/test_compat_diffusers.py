"""A Diffusers pipeline on disk, tiny and random, as a source of videos: built here, nothing is downloaded."""

import json
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from eval import Clip, score
from worldsim.cli import main
from worldsim.compat.diffusers import DiffusersVideo, load_diffusers
from worldsim.errors import CheckpointError, ConfigError, FramesError, TextError
from worldsim.video import read_video

pytestmark = pytest.mark.skipif(find_spec("diffusers") is None, reason="needs the extra diffusers")
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "ball", "box", "falls"]
SMALL = {"num_frames": 9, "frame_size": (32, 48)}


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """WanPipeline: text encoder, causal video autoencoder, transformer, scheduler; 0.2 MB."""
    # Imported here: every test process collects this file, one runs it.
    diffusers, transformers, tokenizers = map(import_module, ("diffusers", "transformers", "tokenizers"))
    torch.manual_seed(0)
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    pipeline = diffusers.WanPipeline(
        tokenizer=transformers.PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
        ),
        text_encoder=transformers.UMT5EncoderModel(
            transformers.UMT5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        ),
        vae=diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        transformer=diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, text_dim=16, ffn_dim=32, num_layers=1, rope_max_seq_len=32
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
    )
    path = tmp_path_factory.mktemp("diffusers") / "wan"
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def source(wan):
    return load_diffusers(wan, steps=2)


def test_it_equals_the_pipeline_called_by_hand(wan, source):
    frames, fps = source("a red ball falls", seed=3, **SMALL)
    assert frames.shape == (9, 32, 48, 3)
    assert frames.dtype == np.uint8
    assert fps == 16.0
    direct = import_module("diffusers").WanPipeline.from_pretrained(wan, local_files_only=True)
    made = direct(
        prompt="a red ball falls",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames
    np.testing.assert_array_equal(frames, np.round(made[0] * 255.0))


def test_the_seed_and_the_text_decide_the_frames(source):
    one = source("a red ball falls", seed=3, **SMALL).frames
    np.testing.assert_array_equal(source("a red ball falls", seed=3, **SMALL).frames, one)
    assert not np.array_equal(source("a red ball falls", seed=4, **SMALL).frames, one)
    assert not np.array_equal(source("a blue box", seed=3, **SMALL).frames, one)


def test_its_videos_are_graded_like_any_other(source):
    frames, fps = source("a red ball falls", **SMALL)
    report = score(Clip(frames=frames, fps=fps, text="a red ball falls"), suite="quality")
    assert any(found.value is not None for found in report.values())


def test_the_command_line_generates_and_grades(wan, tmp_path, capsys):
    out = tmp_path / "clip.npz"
    asked = ["generate", "a red ball", "--diffusers", str(wan), "--frames", "5", "--size", "32", "32", "--steps", "1"]
    assert main([*asked, "--fps", "8", "--out", str(out)]) == 0
    frames, fps = read_video(out)
    assert (frames.shape, fps) == ((5, 32, 32, 3), 8.0)
    assert main(["score", str(out), "--suite", "quality", "--out", str(tmp_path / "scored")]) == 0
    assert (tmp_path / "scored" / "report.html").exists()
    assert main([*asked, "--actions", "1", "--out", str(tmp_path / "other.npz")]) == 2
    assert "text only" in capsys.readouterr().err
    assert not (tmp_path / "other.npz").exists()


def test_arguments_that_do_not_suit_are_refused(wan, source):
    with pytest.raises(ConfigError, match="divisible by 16"):
        source("a ball", num_frames=5, frame_size=(30, 32))
    with pytest.raises(FramesError, match="Ask for 5"):  # Wan gives 1 + a multiple of 4
        source("a ball", num_frames=6, frame_size=(32, 32))
    with pytest.raises(TextError, match="list"):
        source(["a ball"])
    with pytest.raises(ConfigError, match="frames per second"):
        load_diffusers(wan, fps=0.0)


def _index(path, **content):
    path.mkdir()
    (path / "model_index.json").write_text(json.dumps(content))
    return path


def test_what_is_no_text_to_video_pipeline_is_refused_before_its_weights_are_read(tmp_path):
    for name, why in (
        ("StableDiffusionPipeline", "from text alone"),
        ("StableVideoDiffusionPipeline", "image"),
        ("WanImageToVideoPipeline", "image"),
        ("NoSuchPipeline", "NoSuchPipeline"),
    ):
        with pytest.raises(ConfigError, match=why):
            load_diffusers(_index(tmp_path / name, _class_name=name))


def test_the_frame_rate_is_the_pipelines_own_or_asked_for(tmp_path):
    with pytest.raises(ConfigError, match="Pass fps"):
        load_diffusers(_index(tmp_path / "unknown", _class_name="AnimateDiffPipeline"))

    class Asks:
        def __call__(self, prompt, *, generator, output_type, num_frames=5, frame_rate=25):
            self.rate = frame_rate
            return type("Output", (), {"frames": np.zeros((1, num_frames, 8, 8, 3))})

    pipeline = Asks()
    assert DiffusersVideo(pipeline=pipeline, fps=30.0)("a ball").fps == 30.0
    assert pipeline.rate == 30.0
    with pytest.raises(ConfigError, match="num_inference_steps"):
        DiffusersVideo(pipeline=pipeline, fps=30.0, steps=3)("a ball")


def test_bad_sources_are_named(wan, tmp_path):
    with pytest.raises(CheckpointError, match="hub id"):
        load_diffusers(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="whole Diffusers pipeline"):
        load_diffusers(tmp_path / "empty")
    broken = _index(tmp_path / "broken", **json.loads((wan / "model_index.json").read_text()))
    with pytest.raises(CheckpointError, match="whole Diffusers pipeline"):
        load_diffusers(broken)


def test_pixels_that_are_not_finite_are_refused(wan):
    source = load_diffusers(wan, steps=1)
    with torch.no_grad():
        next(source.pipeline.vae.decoder.parameters()).fill_(torch.nan)
    with pytest.raises(FramesError, match="finite"):
        source("a ball", num_frames=5, frame_size=(32, 32))


def test_without_the_package_the_error_says_what_to_install(wan, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"worldsim\[diffusers\]"):
        load_diffusers(wan)
