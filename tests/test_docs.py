import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("page", ["README.md", "docs/all-of-metatower.md"])
def test_the_python_of_a_page_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("\n".join(blocks), page, "exec"), {})
    assert "storey 2" in out.getvalue()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    places = [ROOT, ROOT / "src" / "metatower", ROOT / "docs"]
    for name in re.findall(
        r"`((?:docs|examples|learners|rules|gradients|recipes|tests|core|tasks|nets)/[\w./-]*)`", text
    ):
        assert any((place / name).exists() for place in places), name
