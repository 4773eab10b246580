"""The value of every coalition: asked by parts, asked whole, and refused with a reason."""

import pytest
import torch
from torch import nn

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.shapley import shapley
from crossexplain.data import collages
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors
from crossexplain.models import clip
from crossexplain.models.cnn_lstm import CnnLstm
from crossexplain.recipes import load_or_train

TOKENS = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 8, 9, 3, 0, 0, 0], [2, 9, 10, 11, 4, 5, 3]])
SIDES = [Vectors("image", "seen"), Tokens(special=())]


class Added(nn.Module):
    """What is seen plus the numbers of the words, the mask counting 0."""

    def see(self, seen):
        return seen.sum(dim=(1, 2))

    def read(self, tokens):
        return tokens.where(tokens > 1, 0).sum(dim=1).float()

    def match(self, seen, said):
        return seen + said

    def forward(self, seen, tokens):
        return self.match(self.see(seen), self.read(tokens))


class Whole(nn.Module):
    """The same without parts; ``times`` multiplies, ``drawn`` adds noise, ``spoiled`` gives NaN where a cell is hidden."""

    def __init__(self, times=False, drawn=False, spoiled=False, classes=1):
        super().__init__()
        self.times, self.drawn, self.spoiled, self.classes = times, drawn, spoiled, classes

    def forward(self, seen, tokens):
        image, text = seen.sum(dim=(1, 2)), tokens.where(tokens > 1, 0).sum(dim=1).float()
        logit = image * text if self.times else image + text
        logit = logit + torch.rand(len(logit)) if self.drawn else logit
        logit = logit.where((seen != 0).all(dim=2).all(dim=1), torch.nan) if self.spoiled else logit
        return logit if self.classes == 1 else torch.stack([logit, -logit, 0 * logit], dim=1)


def inputs(n=2, cells=3):
    return {"seen": torch.arange(1.0, n * cells + 1).reshape(n, cells, 1), "tokens": torch.tensor([[5, 7, 0], [4, 6, 9]])[:n]}


def of(model, **options):
    return Game(model.eval(), options.pop("inputs", inputs()), options.pop("modalities", SIDES), progress=False, **options)


def test_a_table_by_hand():
    game = of(Added())
    assert game.names == ("image",) * 3 + ("text",) * 3 and game.splits
    assert game.present.tolist() == [[True] * 5 + [False], [True] * 6]
    for i, weights in enumerate(([1, 2, 3, 5, 7, 0], [4, 5, 6, 4, 6, 9])):
        by_hand = [sum(w for k, w in enumerate(weights) if S >> k & 1) for S in range(64)]
        assert game.values_of_all()[i].tolist() == by_hand
        assert shapley(game.values_of_all()[i].numpy()) == pytest.approx(weights)


def models():
    torch.manual_seed(0)
    yield "collages", load_or_train("collages", progress=False).model, ImageCells(), {"special": ()}, (1, 56, 56)
    vit = clip.small_vit(12, 10, side=24, patch=12, width=16, layers=2)
    yield from ((name, model, ImageCells(), {"special": (2, 3)}, (3, 24, 24))
                for name, model in (("clip_cnn", clip.small_cnn(12, 10)), ("clip_vit", vit)))


