import importlib
import sys
import textwrap

import pytest

from eval.fingerprint import fingerprint
from eval.physics.laws import LAWS

BASE = {
    "__init__": "",
    "deep/__init__": "",
    "deep/more": """
        LIMIT = 3.0
        OTHER = 1

        def clip(x):
            return min(x, LIMIT)

        def unused(x):
            return x + OTHER
    """,
    "parts": """
        from fpkg.deep import more

        class Box:
            side = 2

            def area(self):
                return more.clip(self.side ** 2)

        def name(x):
            return f"{x} is long"
    """,
    "measure": '''
        """A module."""
        from fpkg.parts import Box, name

        def value(clip, scale=1.0):
            """What is measured."""
            import fpkg.late as late
            return scale * Box().area() + late.extra(clip), name(clip)
    ''',
    "late": """
        def extra(x):
            return 0 * x
    """,
}


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """The fingerprint of `measure.value` in a package of the given files."""
    count = 0

    def make(**changes):
        nonlocal count
        count += 1
        root = tmp_path / str(count)
        for path, text in {**BASE, **changes}.items():
            file = root / "fpkg" / f"{path}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(root)
        for name in [n for n in sys.modules if n.split(".")[0] == "fpkg"]:
            monkeypatch.delitem(sys.modules, name)
        module = importlib.import_module("fpkg.measure")
        import eval.fingerprint as own  # noqa: PLC0415 - its caches belong to files that never change in a process

        for cached in (own._fingerprint, own._definition, own._read, own._as_module):
            cached.cache_clear()
        found = fingerprint(module.value)
        assert module.value.__module__ == "fpkg.measure"
        return found

    yield make
    for name in [n for n in sys.modules if n.split(".")[0] == "fpkg"]:
        del sys.modules[name]


def edited(name, old, new):
    assert old in BASE[name]
    return {name: BASE[name].replace(old, new)}


@pytest.mark.parametrize(
    "change",
    [
        edited("deep/more", "LIMIT = 3.0", "LIMIT = 3.5"),
        edited("deep/more", "min(x, LIMIT)", "max(x, LIMIT)"),
        edited("parts", "side = 2", "side = 3"),
        edited("measure", "scale=1.0", "scale=1.1"),
        edited("late", "0 * x", "1 * x"),
        edited("parts", 'f"{x} is long"', 'f"{2 * x} is long"'),
    ],
)
def test_whatever_the_value_rests_on_counts(taken, change):
    assert taken(**change) != taken()


@pytest.mark.parametrize(
    "change",
    [
        edited("measure", "What is measured.", "Something else is said."),
        edited("measure", '"""A module."""', "# a comment"),
        edited("measure", "(clip, scale=1.0)", "(clip: int, scale: float = 1.0) -> tuple"),
        edited("deep/more", "return min(x, LIMIT)", "return min(\n                x, LIMIT,\n            )"),
        edited("deep/more", "OTHER = 1", "OTHER = 2"),
        edited("deep/more", "return x + OTHER", "return x - OTHER"),
        edited("parts", "is long", "is very long"),
    ],
)
def test_what_it_does_not_rest_on_does_not(taken, change):
    assert taken(**change) == taken()


def test_every_law_has_its_own_and_without_source_there_is_none():
    assert len({fingerprint(law.measure) for law in LAWS}) == len(LAWS)
    assert fingerprint(len) == "unknown"
