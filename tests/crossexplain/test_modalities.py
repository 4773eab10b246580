"""Vectors, tables and video: what is hidden, and what is read where, against the same by hand."""

import pytest
import torch
from torch import nn

from crossexplain import Called, explain
from crossexplain.checks import InputError
from crossexplain.gradients.capture import capture
from crossexplain.gradients.modalities import Columns, ImageCells, Modality, Tokens, Vectors, Video
from crossexplain.gradients.views import Mask, Noise, Reorder, Views


def one(inputs, modality, change, **kwargs):
    return Views(inputs, [modality], {"view": {modality.name: change}}, allow_empty=True, **kwargs).inputs


def test_a_mask_of_vectors_is_checked_as_that_of_words():
    rows = torch.rand(2, 4, 3)
    sound = Vectors("sound", "sound", attention="mask")
    for inputs, says in (({"sound": rows}, r"'mask' is missing \(the inputs are \['sound'\]\)"),
                         ({"sound": rows, "mask": torch.ones(2, 3)}, r"is \(2, 3\), expected the shape of the vectors"),
                         ({"sound": rows, "mask": None}, "'mask' is NoneType"),
                         ({"sound": rows, "mask": torch.zeros(2, 4)}, "example 0 has no vector that counts")):
        with pytest.raises(InputError, match=says):
            sound.features(inputs)


class Padded(nn.Module):
    """Reads words and vectors by attention whose mask marks padding, or is added."""

    def __init__(self):
        super().__init__()
        self.words, self.text, self.sound = nn.Embedding(9, 4), attention(), attention()
        self.head = nn.Linear(4, 1)

    def forward(self, tokens, padding, sound, silent):
        said = self.words(tokens)
        read = self.text(said[:, :1] * 0 + 1, said, said, key_padding_mask=padding)[0]
        return self.head(read + self.sound(read, sound, sound, key_padding_mask=silent)[0])[:, 0]


def attention():
    return nn.MultiheadAttention(4, 1, batch_first=True)


def turned(model, given):
    return model(**{**given, "padding": given["padding"] == 0, "silent": given["silent"] == 0})


@pytest.mark.parametrize("longest", [3, 4])  # in the second batch an example is not padded
@pytest.mark.parametrize("pad_id", [0, 8])  # 8 is what the batch is padded with, 0 is what is declared
@pytest.mark.parametrize("added", [False, True])
def test_a_mask_that_marks_padding_is_refused_and_the_line_to_type_is_right(longest, pad_id, added):
    torch.manual_seed(0)
    model, lengths = Padded().eval(), torch.tensor([longest, 2, 1])
    real = torch.arange(4) < lengths[:, None]
    tokens = torch.tensor([[3, 4, 5, 6], [6, 7, 3, 4], [4, 3, 4, 5]]).masked_fill(~real, pad_id)
    sound = torch.randn(3, 4, 4).masked_fill(~real[..., None], 0)
    upright = {"tokens": tokens, "padding": real, "sound": sound, "silent": real}
    sides = [Tokens(layer="words", attention="padding"), Vectors("sound", "sound", attention="silent")]
    marks = torch.where(real, 0.0, -1e9) if added else ~real
    for key, unit in (("padding", "tokens"), ("silent", "vectors")):
        says = f"{key}.*(below 0|key_padding_mask).*1 for {unit} and 0.*Called\\(model, lambda model, given: "
        with pytest.raises(InputError, match=says):
            explain(model, upright | {key: marks}, sides, "gradient norm")
    found = explain(Called(model, turned), upright, sides, "gradient norm").values["text"]
    for i, length in enumerate(lengths):  # each text alone, without padding, by autograd
        rows = model.words(tokens[i:i + 1, :length]).detach().requires_grad_()
        read = model.text(torch.ones(1, 1, 4), rows, rows)[0]
        heard = sound[i:i + 1, :length]
        logit = model.head(read + model.sound(read, heard, heard)[0]).squeeze()
        by_hand = torch.autograd.grad(logit, rows)[0].norm(dim=2)[0]
        assert torch.allclose(found[i, :length], by_hand, atol=1e-6) and found[i, length:].isnan().all()


