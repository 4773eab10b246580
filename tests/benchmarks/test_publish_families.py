"""What the benchmark of published pages says of a family: live with its distance from PyTorch, or stored with the reason."""

import pytest

from benchmarks.publish import line_of
from support.published import require_live


@pytest.mark.parametrize(("name", "came", "reason"), [
    ("a table of numbers", "live", ""), ("GPT-2 classifier", "stored", "depends on what else is covered"),
])
def test_a_family_comes_to_a_line(tmp_path, name, came, reason):
    require_live()
    line = line_of(name, tmp_path / "page.html")
    assert line["came"] == came and reason in line["reason"] and line["page_bytes"] > 10_000
    assert came == "stored" or line["score_apart"] < 1e-4
