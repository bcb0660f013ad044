"""`worldsim train`: a learned world from a dataset, in one process or in those that `torchrun` starts."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldsim.cli.options import Many, flat
from worldsim.errors import ConfigError, UnknownNameError
from worldsim.training import TrainConfig, train
from worldsim.training.presets import preset


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train.

    Attributes:
        preset: Where the configuration starts from: bounce, room or tiny.
        data: Directory of the dataset, or of several with the same actions and frame rate; their frame sizes may
            differ.
        out: Run directory; its `checkpoint` folder is the learned world.
        second_phase: A checkpoint of the preset's shape to train on from, for long rollouts of one denoising step a
            frame.
        set: Changes of the configuration, as FIELD=VALUE with dots: --set optimiser.steps=500 model.width=192. The
            value is JSON, or else text. `--show` lists all fields.
        resume: Go on with the run in `out`.
        show: Print the resolved configuration and stop.
        progress: Show progress bars.
    """

    preset: tyro.conf.Positional[str]
    data: Many[Path]
    out: Path = Path("runs/world")
    second_phase: Path | None = None
    set: Annotated[Many[str], tyro.conf.arg(aliases=["-s"])] = ()
    resume: bool = False
    show: bool = False
    progress: bool = True


def run(options: Options) -> None:
    """Trains, and says where the checkpoint is."""
    directories = tuple(str(path) for path in flat(options.data))
    start = None if options.second_phase is None else str(options.second_phase)
    config = preset(options.preset, directories[0] if len(directories) == 1 else directories, start=start)
    config = changed(config, flat(options.set))
    if options.show:
        print(json.dumps(config.to_dict(), indent=1))
        return
    checkpoint = train(config, out=options.out, resume=options.resume, show_progress=options.progress)
    if int(os.environ.get("RANK", "0")) == 0:  # of the processes that torchrun started
        print(f"The learned world is in {checkpoint}; try: worldsim rollout {checkpoint} --frames 60")


def changed(config: TrainConfig, changes: Sequence[str]) -> TrainConfig:
    """The configuration with FIELD=VALUE changes.

    Raises:
        ConfigError: If a change is not of that form.
        UnknownNameError: If a field is unknown; the message suggests the nearest.
    """
    data = config.to_dict()
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(expected="FIELD=VALUE", got=change, remedy="For example optimiser.steps=500.")
        *path, leaf = name.split(".")
        place: Any = data
        for part in path:
            place = _entry(place, part, name)
        _entry(place, leaf, name)
        place[leaf] = _value(text)
    try:
        return TrainConfig.from_dict(data)
    except TypeError as error:
        raise ConfigError(expected="values of the fields' types", got=error, remedy="Look at --show.") from error


def _entry(place: Any, part: str, name: str) -> Any:  # noqa: ANN401 - plain data
    if not isinstance(place, dict) or part not in place:
        known = place if isinstance(place, dict) else ()
        raise UnknownNameError(kind=f"configuration field ({name})", name=part, known=known)
    return place[part]


def _value(text: str) -> Any:  # noqa: ANN401 - plain data
    try:
        return json.loads(text)
    except ValueError:
        return text