def test_vectors_that_are_borrowed_come_with_what_belongs_to_them():
    rows, times = torch.rand(2, 4, 3) + 1, torch.arange(8.0).reshape(2, 4)
    inputs = {"sound": rows, "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]), "times": times}
    keep = torch.tensor([True, False, False, True])
    with pytest.raises(InputError, match="input 'times'.*along="):
        one(inputs, Vectors("sound", "sound", attention="mask"), Mask(keep, "data", torch.tensor([1, 0])))
    sound = Vectors("sound", "sound", attention="mask", along=["times"])
    seen = one(inputs, sound, Mask(keep, "data", torch.tensor([1, 0])))
    # the donor has two vectors: its second stands for the second, and its first, again, for the third
    assert torch.equal(seen["sound"][0], torch.stack([rows[0, 0], rows[1, 1], rows[1, 0], rows[0, 3]]))
    assert seen["times"][0].tolist() == [0, 5, 4, 3] and seen["times"][1].tolist() == [4, 1, 6, 7]
    assert torch.equal(seen["mask"], inputs["mask"])
    whole = one(inputs, sound, Mask(None, "data", torch.tensor([1, 0])))
    assert all(torch.equal(whole[key], inputs[key].flip(0)) for key in inputs)
    mixed = one(inputs, sound, Reorder(0))
    assert torch.equal(mixed["sound"][1, 2:], rows[1, 2:]) and set(mixed["times"][1, :2].tolist()) == {4.0, 5.0}
    zero = one(inputs, sound, Mask(keep, "zero"))
    assert (zero["sound"][:, 1:3] == 0).all() and torch.equal(zero["times"], times)


def test_vectors_in_a_longer_row_need_positions():
    rows = torch.rand(2, 4, 3)
    values = torch.rand(2, 5, 6)
    with pytest.raises(InputError, match=r"\(2, 5, 6\) for 2 examples, expected one vector a feature.*positions=slice"):
        Vectors("sound", "sound", layer="block").read_at(values, {"sound": rows}, 2)
    for positions, where in ((slice(1, None), slice(1, 5)), (range(4), slice(0, 4)), ([0, 1, 2, 3], slice(0, 4)),
                             (slice(-4, None), slice(1, 5))):
        found = Vectors("sound", "sound", layer="block", positions=positions).read_at(values, {"sound": rows}, 2)
        assert torch.equal(found, values[:, where].sum(dim=2))
    with pytest.raises(InputError, match="expected a slice, a range or whole numbers"):
        Vectors("sound", "sound", positions="first")


class Table(nn.Module):
    """A bilinear model of numbers, and one embedding a category after a class token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.row, self.head = nn.Embedding(20, 4), nn.Identity(), nn.Linear(4, 2)

    def forward(self, numbers, kinds):
        row = self.row(torch.cat([torch.zeros(len(kinds), 1, 4), self.embedding(kinds)], dim=1))
        return self.head(row.sum(dim=1)) * (1 + numbers @ torch.tensor([1.0, 2.0, 0.0]))[:, None]


def test_columns_of_numbers_and_of_categories():
    numbers, kinds = torch.randn(5, 3), torch.randint(0, 20, (5, 2))
    inputs, model = {"numbers": numbers, "kinds": kinds}, Table().eval()
    table, categories = Columns("table", "numbers"), Columns("kinds", "kinds", layer="row", positions=slice(1, 3))
    keep = torch.tensor([True, False, True])
    views = Views(inputs, [table, categories], {
        "mean": {"table": Mask(keep, "mean")}, "zero": {"table": Mask(keep, "zero")},
        "data": {"table": Mask(keep, "data", torch.tensor([1, 2, 3, 4, 0]))},
        "kinds": {"kinds": Mask(torch.tensor([False, True]), "data", torch.tensor([1, 2, 3, 4, 0]))}})
    assert views.present["table"].shape == (4, 5, 3) and views.present["kinds"][3].tolist() == [[False, True]] * 5
    seen = views.inputs
    parts = seen["numbers"].split(5)
    for part, other in zip(parts, (numbers.mean(dim=0)[1].expand(5), torch.zeros(5), numbers[[1, 2, 3, 4, 0], 1])):
        assert torch.equal(part[:, [0, 2]], numbers[:, [0, 2]]) and torch.allclose(part[:, 1], other)
    assert torch.equal(seen["kinds"][15:, 0], kinds[[1, 2, 3, 4, 0], 0])
    part = views.batch(torch.tensor([0]))["numbers"]  # the mean is that of the whole batch in every part of it
    assert torch.allclose(part[0, 1], numbers[:, 1].mean())
    told = Columns("table", "numbers", means=torch.tensor([5.0, 6.0, 7.0]))
    assert (one(inputs, told, Mask(keep, "mean"))["numbers"][:, 1] == 6).all()
    held = capture(model, inputs, ["input:numbers", "row"], 0)
    assert torch.equal(table.read_at(held.gradients["input:numbers"], inputs, 5), held.gradients["input:numbers"])
    by_hand = held.gradients["row"][:, 1:].square().sum(dim=2)
    assert torch.allclose(categories.settled(inputs, model).read_at(held.gradients["row"].square(), inputs, 5), by_hand)
    noisy = Views(inputs, [table], {"noise": {"table": Noise(0.1)}}).inputs["numbers"]
    assert not torch.equal(noisy, numbers)


@pytest.mark.parametrize(("table", "inputs", "values", "says"), [
    (Columns(), {"table": torch.rand(2, 3, 4)}, None, r"expected numbers or categories \(N, F\), one row an example"),
    (Columns(), {"table": torch.full((2, 3), torch.nan)}, None, "6 of 6 entries are NaN"),
    (Columns(layer="first"), {"table": torch.rand(2, 3)}, torch.rand(2, 3), r"expected a vector for each of the 3 columns"),
    (Columns(layer="first"), {"table": torch.rand(2, 3)}, torch.rand(2, 4, 5), r"positions=\.\.\. of the columns"),
    (Columns(), {"table": torch.rand(2, 3)}, torch.rand(4, 3), "gives .4, 3. for 2 examples, expected one row an example"),
])
def test_a_table_that_is_none(table, inputs, values, says):
    with pytest.raises(InputError, match=says):
        table.features(inputs) if values is None else table.read_at(values, inputs, 2)


def test_categories_have_no_mean():
    kinds = {"table": torch.randint(0, 5, (3, 2))}
    assert Columns(layer="row").settled(kinds).baselines == ("data",)
    with pytest.raises(InputError, match="got baseline of table 'mean', expected one of 'data'"):
        one(kinds, Columns(layer="row"), Mask(None, "mean"))
    with pytest.raises(InputError, match="got means of shape .2,. for the 3 columns"):
        one({"table": torch.rand(2, 3)}, Columns(means=torch.rand(2)), Mask(None, "mean"))
    with pytest.raises(InputError, match="no order to change"):
        one(kinds, Columns(layer="row"), Reorder())


CLIPS = torch.rand(2, 4, 3, 6, 8, generator=torch.Generator().manual_seed(0)) + 0.1  # frames first


def cells_by_hand(values, grid):
    """Values (N, t, h, w) summed over cells whose number divides the sides."""
    t, h, w = (side // pieces for side, pieces in zip(values.shape[1:], grid))
    return values.unflatten(3, (grid[2], w)).unflatten(2, (grid[1], h)).unflatten(1, (grid[0], t)).sum(dim=(2, 4, 6)).flatten(1)


@pytest.mark.parametrize("layout", ["NTCHW", "NCTHW"])
@pytest.mark.parametrize("told", [True, False])
def test_videos_are_cut_in_time_and_space(layout, told):
    clips = CLIPS if layout == "NTCHW" else CLIPS.transpose(1, 2)
    video = Video(grid=(2, 3, 2), layout=layout if told else None)
    inputs = {"video": clips}
    assert video.features(inputs).shape == (2, 12)
    keep = torch.zeros(12, dtype=torch.bool)
    keep[7] = True  # the second half of the time, the first row of three, the second half of the width
    stay = torch.zeros(4, 6, 8, dtype=torch.bool)
    stay[2:, :2, 4:] = True
    stay = stay[None, :, None] if layout == "NTCHW" else stay[None, None]
    stay = stay.expand_as(clips)
    mean = CLIPS.mean(dim=(1, 3, 4))  # (N, C)
    for baseline, other in (("zero", torch.zeros(())), ("data", clips.flip(0)),
                            ("mean", mean[:, None, :, None, None] if layout == "NTCHW" else mean[:, :, None, None, None])):
        seen = one(inputs, video, Mask(keep, baseline, torch.tensor([1, 0])))["video"]
        assert torch.equal(seen[stay], clips[stay]) and torch.allclose(seen, torch.where(stay, clips, other))
    summed = CLIPS.sum(dim=2)  # over the colours
    assert torch.allclose(video.read_at(clips, inputs, 2), cells_by_hand(summed, (2, 3, 2)), rtol=1e-4)


class Clip(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.deep, self.flat, self.norm = nn.Conv3d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(4)
        self.act, self.head = nn.ReLU(), nn.Linear(4, 2)

    def forward(self, video):
        examples, frames = video.shape[:2]
        if self.kind == "deep":
            seen = self.act(self.deep(video.transpose(1, 2))).permute(0, 2, 3, 4, 1)
            return self.head(self.norm(seen).square().mean(dim=(1, 2, 3)))
        batch = video.flatten(0, 1) if self.kind == "frames" else video.transpose(0, 1).flatten(0, 1)
        seen = self.flat(batch).relu().square().mean(dim=(2, 3))
        seen = seen.unflatten(0, (examples, frames)) if self.kind == "frames" else \
            seen.unflatten(0, (frames, examples)).transpose(0, 1)
        return self.head((seen * torch.arange(1.0, frames + 1)[:, None]).mean(dim=1))


def test_layers_of_video_are_read_as_they_lie():
    inputs = {"video": CLIPS}
    model = Clip("deep").eval()
    held = capture(model, inputs, ["deep", "norm"], 0)
    for layer, turned in (("deep", held.gradients["deep"]), ("norm", held.gradients["norm"].permute(0, 4, 1, 2, 3))):
        found = Video(layer=layer, grid=(2, 3, 2)).settled(inputs, model).read_at(held.gradients[layer].square(), inputs, 2)
        assert torch.allclose(found, cells_by_hand(turned.square().sum(dim=1), (2, 3, 2)), rtol=1e-4)
    with pytest.raises(InputError, match="pass read_as='NCTHW'"):
        Video(layer="act").read_at(held.gradients["deep"], inputs, 2)
    for kind, read_as in (("frames", "NFCHW"), ("frames first", "FNCHW")):
        model = Clip(kind).eval()
        slopes = capture(model, inputs, "flat", 0).gradients["flat"]
        alone = torch.cat([capture(model, {"video": CLIPS[i : i + 1]}, "flat", 0).gradients["flat"][None] for i in range(2)])
        by_hand = cells_by_hand(alone.square().sum(dim=2), (2, 3, 2))
        video = Video(layer="flat", grid=(2, 3, 2), read_as=read_as).settled(inputs, model)
        assert torch.allclose(video.read_at(slopes.square(), inputs, 2), by_hand, rtol=1e-4)
        with pytest.raises(InputError, match="pass read_as='NFCHW'.*or 'FNCHW'"):
            Video(layer="flat").settled(inputs, model).read_at(slopes, inputs, 2)
        with pytest.raises(InputError, match="It has 4 rows an example"):
            ImageCells("frames", "video", layer="flat", layout="NCHW").settled(inputs, model).read_at(slopes, inputs, 2)


@pytest.mark.parametrize(("video", "clips", "says"), [
    (Video(), torch.rand(2, 3, 3, 8, 8), "pass layout='NTCHW' for frames first or layout='NCTHW'"),
    (Video(), torch.rand(2, 5, 4, 8, 8), "can be the colours"),
    (Video(), torch.rand(2, 3, 8, 8), "for pictures use ImageCells"),
    (Video(), torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8), "expected floating video"),
    (Video(grid=(8, 2, 2)), torch.rand(2, 4, 3, 8, 8), "4 frames of 8 x 8 pixels, which cannot be cut into 8 x 2 x 2"),
])
def test_a_video_that_is_none(video, clips, says):
    with pytest.raises(InputError, match=says):
        video.features({"video": clips})
    with pytest.raises(InputError, match="got grid=.2, 2., expected frames, rows and columns"):
        Video(grid=(2, 2))


def test_a_modality_of_ones_own_is_read_in_its_own_way():
    class Pairs(Tokens):
        """Two neighbouring words are one feature."""

        def features(self, inputs):
            return super().features(inputs).unflatten(1, (-1, 2)).any(dim=2)

        def per_feature(self, values, count):
            return values.sum(dim=2).unflatten(1, (count, 2)).sum(dim=2)

    class Half(ImageCells):
        def per_feature(self, values, count):
            return values.flatten(1).sum(dim=1, keepdim=True).expand(-1, count)

    inputs, values = {"tokens": torch.randint(2, 9, (4, 4)), "images": torch.rand(4, 1, 4, 4)}, torch.rand(4, 4, 3)
    found = Pairs().settled(inputs).read_at(values, inputs, 4)
    assert torch.allclose(found, values.sum(dim=2)[:, 0::2] + values.sum(dim=2)[:, 1::2])
    assert Half(layer="odd").read_at(torch.rand(4, 7), inputs, 4).shape == (4, 4)
    with pytest.raises(InputError, match=r"Half.per_feature gives \(5, 4\) for 4 examples, expected one row an example"):
        Half(layer="odd").read_at(torch.rand(5, 7), inputs, 4)

    class Own(Modality):
        name, input, layer = "graph", "graph", "input:graph"

        def features(self, inputs):
            return torch.ones(self.value(inputs).shape[:2], dtype=torch.bool)

        def per_feature(self, values, count):
            return values.sum(dim=(2, 3))

    graph = {"graph": torch.rand(2, 3, 4, 5)}
    assert torch.allclose(Own().settled(graph).read_at(graph["graph"], graph, 2), graph["graph"].sum(dim=(2, 3)))
    assert Own().keys(graph) == ("graph",)
