"""Training of the tokenizer on single frames (or groups, with temporal stride 4)."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from worldsim.tokenizer import ConvTokenizer
from worldsim.training.ahead import Ahead
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus, Mixture
from worldsim.training.data import FrameSource
from worldsim.training.draws import Source, divided, normal
from worldsim.training.learner import Learner
from worldsim.training.phase import Part, Phase, run_phase
from worldsim.training.run import Run
from worldsim.training.team import Team

NOISE = 0.05  # on the bounded bottleneck, so that the decoder forgives small errors of the transformer


def train_tokenizer(
    config: TrainConfig, corpus: Corpus, run: Run, members: Team, *, show_progress: bool
) -> ConvTokenizer:
    """Trains a tokenizer on frames of the corpus, and measures its standardisation.

    Args:
        config: The run.
        corpus: Its data.
        run: Where states and metrics go.
        members: The processes that train together.
        show_progress: Whether to draw a progress bar.
    """
    device = members.device
    torch.manual_seed(config.seed)  # initial weights
    tokenizer = ConvTokenizer(config.tokenizer).to(device)
    loss_of = torch.compile(tokenizer_loss) if config.compile else tokenizer_loss
    learner = Learner(tokenizer, loss_of, config.tokenizer_optimiser, run.path / "tokenizer", members)
    restored = learner.restore()
    if restored:
        tokenizer.mean.copy_(restored["mean"])
        tokenizer.std.copy_(restored["std"])
    sources = [FrameSource(dataset, config.of_dataset(i)) for i, dataset in enumerate(corpus)]
    mixture = Mixture(sources, config.tokenizer_optimiser.batch_size, config.seed)
    held_out = [source.held_out(device) for source in sources]

    def loss(step: int, part: Part) -> tuple[Tensor, dict[str, Tensor], int]:
        groups = ahead(step, part.rows)
        return *learner.objective(groups, part.generators), sum(x.shape[0] * x.shape[1] for x in groups)

    phase = Phase(
        name="tokenizer",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: reconstruction_psnr(network, held_out),
        describe=mixture.describe,
        extra_state=lambda: {"mean": tokenizer.mean.cpu(), "std": tokenizer.std.cpu()},
    )
    parts = members.parts(config.tokenizer_optimiser)
    with Ahead(lambda step, rows: mixture.batch(step, device, rows), parts, config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    learner.finish()
    measure(tokenizer, (mixture.batch(i, device) for i in range(32)))
    return tokenizer.eval()


def tokenizer_loss(
    tokenizer: ConvTokenizer, groups: Sequence[Tensor], generator: Source
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared and absolute error of reconstruction through a noisy bottleneck.

    Args:
        tokenizer: The network.
        groups: (B, T, 3, H, W) in [-1, 1] each; sizes may differ from group to group, and every window counts alike.
        generator: Source of the bottleneck's noise.
    """
    losses, squares = [], []
    total = sum(len(frames) for frames in groups)
    for frames, own in zip(groups, divided(generator, [len(frames) for frames in groups]), strict=True):
        raw = tokenizer.bottleneck(frames)
        raw = raw + NOISE * normal(raw.shape, own).to(raw)
        out = tokenizer.from_bottleneck(raw).float()
        error = out - tokenizer.group(frames)
        squared, share = error.square().mean(), len(frames) / total
        losses.append(share * (squared + 0.1 * error.abs().mean()))
        squares.append(share * squared.detach())
    return torch.stack(losses).sum(), {"mse": torch.stack(squares).sum()}


@torch.no_grad()
def reconstruction_psnr(tokenizer: ConvTokenizer, groups: Sequence[Tensor]) -> Mapping[str, float]:
    """Peak signal-to-noise ratio in dB of clamped reconstructions, mean over windows: the ceiling of every rollout."""
    found = []
    for frames in groups:
        out = tokenizer.decode(tokenizer.encode(frames), starts=True).clamp(-1, 1)
        mse = (out - frames).square().mean(dim=(1, 2, 3, 4)) / 4.0
        found.append(-10.0 * torch.log10(mse.clamp(min=1e-10)))
    return {"psnr_db": float(torch.cat(found).mean())}


@torch.no_grad()
def measure(tokenizer: ConvTokenizer, batches: Iterable[Sequence[Tensor]]) -> None:
    """Sets the tokenizer's standardisation from batches of frames of any sizes."""
    cells = [tokenizer.bottleneck(frames).movedim(2, -1).flatten(0, -2) for groups in batches for frames in groups]
    tokenizer.measure(torch.cat(cells)[:, None, :, None, None])
