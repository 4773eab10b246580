"""The page about a run: what it says, for whatever data holds, and that it needs nothing else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pyarrow")

from crossexplain import ImageCells, InputError, Tokens
from crossexplain.intervals import Interval
from crossexplain.runs import Entry, Explainable, explain_dataset, merge
from crossexplain_book import cli
from crossexplain_book.report import writer
from crossexplain_book.report.examples import rules
from crossexplain_book.report.markup import Html, drawn, page, tag
from crossexplain_book.report.measures import Pair, Run, divided
from crossexplain_book.report.writer import write_report

EVIL = "<script>alert(1)</script>"
WORDS = ["none", "dark", "grey", "light", EVIL]


class Model(nn.Module):
    """A logit of a picture and three words; in half of the examples the picture alone decides, in the others the words."""

    def __init__(self, words: float = 1.2) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([4.0, words]))
        self.embedding = nn.Embedding(len(WORDS), 1)
        self.embedding.weight.data = torch.tensor([[0.0], [-1.0], [0.1], [1.0], [0.0]])

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        seen, told = images[:, :2].mean(dim=(1, 2, 3)), self.embedding(tokens).sum(dim=(1, 2))
        return self.scale[0] * seen + self.scale[1] * told


def subject(words: float = 1.2) -> Explainable:
    def inputs(examples: list) -> dict[str, Tensor]:
        tokens = [[WORDS.index(word) for word in example["text"].split()] for example in examples]
        return {"images": torch.stack([example["image"] for example in examples]), "tokens": torch.tensor(tokens)}

    model = Model(words).eval().requires_grad_(False)
    modalities = [ImageCells(layer="input:images", grid=(2, 2)), Tokens(layer="embedding", special=())]
    return Explainable(model, modalities, inputs, "toy")


@dataclass(frozen=True)
class Data:
    """Examples in two halves: in "seen" the words say nothing, in "told" the picture does not."""

    n: int = 160
    start: int = 0
    columns = {"label": int, "part": str, "image": str, "words": int}

    def describe(self) -> dict[str, object]:
        return {"format": "toy"}

    def entries(self) -> Iterator[Entry]:
        for i in range(self.start, self.start + self.n):
            told = i % 2
            yield Entry(f"{EVIL}{i}", lambda i=i: self.load(i), {
                "label": int(self.drawn(i)[0] > 0), "part": "told & <b>" if told else "seen", "image": f"picture {i // 4}",
                "words": 3})

    def drawn(self, i: int) -> np.ndarray:
        return np.random.default_rng(i).uniform(-1, 1, 5)

    def load(self, i: int) -> dict[str, object]:
        if i % 40 == 7:
            raise InputError(f"{EVIL} is broken")
        value, *noise = self.drawn(i)
        image = torch.zeros(3, 4, 4)
        image[0] = value if i % 2 == 0 else 0.0
        word = ("dark" if value < 0 else "light") if i % 2 else "none"
        return {"image": image, "text": f"none {word} {EVIL}"}


def run(folder, words: float = 1.2, data: Data | None = None, method=("rounds", "gradient x input")):
    explain_dataset(subject(words), data or Data(), method, folder, progress=False, part=50)
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run(tmp_path_factory.mktemp("report") / "first")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return run(tmp_path_factory.mktemp("report") / "second", 0.2, Data(120, 20))


@pytest.fixture
def toy(monkeypatch):
    """Let the toy be found by its name."""
    from crossexplain.runs import known

    monkeypatch.setattr(known, "model", lambda spec: subject({"toy": 1.2}.get(spec, 1.0)))
    monkeypatch.setattr(known, "data", lambda spec, **columns: Data())


class Reader(HTMLParser):
    """Collects tags and checks that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += attributes
        if name not in ("meta", "img", "br", "line", "circle"):
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.tags.append(name)

    def handle_endtag(self, name):
        if name not in ("line", "circle"):
            assert self.open.pop() == name


def checked(path) -> str:
    """Return a page after the checks that every page passes."""
    text, reader = path.read_text("utf-8"), Reader()
    reader.feed(text)
    assert not reader.open
    assert "script" not in reader.tags and EVIL not in text, "what data holds stays text"
    assert not {"link", "iframe", "object", "form", "base"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for name, value in reader.attributes if name == "src")
    assert all(value.startswith("#") for name, value in reader.attributes if name == "href")
    names = [value for name, value in reader.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert {value[1:] for name, value in reader.attributes if name == "href"} <= set(names)
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)
    return text


def test_numbers_without_the_data(results, tmp_path):
    text = checked(write_report(results, tmp_path / "page.html"))
    assert "156 of 160 examples, 4 failed" in text
    assert "part: told &amp; &lt;b&gt;" in text and "numbers only" in text and "<img" not in text
    assert text.count("is broken") == 2, "the reason stands in the overview and in the table"


def test_slices_that_the_whole_hides(results):
    found = Run.of(results)
    assert {part.value: part.judged.answer for part in found.slices if part.column == "part"} == {
        "seen": "image alone", "told & <b>": "text alone"}
    assert found.verdict.answer not in ("image alone", "text alone")
    assert {str(part) for part in found.hidden()} >= {"part: seen", "part: told & <b>"}


