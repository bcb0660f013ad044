"""Small trainings that tell what helps: a scaling study, and ablations of the objective.

python benchmarks/study.py scaling   --data DIR --start CHECKPOINT --out DIR [--passes 2]
python benchmarks/study.py ablations --data DIR --start CHECKPOINT --out DIR [--updates 500]

Every run keeps the tokenizer of CHECKPOINT and trains a transformer of its own, with the same seed, data order and
held-out clips. A run that is finished is not run again, so the command can be interrupted. `scaling` fits
L(N, D) = E + A / N^a + B / D^b (Hoffmann et al. 2022) to the held-out error of one step of denoising from pure noise,
where N counts parameters of the blocks and D frames, and draws it.
"""

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy.optimize import least_squares

from worldsim.training import TrainConfig, read_metrics, train
from worldsim.training.config import EvaluationConfig
from worldsim.training.presets import preset
from worldsim.transformer import VideoDiT

SIZES = {"64 x 3": (64, 3, 2), "96 x 4": (96, 4, 3), "128 x 6": (128, 6, 4)}  # width x depth, heads
EPISODES = (40, 120, 360)
MIDDLE = "96 x 4"
ABLATIONS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "feedback in every fourth update": {"feedback": 0.25},
    "feedback through up to 3 passes": {"feedback": 0.25, "feedback_depth": 3},
    "feedback in every second update": {"feedback": 0.5, "feedback_depth": 2},
    "no noise on the context": {"context_noise": 0.0},
    "twice the noise on the context": {"context_noise": 0.4},
    "no extra weight on pure noise": {"pure_noise": 0.0},
    "levels centred at one half": {"level_mean": 0.0, "pure_noise": 0.0},
    "a tenth of the updates bidirectional": {"bidirectional": 0.1},
    "event-rich windows": {"events": 0.5},
    "a fifth of the updates on first frames": {"first_frames": 0.2},
    "texts say no summary of first frames": {"first_frames": 0.2, "summary_weight": 0.0},
}
MODELS: dict[str, dict[str, Any]] = {
    "paths from the frame before, no forecast": {"source": "previous", "forecast": None},
}
COLUMNS = ("held_x_error", "held_psnr_1_db", "held_psnr_4_db", "held_psnr_16_db")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where runs are and what they share.

    Attributes:
        base: Their configuration.
        out: Folder of the runs.
    """

    base: TrainConfig
    out: Path

    def run(self, name: str, config: TrainConfig) -> dict[str, float]:
        """Trains unless that is done, and returns the last held-out numbers."""
        folder = self.out / name.replace(" ", "_")
        if not (folder / "checkpoint").exists():
            self._lend_latents(folder)
            train(config, out=folder, resume=(folder / "config.json").exists(), show_progress=False)
            self._keep_latents(folder)
        return [line for line in read_metrics(folder) if COLUMNS[0] in line][-1]

    def of_size(self, size: str) -> TrainConfig:
        """The base configuration with another transformer."""
        width, depth, heads = SIZES[size]
        return replace(self.base, model=replace(self.base.model, width=width, depth=depth, heads=heads))

    def _keep_latents(self, folder: Path) -> None:
        for file in folder.glob("latents.*"):
            if not (self.out / file.name).exists():
                os.link(file, self.out / file.name)

    def _lend_latents(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for file in self.out.glob("latents.*"):
            if not (folder / file.name).exists():
                os.link(file, folder / file.name)


def main() -> None:
    """Runs a study and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("scaling", "ablations"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--start", required=True, help="checkpoint whose tokenizer is used")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passes", type=float, default=2.0, help="scaling: times that each frame is seen")
    parser.add_argument("--updates", type=int, default=500, help="ablations: updates of each run")
    parser.add_argument("--picture", type=Path, default=Path("scaling.png"))
    options = parser.parse_args()
    base = replace(
        preset("bounce", options.data),
        start=options.start,
        start_with="tokenizer",
        threads=1,
        evaluate_every=10**9,
        evaluation=EvaluationConfig(clips=64, videos=0),
        tensorboard=False,
    )
    study = Study(base=base, out=options.out)
    if options.study == "scaling":
        scaling(study, options.passes, options.picture)
    else:
        ablations(study, options.updates)


