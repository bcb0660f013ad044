"""The README's example runs as it stands, and its links lead somewhere."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(capsys) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 12
    exec(compile(code[1], "README.md", "exec"), {})
    assert "permanence" in capsys.readouterr().out


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\((?!http)([^)]+)\)", README.read_text())
    assert targets
    assert [t for t in targets if not (README.parent / t).exists()] == []
