"""A layer that holds pictures or words at other places than the input is refused; one that mixes its places is read."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crossexplain import ImageCells, Tokens, explain, preflight, rounds
from crossexplain.checks import InputError
from crossexplain.gradients.maps import attribute

MOVES = {
    "left is right": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "rows are columns": lambda x: x.transpose(2, 3),
    "a quarter turned": lambda x: torch.rot90(x, 1, (2, 3)),
    "rolled": lambda x: x.roll(x.shape[3] // 2, 3),
    "moved on": lambda x: F.pad(x, (x.shape[3] // 2, 0))[..., : x.shape[3]],
    "the middle": lambda x: x[:, :, 8:-8, 8:-8],
    "the middle of the rows": lambda x: x[:, :, 24:-24],
    "the middle of the columns": lambda x: x[..., 16:-16],
}
WORDS = {"from the end": lambda ids: ids.flip(1), "a token before": lambda ids: F.pad(ids, (1, -1), value=3)}


class Net(nn.Module):
    """Looks and reads; what is moved before does not come back."""

    def __init__(self, look, read=lambda ids: ids, deep=False):
        super().__init__()
        torch.manual_seed(0)
        mixing = [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()] * 2 if deep else []
        self.tower = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), *mixing)
        self.words, self.head = nn.Embedding(40, 8), nn.Linear(8, 3)
        self.look, self.read = look, read

    def forward(self, images, tokens):
        said = self.words(self.read(tokens)).mean(dim=1)
        return self.head(self.tower(self.look(images)).mean(dim=(2, 3)) * said)


@pytest.fixture(scope="module")
def inputs():
    random = torch.Generator().manual_seed(1)
    # Dark but for a corner, as a digit is: most of such a picture says nothing about what is read where.
    images = torch.zeros(12, 3, 128, 128)
    images[:, :, 8:40, 8:40] = torch.rand(12, 3, 32, 32, generator=random)
    return {"images": images, "tokens": torch.randint(4, 40, (12, 6), generator=random)}


def sides(layer="tower", grid=(4, 4)):
    return [ImageCells(layer=layer, grid=grid), Tokens(layer="words", mask_id=2)]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("move", MOVES)
def test_pictures_at_other_places_are_refused(move, deep, inputs):
    model = Net(MOVES[move], deep=deep).eval()
    for ask in (lambda: explain(model, inputs, sides(), "grad-cam"), lambda: rounds(model, inputs, sides(), progress=False)):
        with pytest.raises(InputError, match="layer 'tower' holds image at other places than the input does"):
            ask()
    with pytest.raises(InputError, match="layer 'tower' holds the picture at other places than the input does"):
        attribute(model, inputs, "tower", "grad-cam")
    (finding,) = [found for found in preflight(model, inputs, sides()) if found.check == "other places"]
    assert finding.saw.startswith("Layer 'tower' holds image at other places than the input does: ")
    at_pixels = explain(model, inputs, sides("input:images"), "gradient x input", target=0)  # where the picture is as it came
    pixels = inputs["images"].clone().requires_grad_()
    by_hand = torch.autograd.grad(model(pixels, inputs["tokens"])[:, 0].sum(), pixels)[0] * pixels
    by_hand = F.avg_pool2d(by_hand.detach().sum(dim=1, keepdim=True), 32).flatten(1) * 32**2
    assert torch.allclose(at_pixels.values["image"], by_hand, atol=1e-5)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("grid", [(2, 2), (4, 4), (3, 5), (16, 16)])
def test_pictures_at_their_places_are_read(deep, grid, inputs):
    model = Net(lambda x: x, deep=deep).eval()
    found = explain(model, inputs, sides(grid=grid), "grad-cam", target=0).values["image"]
    assert "other places" not in preflight(model, inputs, sides(grid=grid)).names
    cells = found.reshape(12, *grid).abs()
    assert int(cells.mean(dim=0).flatten().argmax()) in range(grid[0] * grid[1] // 2), "what is bright stands at the top"


def round_window(side=128):
    across = torch.linspace(-1, 1, side)
    return ((across[:, None] ** 2 + across**2).sqrt() < 0.85).float()


HONEST = {
    "under a round window": nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU()),
    "the largest": nn.Sequential(nn.MaxPool2d(32), nn.Conv2d(3, 8, 1)),
    "each as all others": nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.InstanceNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2)),
    "pooled": nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
                            nn.Conv2d(8, 8, 3, 2, 1)),
    "dilated": nn.Sequential(nn.Conv2d(3, 8, 3, 4, dilation=4), nn.ReLU(), nn.Conv2d(8, 8, 3, dilation=2)),
}
GROUNDS = {
    "grey ground": lambda x: x - F.pad(x, (40, -40, 40, -40)),
    "white paper": lambda x: 1 - x,
    "one colour": lambda x: 0 * x + 0.3,
    "dark": lambda x: 1e-4 * x,
}


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("tower", HONEST)
def test_what_reads_its_pictures_in_place_is_not_refused(tower, ground, inputs):
    torch.manual_seed(0)
    model = Net((lambda x: x * round_window()) if tower == "under a round window" else lambda x: x)
    model.tower = HONEST[tower]
    given = {**inputs, "images": GROUNDS[ground](inputs["images"])[:2], "tokens": inputs["tokens"][:2]}
    for grid in ((2, 2), (4, 4)):
        explain(model.eval(), given, sides(grid=grid), "gradient norm", target=0)
    attribute(model, given, "tower", "hires-cam")


def test_words_that_are_mixed_without_a_place_of_their_own_are_read():
    """Of three words each may follow another by chance; that refuses nobody."""
    class Mixing(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.words, self.mix, self.head = nn.Embedding(40, 8), nn.Linear(3, 3), nn.Linear(8, 3)
            self.mixed = nn.Identity()

        def forward(self, tokens):
            return self.head(self.mixed(F.gelu(self.mix(self.words(tokens).mT)).mT).mean(dim=1))

    tokens = {"tokens": torch.tensor([[4, 9, 23], [8, 5, 30]])}
    for seed in range(20):
        explain(Mixing(seed).eval(), tokens, [Tokens(layer="mixed", mask_id=2)], "gradient norm", target=0)


@pytest.mark.parametrize("read", WORDS)
def test_words_at_other_places_are_refused(read, inputs):
    model = Net(lambda x: x, WORDS[read]).eval()
    with pytest.raises(InputError, match="layer 'words' holds text at other places .*token [12] changes it elsewhere"):
        explain(model, inputs, sides(), "gradient norm", target=0)


def test_a_place_outside_of_a_sequence_is_found_out(inputs):
    """A class token stands first, and the positions that were named begin with it."""
    class Begun(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.words, self.head = nn.Embedding(40, 8), nn.Linear(8, 3)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

        def forward(self, tokens):
            return self.head(self.block(self.words(F.pad(tokens, (1, 0), value=2))).sum(dim=1))

    model, tokens = Begun().eval(), {"tokens": inputs["tokens"]}

    def asked(positions):
        text = Tokens(layer="words", mask_id=3, positions=positions)
        return explain(model, tokens, [text], "gradient norm", target=0).values["text"]

    for wrong in (slice(0, 6), range(6, 0, -1)):
        with pytest.raises(InputError, match="holds text at other places"):
            asked(wrong)
    rows = model.words(F.pad(inputs["tokens"], (1, 0), value=2)).detach().requires_grad_()
    logits = model.head(model.block(rows).sum(dim=1))
    assert torch.allclose(asked(slice(1, 7)), torch.autograd.grad(logits[:, 0].sum(), rows)[0].norm(dim=2)[:, 1:], atol=1e-6)
