"""What is kept of models on which a verdict is tried: the verdict of the logits is that of the record."""

import pytest

from benchmarks import three as of_three
from benchmarks import verdict as of_two
from benchmarks.studies import kept, three
from crossexplain.data import digits
from crossexplain.recipes import load_or_train


def test_a_verdict_of_kept_logits_is_that_of_the_record():
    model, test, _ = three.train("ab", 7, steps=60)
    record = three.recorded(model, test, 7)
    line = {"seed": 7, "kind": "ab", "logits": kept.logits_of(record)}
    read, own = of_three.read(line), record.verdict()
    assert (read["verdict"], read["terms"]) == (own.answer, of_three.spoken(own.terms)) and "logits" not in read
    assert read["support"] == pytest.approx(own.support, abs=0.02)


def test_the_verdict_on_a_control_is_read_from_its_logits():
    bank, tower = digits.load("sklearn"), load_or_train("collages", progress=False).model.tower
    control, record = of_two.run("image", 300, bank, tower)
    line = of_two.read({"seed": 300, "control": "image", "logits": kept.logits_of(record)})
    own, first = record.verdict(), record.baselines[0]
    assert line["verdict"] == own.answer == control.answer == line[f"verdict, {first}"]
    assert line["image accounts for"] == pytest.approx(own.reach[first]["image"].value, abs=1e-3)
    assert line["flips, image masked"] == own.flips[first]["image"].value


def test_lines_go_on_where_they_stopped_and_other_code_has_other_lines(tmp_path):
    done = []

    def judged(number):
        if number == 2 and done.count(2) == 0:
            done.append(2)
            raise KeyboardInterrupt
        done.append(number)
        return {"number": number}

    wanted = [(number,) for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        kept.lines(wanted, judged, tmp_path / "kept.json")
    assert kept.lines(wanted, judged, tmp_path / "kept.json") == [{"number": number} for number in range(4)]
    assert done == [0, 1, 2, 2, 3]
    assert kept.kept_at("a", 1, three, judged) != kept.kept_at("a", 2, three, judged) != kept.kept_at("a", 2, judged)
