"""The command ``publish``: the model and data of ``explain`` become a page; what does not fit is said in a line."""

import re
import subprocess
import sys

import pytest

from crossexplain_book.cli import OK, USAGE, main
from crossexplain_book.publish.page import content_of

MINE = """
from crossexplain.runs import Explainable
from crossexplain.runs.plan import Entry
from support.published import MODALITIES, Small, batch

def model():
    def inputs(examples):
        rows = [example["row"] for example in examples]
        return {key: value[rows] for key, value in batch(12).items()}
    return Explainable(Small(), MODALITIES, inputs, words=lambda example: [f"word {i}" for i in range(4)])

class Data:
    columns = {"label": int, "kind": str}
    def describe(self):
        return {"format": "mine"}
    def entries(self):
        for i in range(12):
            yield Entry(str(i), lambda i=i: {"row": i} if i != 1 else 1 / 0, {"label": i % 3, "kind": "ab"[i % 2]})
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """A model and data of a reader's own, in the working folder."""
    (tmp_path / "mine_to_publish.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("mine_to_publish", None)


def call(*words: str) -> int:
    given = {"--model": "mine_to_publish:model", "--data": "mine_to_publish:Data", "--out": "page.html"}
    given |= dict(zip(words[::2], words[1::2]))
    return main(["publish", "--stored", *(word for pair in given.items() for word in pair)])


def test_a_page_is_written_and_what_cannot_be_read_is_left_out_and_said(capsys, tmp_path):
    assert call("--limit", "8", "--shown", "2", "--classes", "dog,cat,cow", "--title", "Mine", "--where", "label != 7",
                "--method", "gradient norm") == OK
    out, err = capsys.readouterr()
    content = content_of(tmp_path / "page.html")
    assert "page.html: 2 of 8 examples shown; stored answers alone" in out and "left out" in err and "ZeroDivisionError" in err
    assert [one["label"] for one in content["examples"]] == ["dog", "cow"] and content["classes"] == ["dog", "cat", "cow"]
    assert content["examples"][0]["words"][1] == [f"word {i}" for i in range(4)] and content["title"] == "Mine"
    assert "gradient norm" in [key for key, *_ in content["methods"]] and content["live"] is None


@pytest.mark.parametrize(("words", "reason"), [
    (["--model", "nothing"], "got the model 'nothing', expected one of"), (["--out", "no/page.html"], "does not exist"),
    (["--out", "page.txt"], "ends in .html"), (["--where", "kind == c"], "no example is left"), (["--limit", "0"], "limit=0"),
    (["--label-column", "truth"], "no column 'truth', the data have label, kind"), (["--classes", "a,b"], "expected 3"),
    (["--shown", "0"], "shown=0"), (["--method", "magic"], "no method"), (["--baseline", "magic"], "magic"),
    (["--data", "mine_to_publish:Nothing"], "mine_to_publish:Nothing"),
])
def test_what_does_not_fit_is_said_in_a_line_and_nothing_is_written(words, reason, capsys, tmp_path):
    assert call(*words) == USAGE
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("left out")]
    assert len(said) == 1 and said[0].startswith("crossexplain: ") and re.search(re.escape(reason), said[0]), said
    assert [path.name for path in tmp_path.glob("*.*")] == ["mine_to_publish.py"]


def test_live_and_stored_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        main(["publish", "--model", "a", "--data", "b", "--out", "c.html", "--live", "--stored"])
    assert "not allowed with" in capsys.readouterr().err


def test_what_runs_models_in_pages_is_fetched_without_a_warning():
    code = "import crossexplain_book.publish, sys; sys.exit(any(name in sys.modules for name in sys.argv[1:]))"
    slow = ["crossexplain_book.publish.runtime", "torch"]  # what is run must not have been imported before
    assert subprocess.run([sys.executable, "-c", code, *slow], check=False).returncode == 0
