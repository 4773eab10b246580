"""A published page holds what PyTorch says, takes hostile words as words, and is written whole or not at all."""

import re
from functools import partial

import numpy as np
import pytest
import torch

from crossexplain import ImageCells, InputError, Tokens, Vectors, rounds
from crossexplain.evaluation.methods import explain
from crossexplain_book.publish import publish as publish_any
from crossexplain_book.publish.page import LARGEST, content_of
from crossexplain_book.publish.stored import covers
from support.published import MODALITIES, Small, batch, evidence_of

publish = partial(publish_any, live=False)
HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "page.html"
    publish(Small(), batch(12), MODALITIES, path, shown=3, title=f"Mine {HOSTILE}", names={"text": ["a", "b", HOSTILE, "d"]},
            labels=[HOSTILE] * 12)
    return path, content_of(path)


def test_every_set_of_features_is_answered_as_by_the_model(written):
    for example, one in enumerate(written[1]["examples"]):
        told = [evidence_of(example, [k for k in range(8) if bits >> k & 1]) for bits in range(256)]
        np.testing.assert_allclose(one["evidence"], [evidence for evidence, _ in told], atol=1e-5)
        assert one["predicted"] == [predicted for _, predicted in told]


def test_scores_rounds_and_verdict_are_those_of_the_package(written):
    content, inputs = written[1], batch(12)
    record, three = rounds(Small(), inputs, MODALITIES, progress=False), {key: value[:3] for key, value in inputs.items()}
    assert content["verdict"][0].startswith(record.verdict().answer)
    for key in ("gradient norm", "exact shapley", "grad-cam"):
        told = explain(Small(), three, MODALITIES, key).values
        for i, one in enumerate(content["examples"]):
            for name, found in zip(("image", "text"), one["scores"][key]):
                assert found is None if name not in told else found == pytest.approx(told[name][i].tolist(), abs=1e-5)
    one = record.passes[record.baselines[0], "text masked"]
    line = next(line for line in content["examples"][1]["rounds"] if line["covered"].startswith("all of text"))
    assert line["norms"] == pytest.approx([float(one.norms[name][1]) for name in ("image", "text")], rel=1e-4)


def test_what_readers_write_stays_text(written):
    text = written[0].read_text("utf-8")
    assert "<script>alert" not in text and text.count("<script") == 4
    assert written[1]["examples"][0]["words"][1][2] == HOSTILE and written[1]["title"] == f"Mine {HOSTILE}"


def test_a_page_asks_nothing_from_outside(written):
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://|url\(|@import""", written[0].read_text("utf-8"))


def test_of_many_features_single_ones_and_the_pairs_of_the_strongest_are_stored(tmp_path):
    content = content_of(publish(Small(), batch(4), MODALITIES, tmp_path / "few.html", shown=2, states=30, methods=()))
    for i, one in enumerate(content["examples"]):
        assert len(one["sets"]) == len(set(one["sets"])) <= 30 and {"", "7", "0.1.2.3", "4.5.6.7"} <= set(one["sets"])
        for hidden, evidence in zip(one["sets"], one["evidence"]):
            assert evidence == pytest.approx(evidence_of(i, [int(k) for k in hidden.split(".") if k])[0], abs=1e-5)
    assert len(covers([20, 30], 100)) == 1 + 50 + 3 + 50


def test_one_modality_has_no_rounds_and_a_single_logit_says_yes_and_no(tmp_path):
    class One(torch.nn.Module):
        def forward(self, rows):
            return rows.sum(dim=(1, 2))

    content = content_of(publish(One().eval(), {"rows": torch.tensor([[[1.0], [2.0]], [[-1.0], [-3.0]]])},
                                 [Vectors("sound", "rows")], tmp_path / "one.html"))
    assert [one["evidence"] for one in content["examples"]] == [[3, 2, 1, 0], [4, 3, 1, 0]]
    assert content["classes"] == ["no", "yes"] and [one["followed"] for one in content["examples"]] == [1, 0]
    assert not content["examples"][0]["rounds"] and "one modality" in content["verdict"][0]
    assert any("Grad-CAM" in title for title, _ in content["refused"])


@pytest.mark.parametrize(("change", "reason"), [
    ({"path": "nowhere/page.html"}, "does not exist"), ({"path": "."}, "name of a page"), ({"path": "page.txt"}, "ends in"),
    ({"names": {"words": []}}, "the modalities are 'image', 'text'"), ({"names": {"text": ["one"]}}, "expected one text each"),
    ({"labels": ["one"]}, "1 labels"), ({"classes": ["no", "yes"]}, "expected 3"), ({"methods": ["nonsense"]}, "no method"),
    ({"target": [0, 1]}, "one label"), ({"states": 0}, "states=0"),
    ({"pictures": {"image": torch.zeros(1, 3, 8, 8)}}, "pictures"),
])
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, monkeypatch, change, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=reason):
        publish(Small(), batch(2), MODALITIES, **{"path": "page.html", **change})
    assert not list(tmp_path.iterdir())


def test_a_page_that_is_too_large_or_fails_half_way_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(InputError, match="shown="):
        publish(Small(), batch(2), MODALITIES, path, names={"text": ["x" * LARGEST] * 4})
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        publish(Small(), batch(2), MODALITIES, path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written"):
        publish(Small(), batch(2), MODALITIES, tmp_path / "page.html")


def test_names_come_from_a_tokenizer_or_are_made(tmp_path):
    spell = {"text": lambda ids: [f"<{number}>" for number in ids]}
    words = content_of(publish(Small(), batch(2), MODALITIES, tmp_path / "a.html", names=spell))["examples"][0]["words"]
    assert words[0][:2] == ["row 1, column 1", "row 1, column 2"] and re.fullmatch(r"<\d>", words[1][0])
    words = content_of(publish(Small(), batch(2), [ImageCells(), Tokens(layer="embedding")], tmp_path / "b.html"))
    assert words["examples"][0]["words"][1][0].startswith("token ")
