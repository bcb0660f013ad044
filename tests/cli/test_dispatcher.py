import importlib.util
import resource
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from envs.errors import WorldError
from eval.errors import EvalError
from worldsim import cli
from worldsim.errors import ConfigError

WORLDSIM = (sys.executable, "-c", "import sys; from worldsim.cli import main; sys.exit(main())")


def run(*arguments, **options):
    return subprocess.run([*WORLDSIM, *arguments], check=False, capture_output=True, text=True, **options)


SOURCE = """
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    \"\"\"What to try.

    Attributes:
        number: How often.
    \"\"\"

    number: int = 3


def run(options):
    action(options)
"""


@pytest.fixture
def command(monkeypatch, tmp_path):
    """A command `try` that does what its `action` says."""
    (tmp_path / "worldsim_try.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "try", ("worldsim_try", "Tries."))
    yield import_module("worldsim_try")
    del sys.modules["worldsim_try"]


def test_help_lists_every_command_and_imports_none():
    code = "import sys; from worldsim.cli import main; main(['--help']); print('MODULES', *sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    text, _, modules = shown.partition("MODULES")
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    assert listed == list(cli.COMMANDS)
    assert not {"torch", "tyro", "zarr", "cv2", "scipy"} & set(modules.split())


def test_help_takes_less_than_400_ms():
    # Processor time: the wall clock would measure what else the machine is doing.
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run("--help").returncode == 0
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < 0.4


def test_no_arguments_show_the_help():
    assert "commands:" in run().stdout
    assert run("--version").stdout.startswith("worldsim 0.")


def test_unknown_command_suggests_the_nearest():
    result = run("recrod")
    assert result.returncode == 2
    assert "Did you mean 'record'?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_listed_command_exists_and_follows_the_form(name):
    module = import_module(cli.COMMANDS[name][0])
    assert is_dataclass(module.Options)
    assert module.Options.__dataclass_params__.frozen
    assert callable(module.run)
    documented = "".join(base.__doc__ or "" for base in module.Options.__mro__)
    for option in fields(module.Options):
        assert f"{option.name}:" in documented, f"{name}: {option.name} is not documented"


def test_every_command_module_is_listed():
    listed = {module for module, _ in cli.COMMANDS.values()}
    folder = importlib.util.find_spec("worldsim.cli").submodule_search_locations[0]
    found = {f"worldsim.cli.{p.stem}" for p in Path(folder).glob("*.py")}
    commands = {name for name in found if hasattr(import_module(name), "Options")}
    assert commands <= listed


def test_options_are_parsed(command):
    seen = []
    command.action = lambda options: seen.append(options.number)
    assert cli.main(["try", "--number", "7"]) == 0
    assert cli.main(["try"]) == 0
    assert seen == [7, 3]


@pytest.mark.parametrize("error", [ConfigError, WorldError, EvalError])
def test_named_errors_are_told_and_exit_with_2(error, command, capsys):
    def action(_):
        raise error(expected="a thing", got="another", remedy="Mend it.")

    command.action = action
    assert cli.main(["try"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "worldsim: expected a thing; got another. Mend it.\n"
    assert captured.out == ""


def test_interruption_exits_with_130(command):
    def action(_):
        raise KeyboardInterrupt

    command.action = action
    assert cli.main(["try"]) == 130


def test_faults_of_ours_keep_their_traceback(command):
    class FaultError(Exception):
        pass

    def action(_):
        raise FaultError

    command.action = action
    with pytest.raises(FaultError):
        cli.main(["try"])


def test_wrong_options_exit_with_2(command):
    command.action = lambda _: None
    for arguments in (["--number", "x"], ["--nmber", "3"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["try", *arguments])
        assert stop.value.code == 2