def test_rules_choose_what_they_say(results):
    found = Run.of(results)
    chosen = {rule.title: rule.rows for rule in rules(found, found.agreement())}
    alone = {rule: {found.columns["part"][row] for row in rows} for rule, rows in chosen.items()}
    assert alone["The image alone says so"] == {"seen"} and alone["The text alone says so"] == {"told & <b>"}
    assert all(found.flips("text")[row] == 1 for row in chosen["Another answer without the text"])
    edge = np.abs(found.evidence["full"])
    assert edge[chosen["On the edge"][0]] == np.nanmin(edge)
    pictures = [[found.columns["image"][row] for row in rows] for rows in chosen.values()]
    assert all(len(set(names)) == len(names) for names in pictures)


def test_pictures_and_words_with_the_data(results, tmp_path, toy):
    text = checked(write_report(results, tmp_path / "page.html", data="toy"))
    assert text.count("<img") > 5 and "numbers only" not in text
    with pytest.raises(InputError, match="weights of toy are not those"):
        write_report(results, tmp_path / "page.html", data="toy", model="another")


def test_an_example_that_is_gone_is_said_to_be(results, tmp_path, toy, monkeypatch):
    from crossexplain.runs import known

    monkeypatch.setattr(known, "data", lambda spec, **columns: Data(8))
    assert "does not hold this key any more" in checked(write_report(results, tmp_path / "page.html", data="toy"))


def test_two_runs_are_compared_by_key(results, other, tmp_path, toy):
    pair = Pair(Run.of(results), Run.of(other))
    assert pair.n == 117  # 120 in common, 3 of them broken
    first, second = pair.values()["predictions that are right"]
    assert pair.difference(first, second).value == pytest.approx(np.mean(second) - np.mean(first))
    keys = [run.column("key")[rows] for run, rows in zip((pair.first, pair.second), pair.rows)]
    assert keys[0].tolist() == keys[1].tolist()
    text = checked(write_report([results, other], tmp_path / "page.html", data="toy"))
    assert "117 examples were explained by both" in text and "39 of first and 0 of second" in text


def test_a_run_against_itself_differs_in_nothing(results):
    pair = Pair(Run.of(results), Run.of(results))
    for first, second in pair.values().values():
        gap = pair.difference(first, second)
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_runs_without_a_common_example_are_refused(results, tmp_path):
    run(tmp_path / "far", data=Data(40, 1000))
    with pytest.raises(InputError, match="no explained example in common"):
        write_report([results, tmp_path / "far"])


@pytest.mark.parametrize("method", ["gradient x input", "rounds"])
def test_a_few_examples_and_no_rounds(tmp_path, method):
    for n in (1, 2, 12):
        run(tmp_path / f"{n}", data=Data(n), method=method)
        checked(write_report(tmp_path / f"{n}"))
        assert (tmp_path / f"{n}" / "report.html").is_file()
    checked(write_report([tmp_path / "2", tmp_path / "12"]))


def test_the_command(results, tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert cli.main(["report", str(results), "--out", str(tmp_path / "page.html"), "--open"]) == 0
    assert shown == [(tmp_path / "page.html").as_uri()]
    assert cli.main(["report", str(tmp_path / "absent")]) == 2
    assert "manifest" in capsys.readouterr().err


def test_three_lines_of_each_reader(results, tmp_path):
    """The lines of the page on data sets, but for the folder."""
    parts = str(results / "part-*.parquet")
    pandas = pytest.importorskip("pandas")
    rows = pandas.read_parquet(merge(results, tmp_path / "all.parquet"), columns=["status", "column_part", "verdict"])
    expected = {"seen": 80, "told & <b>": 76}
    assert rows[rows.status == "ok"].groupby("column_part").size().to_dict() == expected
    if find_spec("polars"):
        import polars

        lazy = polars.scan_parquet(parts).filter(polars.col("status") == "ok")
        assert dict(lazy.group_by("column_part").agg(polars.len()).collect().iter_rows()) == expected
    if find_spec("duckdb"):
        import duckdb

        query = f"SELECT column_part, count(*) FROM '{parts}' WHERE status = 'ok' GROUP BY column_part"
        assert dict(duckdb.sql(query).fetchall()) == expected


def test_folders_of_one_name_are_told_apart():
    assert writer._told_apart(["a", "a"]) == ["a (1)", "a (2)"]


def test_whatever_is_not_html_is_escaped():
    assert tag("p", EVIL, Html("<br>"), title='"x') == (
        '<p title="&quot;x">&lt;script&gt;alert(1)&lt;/script&gt;<br></p>')
    assert EVIL not in page(EVIL, tag("section", EVIL))
    assert "\\x00" in tag("p", "\0"), "control characters are spelled out"


def test_intervals_are_drawn_within_their_ends():
    places = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([\d.]+)"', drawn(Interval(2.0, -3.0, 5.0, 9)))]
    assert min(places) >= 4 and max(places) <= 156
    assert "circle" not in drawn(Interval(np.nan, np.nan, np.nan, 0))


@pytest.mark.parametrize("values, names", [
    (list(range(100)), ["up to 24.75", "above 24.75, up to 49.5", "above 49.5, up to 74.25", "above 74.25"]),
    ([1, 2, 1], ["1", "2"]), ([True, False], ["False", "True"]), ([None, None], ["none"]),
    ([0.5, float("nan")], ["0.5", "none"]),
    (["x"] * 20 + list("abcdefghijklmnop"), list("abcdefghijkx"))])
def test_columns_are_divided(values, names):
    parts = divided(np.array(values, object))
    assert [name for name, _ in parts] == names
    counted = sum(where.astype(int) for _, where in parts)
    assert counted.max() == 1