@pytest.mark.parametrize(("name", "model", "picture", "words", "shape"), models())
@pytest.mark.parametrize("baseline", ["mask", "data"])
def test_by_parts_and_whole_are_the_same(name, model, picture, words, shape, baseline):
    generator = torch.Generator().manual_seed(1)
    ids = TOKENS if name != "collages" else collages.tokenize(list(collages.SENTENCES[:3]))
    given = {"images": torch.rand(3, *shape, generator=generator), "tokens": ids}
    donors = {"images": torch.rand(2, *shape, generator=generator), "tokens": ids[[1, 0]]}
    sides = [picture, Tokens(layer=model.text_layer, **words)]
    chosen = {"image": "data" if baseline == "data" else "zero", "text": baseline}
    options = {"inputs": given, "modalities": sides, "players": {"text": 3}, "baselines": chosen, "donors": donors}
    parts, whole = of(model, **options), of(model, split=False, **options)
    assert parts.splits and not whole.splits
    difference = (parts.values_of_all() - whole.values_of_all()).abs().max()
    assert difference < 1e-5 * max(1.0, float(whole.values_of_all().abs().max()))
    assert whole.cost().coalitions == parts.cost().coalitions == sum(2 ** int(p) for p in parts.present.sum(dim=1))
    assert parts.cost().encoded["image"] == 3 * 16 and whole.cost().encoded == {}


