"""What is kept of models on which a verdict is tried: the verdict of the logits is that of the record."""

import numpy as np
import pytest

from benchmarks import three as of_three
from benchmarks import verdict as of_two
from benchmarks.studies import kept, three


def test_a_verdict_of_kept_logits_is_that_of_the_record():
    model, test, _ = three.train("ab", 7, steps=60)
    record = three.recorded(model, test, 7)
    line = {"seed": 7, "kind": "ab", "logits": kept.logits_of(record)}
    read, own = of_three.read(line), record.verdict()
    assert (read["verdict"], read["terms"]) == (own.answer, of_three.spoken(own.terms)) and "logits" not in read
    assert read["support"] == pytest.approx(own.support, abs=0.02)


def test_the_verdict_on_a_control_is_read_from_what_the_trial_keeps():
    random = np.random.default_rng(0)
    image, text = random.normal(size=(2, 200))
    views = {"full": image + text, "text masked": image, "image masked": text, "all masked": 0 * text}
    logits = {name: {view: values.tolist() for view, values in views.items()} for name in ("zero + mask", "data")}
    line = {"control": "additive", "seed": 3, "truth": "both added", "accuracy": 0.9, "paper's rule": "both only",
            "norm ratio of image": 9.0, "norm ratio of text": 1.5, "logits": logits}
    read = of_two.read(line)
    assert (read["verdict"], read["verdict, data"], read["paper_rule"]) == ("both added", "both added", "both only")
    assert read["paper_norms"] == "text alone" and read["n"] == 200  # of the norms that of the text alone stays
    assert of_two.by_norms(line, 10) == "either" and of_two.by_norms(line, 0.1) == "both only"


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
