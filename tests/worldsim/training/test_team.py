"""Several processes compute what one computes: the same losses, and states that any number of them resumes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from worldsim.config import ForecastConfig
from worldsim.errors import DatasetError, TrainingError
from worldsim.training import EvaluationConfig, OptimiserConfig, TrainConfig, train
from worldsim.training.ahead import Ahead
from worldsim.training.draws import generators_for, normal
from worldsim.training.team import Team

STEPS = 6
# torchrun's own agent, which forks instead of starting Python anew, with all that training imports sooner or later
# (optimisers and FSDP on first use): the imports are most of what a short run costs.
WORK = """
import json, sys
import torch._dynamo, torch.distributed.fsdp, torch.distributed.tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from worldsim.training import TrainConfig, train
from worldsim.training.learner import Learner
from worldsim.training.team import local

honest = Learner.update

def work(config, out):
    def update(self):
        held = sum(local(p).numel() for p in self.parameters) / sum(p.numel() for p in self.parameters)
        if self.folder.name == "dynamics":
            assert 0.3 < held < 0.7 if config.shard else held == 1.0, held  # of the weights, in this process
        return honest(self)

    Learner.update = update
    train(config, out=out, resume=True, show_progress=False)

for argument in sys.argv[1:]:
    config, out = json.loads(argument)
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id=out, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method="fork", max_restarts=0, monitor_interval=0.1,
    )
    elastic_launch(launch, work)(TrainConfig.from_dict(config), out)
"""


@pytest.fixture(scope="session")
def shared(session_config: TrainConfig) -> TrainConfig:
    """In float32, so that only the order of sums differs; some updates leave weights without gradients."""
    return replace(
        session_config,
        precision="float32",
        tokenizer_optimiser=replace(session_config.tokenizer_optimiser, steps=3, batch_size=4),
        forecast_optimiser=OptimiserConfig(steps=3, batch_size=4, ema=0.5),
        # A rate that does not fall, so that a shorter run begins as a longer one does.
        optimiser=replace(session_config.optimiser, steps=STEPS, batch_size=4, ema=0.5, decay=0.0),
        model=replace(session_config.model, source="forecast", forecast=ForecastConfig(frames=2, width=8, depth=1)),
        dynamics=replace(session_config.dynamics, bidirectional=0.3, feedback=0.5, events=0.5),
        evaluation=EvaluationConfig(clips=1, horizon=2, videos=0),
        log_every=1,
        evaluate_every=STEPS - 2,
        tensorboard=False,
    )


def losses(run: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(x["phase"], x["step"]): x["loss"] for x in lines if "loss" in x}


@pytest.fixture(scope="session")
def by_two(shared: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The runs of two processes, as `torchrun --nproc-per-node 2` starts them, without and with shared weights."""
    folder = tmp_path_factory.mktemp("two")
    runs = {shard: folder / f"shard_{shard}" for shard in (False, True)}
    brief = replace(shared, optimiser=replace(shared.optimiser, steps=STEPS - 2))
    jobs = [json.dumps((replace(brief, shard=shard).to_dict(), str(out))) for shard, out in runs.items()]
    script = folder / "work.py"
    script.write_text(WORK)
    finished = subprocess.run(
        [sys.executable, str(script), *jobs],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return runs


@pytest.fixture(scope="session")
def alone(shared: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(shared, out=out, show_progress=False)
    return out


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_compute_what_one_computes(
    shared: TrainConfig, alone: Path, by_two: dict[bool, Path], shard: bool
) -> None:
    out = by_two[shard]
    expected, early = losses(alone), losses(out)
    assert {phase for phase, _ in expected} == {"tokenizer", "forecast", "dynamics"}
    assert early.keys() == {key for key in expected if key <= ("dynamics", STEPS - 2) or key[0] != "dynamics"}
    # One process goes on from the gathered state, computing its share of each batch in two parts.
    train(replace(shared, optimiser=replace(shared.optimiser, accumulate=2)), out=out, resume=True, show_progress=False)
    found = losses(out)
    assert found == pytest.approx(expected, rel=1e-4)
    for folder in ("checkpoint", "checkpoint_best"):
        one, two = (load_file(run / folder / "model.safetensors") for run in (alone, out))
        # Single weights part further where a gradient is all rounding: AdamW divides by its size, and Muon, which
        # orthogonalises in bfloat16, lifts small singular values.
        apart = sum(float((two[n] - w).square().sum()) for n, w in one.items())
        assert apart < 1e-4**2 * sum(float(w.square().sum()) for w in one.values())


def test_processes_take_disjoint_rows_of_the_batch() -> None:
    config = OptimiserConfig(steps=1, batch_size=12, accumulate=2)
    members = [Team(rank=rank, size=3, device=torch.device("cpu")) for rank in range(3)]
    rows = [row for member in members for part in member.parts(config) for row in part]
    assert rows == list(range(12))
    with pytest.raises(TrainingError, match="multiple of 6"):
        members[0].parts(replace(config, batch_size=16))


@given(
    st.integers(0, 3),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_batches_prepared_ahead_are_those_asked_for(threads: int, parts: int, asked: list[tuple[int, int]]) -> None:
    rows = [range(4 * i, 4 * i + 4) for i in range(parts)]
    with Ahead(lambda step, part: (step, part), rows, threads) as ahead:
        for step, part in [*asked, *((s, i) for s in range(4) for i in range(parts))]:
            wanted = rows[part % parts]
            assert ahead(step, wanted) == (step, wanted)


def test_an_error_while_preparing_reaches_the_one_who_asks() -> None:
    def broken(step: int, rows: range) -> int:
        raise DatasetError(expected="rows", got=step, remedy="Look.")

    with Ahead(broken, [range(2)], 1) as ahead, pytest.raises(DatasetError, match="got 3"):
        ahead(3, range(2))


def test_a_sample_is_noised_alike_wherever_it_is_computed() -> None:
    whole = normal((6, 3, 2), generators_for(1, "dynamics", 4, range(6)))
    torch.testing.assert_close(
        whole[2:5], normal((3, 3, 2), generators_for(1, "dynamics", 4, range(2, 5))), rtol=0, atol=0
    )
    other = normal((6, 3, 2), generators_for(1, "dynamics", 5, range(6)))
    assert not (whole == other).any()
    assert len(torch.unique(whole)) == whole.numel()