def test_a_call_before_the_table_is_a_lookup_after_it():
    game, keep = of(Whole(times=True)), torch.rand(9, 2, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    before, alike = game(keep), game(keep[:, 0])
    game.values_of_all()
    assert torch.equal(game(keep), before) and torch.equal(game(keep[:, 0]), alike)
    assert torch.equal(alike[:, 0], before[:, 0]) and before.shape == (9, 2)


def test_groups_of_neighbours_and_features_that_are_never_masked():
    game = of(Added(), players={"text": 2})
    assert game.owner("text").tolist() == [[0, 1, -1], [0, 0, 1]] and len(game.names) == 5
    fixed = of(Added(), players={"image": torch.tensor([0, -1, 0]), "text": torch.tensor([[0, 1, -1], [1, 0, 0]])})
    assert fixed.values_of_all()[0].tolist() == [2.0 + 4 * (S & 1) + 5 * (S >> 1 & 1) + 7 * (S >> 2 & 1) for S in range(8)]
    assert fixed.values_of_all()[1, 0] == 5, "the second cell stays whatever happens"


def test_importances_go_to_the_players_and_back():
    game = of(Added(), players={"text": 2})
    scores = {"image": torch.tensor([[1.0, 2, 3], [4, 5, 6]]), "text": torch.tensor([[1.0, 2, torch.nan], [3, 4, 5]])}
    joint = game.joint(scores)
    assert joint.tolist() == [[1, 2, 3, 1, 2], [4, 5, 6, 7, 5]]
    back = game.shared(joint)
    assert back["image"].tolist() == scores["image"].tolist() and back["text"].tolist() == [[1, 2, 0], [3.5, 3.5, 5]]
    lonely = of(Added(), inputs=inputs(1))
    assert lonely.joint({"image": torch.ones(1, 3)})[0, 5].isnan(), "padding is no player"


def test_of_several_classes_the_followed_one_counts_less_the_mean():
    game = of(Whole(classes=3), target=1)
    assert game.values_of_all()[0, -1] == pytest.approx(-18)  # an index: that column's own logit, here without a mean
    assert of(Whole(classes=3), target=torch.tensor([1, 2])).values_of_all()[:, -1].tolist() == pytest.approx([-18, 0])
    assert of(Whole(classes=3)).values_of_all()[0, -1] == pytest.approx(18)
    assert of(Whole(), target=0).values_of_all()[0, -1] == pytest.approx(-18), "of one logit, 0 is no"


def test_where_nothing_counts_all_values_are_alike():
    game = of(Whole(times=True), inputs={"seen": torch.zeros(1, 2, 1), "tokens": torch.tensor([[5, 6]])})
    assert (game.values_of_all() == 0).all() and not shapley(game.values_of_all().numpy()).any()


def test_a_tower_that_takes_something_else_is_asked_whole():
    model = Added()
    model.see = lambda picture: picture.sum(dim=(1, 2))
    assert not of(model).splits


def test_the_cost_is_told_before_long_work(capsys, monkeypatch):
    game = Game(Whole().eval(), inputs(), SIDES)
    monkeypatch.setattr(game, "_clock", {"whole": (100.0, 1)})
    game.values_of_all()
    told = capsys.readouterr()
    assert "96 coalitions need 96 of the whole model" in told.out + told.err and "9600 s" in told.out + told.err


def test_players_that_no_example_has_are_none_where_there_are_too_many():
    """Sentences of at most eight words that are padded to 17."""
    tokens = torch.zeros(3, 17, dtype=torch.long)
    for row, count in enumerate((8, 3, 5)):
        tokens[row, 1 : 1 + count] = torch.arange(2, 2 + count)
    seen = torch.rand(3, 4, 1, generator=torch.Generator().manual_seed(0))
    long, short = ({"seen": seen, "tokens": words} for words in (tokens, tokens[:, 1:9]))
    game, expected = of(Added(), inputs=long), of(Added(), inputs=short)
    assert game.names == expected.names == ("image",) * 4 + ("text",) * 8
    assert torch.equal(game.values_of_all(), expected.values_of_all())
    assert game.owner("text")[0].tolist() == [-1, *range(8), *[-1] * 8]
    scores = {"image": torch.rand(3, 4), "text": torch.rand(3, 17)}
    joint = game.joint(scores)
    by_hand = expected.joint({"image": scores["image"], "text": scores["text"][:, 1:9]})
    assert torch.equal(joint.nan_to_num(), by_hand.nan_to_num()) and torch.equal(joint.isnan(), by_hand.isnan())
    back = game.shared(joint)["text"]
    assert torch.allclose(back, (scores["text"] * (tokens != 0)).double()) and back.shape == (3, 17)


def test_very_many_players_are_refused_before_anything_overflows():
    for count in (600, 4096):
        tokens = torch.full((1, count), 5)
        game = of(Added(), inputs={"seen": torch.ones(1, 2, 1), "tokens": tokens})
        with pytest.raises(InputError, match=rf"{count + 2} players have 2\*\*{count + 2} coalitions, .* hours"):
            game.values_of_all()
        assert game.cost().coalitions == 2 ** (count + 2)


class Wrong(Added):
    def match(self, seen, said):
        return seen - said

    def forward(self, seen, tokens):
        return self.see(seen) + self.read(tokens)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Game(CnnLstm(12).train(), {}, SIDES), "train mode"),
    (lambda: of(Whole(drawn=True)), "when it is asked again"),
    (lambda: of(Wrong()), "gives other logits than the model itself"),
    (lambda: of(Whole(spoiled=True)).values_of_all(), "NaN or infinity for example 0"),
    (lambda: of(Added(), players={"sound": 3}), "sound"),
    (lambda: of(Added(), players={"text": 0}), "at least 1"),
    (lambda: of(Added(), players=3), "got players=3, expected a mapping"),
    (lambda: of(Added(), players={"text": 2.5}), r"dtype torch.float32"),
    (lambda: of(Added(), players={"text": torch.zeros(0, dtype=torch.long)}), r"expected \(3,\)"),
    (lambda: of(Added(), target=[0, 1]), "rounds alone takes a list"),
    (lambda: of(Added(), target="yes"), "expected 'predicted'"),
    (lambda: of(Added(), players={"text": torch.tensor([0, 1])}), r"expected \(3,\)"),
    (lambda: of(Added(), players={"text": torch.tensor([0, -2, 1])}), "never masked"),
    (lambda: of(Added(), baselines={"image": "data"}), "pass them as donors"),
    (lambda: of(Added())(torch.ones(4, 5, dtype=torch.bool)), r"expected \(K, 2, 6\)"),
    (lambda: of(Added(), inputs=inputs() | {"seen": torch.ones(2, 30, 1)}).values_of_all(), r"2\*\*33 coalitions, about"),
    (lambda: of(Whole(classes=3), target=7), "classes 0 to 2"),
])
def test_what_cannot_be_asked_is_refused_with_the_reason(make, message):
    with pytest.raises(InputError, match=message):
        make()