def ablations(study: Study, updates: int) -> None:
    """One change of the objective or of the model at a time, in the middle size."""
    config = study.of_size(MIDDLE)
    config = replace(config, optimiser=replace(config.optimiser, steps=updates))
    print(f"{updates} updates, {MIDDLE}\n" + row("objective", *COLUMNS))
    changed = {name: replace(config, dynamics=replace(config.dynamics, **c)) for name, c in ABLATIONS.items()}
    changed |= {name: replace(config, model=replace(config.model, **c)) for name, c in MODELS.items()}
    for name, one in changed.items():
        found = study.run(name, one)
        print(row(name, *(f"{found[c]:.4f}" if "error" in c else f"{found[c]:.2f}" for c in COLUMNS)), flush=True)


def scaling(study: Study, passes: float, picture: Path) -> None:
    """Every size with every amount of data, a fit, and a picture."""
    window = study.base.optimiser.batch_size * study.base.dynamics.length
    points: list[tuple[float, float, float]] = []
    print(row("size", "parameters", "frames", "updates", *COLUMNS))
    for size in SIZES:
        config = study.of_size(size)
        parameters = sum(p.numel() for p in VideoDiT(replace(config.model, action_dim=5)).blocks.parameters())
        for episodes in EPISODES:
            frames = episodes * 201
            updates = round(passes * frames / window)
            optimiser = replace(config.optimiser, steps=updates, warmup=min(100, updates // 4))
            found = study.run(f"{size} {episodes}", replace(config, episodes=episodes, optimiser=optimiser))
            points.append((parameters, frames, found[COLUMNS[0]]))
            values = (f"{found[c]:.4f}" if "error" in c else f"{found[c]:.2f}" for c in COLUMNS)
            print(row(size, str(parameters), str(frames), str(updates), *values), flush=True)
    fit = fitted(np.array(points))
    print("L = {E:.3f} + {A:.3g} / N^{a:.2f} + {B:.3g} / D^{b:.2f}; worst relative residual {worst:.1%}".format(**fit))
    draw(np.array(points), fit, picture)


def fitted(points: np.ndarray) -> dict[str, float]:
    """The five constants of the law, by least squares of the logarithm from several beginnings."""
    n, d, loss = points.T

    def law(x: np.ndarray) -> np.ndarray:
        return np.exp(x[0]) + np.exp(x[1] - x[2] * np.log(n)) + np.exp(x[3] - x[4] * np.log(d))

    best = min(
        (
            least_squares(
                lambda x: np.log(law(x)) - np.log(loss),
                [math.log(e * loss.min()), a * math.log(n.mean()) - 2.0, a, b * math.log(d.mean()) - 2.0, b],
                bounds=([-12.0, -20.0, 0.0, -20.0, 0.0], [0.0, 30.0, 2.0, 30.0, 2.0]),
            )
            for e in (0.1, 0.5, 0.9)
            for a in (0.2, 0.5)
            for b in (0.2, 0.5)
        ),
        key=lambda found: found.cost,
    )
    e, a0, a, b0, b = best.x
    worst = float(np.abs(law(best.x) / loss - 1.0).max())
    return {"E": math.exp(e), "A": math.exp(a0), "a": a, "B": math.exp(b0), "b": b, "worst": worst}


def draw(points: np.ndarray, fit: Mapping[str, float], path: Path) -> None:
    """The points and the fitted law over the amount of data, a line for each size."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    d = np.geomspace(points[:, 1].min() / 1.5, points[:, 1].max() * 1.5, 60)
    for i, n in enumerate(np.unique(points[:, 0])):
        chosen = points[points[:, 0] == n]
        axes.plot(chosen[:, 1], chosen[:, 2], "o", color=f"C{i}", label=f"{n / 1e6:.2f} M parameters")
        axes.plot(d, fit["E"] + fit["A"] / n ** fit["a"] + fit["B"] / d ** fit["b"], color=f"C{i}", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="distinct frames", ylabel="held-out error of one denoising step")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def row(first: str, *rest: str) -> str:
    """A line of a table."""
    return f"{first:<34}" + "".join(f"{x:>17}" for x in rest)


if __name__ == "__main__":
    main()
