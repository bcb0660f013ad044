"""The command line: `worldsim COMMAND`.

Each command is a module of this package with a frozen dataclass `Options` and a function `run(options)`; the table
below names them, so that `worldsim --help` imports none.
"""

import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from worldsim import __version__

# Command: (module, what it does).
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("worldsim.cli.demo", "From a true world to a graded dream: roll out, grade, write a report."),
    "record": ("worldsim.cli.record", "Record episodes of a Gymnasium environment into a dataset."),
    "import-videos": ("worldsim.cli.import_videos", "Turn a folder of videos into a dataset."),
    "train": ("worldsim.cli.train", "Train a learned world on a dataset."),
    "rollout": ("worldsim.cli.rollout", "Roll a learned world out from a frame, actions and text."),
    "generate": ("worldsim.cli.generate", "Make a video from text."),
    "extend": ("worldsim.cli.extend", "Continue a video, forwards or backwards."),
    "connect": ("worldsim.cli.connect", "Fill in between two videos."),
    "edit": ("worldsim.cli.edit", "Change a video by text."),
    "score": ("worldsim.cli.score", "Grade a video for physics, 3D coherence, fidelity and quality."),
    "validate": ("worldsim.cli.validate", "Measure the evaluators' own accuracy."),
    "import": ("worldsim.cli.import_", "Convert other projects' checkpoints."),
    "card": ("worldsim.cli.card", "Measure a learned world on fresh episodes, and write its card."),
    "info": ("worldsim.cli.info", "Describe a dataset, a checkpoint or a video."),
}

USER_ERROR = 2
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for a mistake of the user, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in {"-h", "--help", "help"}:
        print(usage())
        return 0
    if name in {"-V", "--version"}:
        print(f"worldsim {__version__}")
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return _fail(f"expected a command among {', '.join(COMMANDS)}; got {name!r}.{hint}")
    return _run(name, arguments[1:])


def usage() -> str:
    """The text of `worldsim --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: worldsim COMMAND [options]",
            "",
            "Learned world simulators you can step, and evaluators that say how far to trust them.",
            "",
            "commands:",
            *lines,
            "",
            "`worldsim COMMAND --help` tells a command's options.",
        ]
    )


def _run(name: str, arguments: list[str]) -> int:
    import tyro  # noqa: PLC0415 - `worldsim --help` needs no parser

    module, text = COMMANDS[name]
    try:
        command: Any = import_module(module)
        options = tyro.cli(command.Options, args=arguments, prog=f"worldsim {name}", description=text)
        command.run(options)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone
        return 0
    except Exception as error:
        if not isinstance(error, _known_errors()):
            raise
        return _fail(str(error))
    return 0


def _known_errors() -> tuple[type[Exception], ...]:
    """The base errors of the packages that are loaded; one that is not loaded cannot have raised."""
    names = {"worldsim.errors": "WorldsimError", "envs.errors": "WorldError", "eval.errors": "EvalError"}
    return tuple(getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules)


def _fail(message: str, code: int = USER_ERROR) -> int:
    print(f"worldsim: {message}", file=sys.stderr)
    return code
