import pytest
import torch
from transformers import BertConfig, BertModel

from crossexplain.checks import InputError
from crossexplain.gradients.attention import patch_map, roll, word_by_patch
from crossexplain.gradients.capture import Captured, capture
from crossexplain.gradients.maps import attribute, to_cells
from crossexplain.gradients.modalities import Tokens
from crossexplain.gradients.tokens import attribute as text_scores
from crossexplain.models.clip import small_cnn, small_vit
from crossexplain.models.fusion import Fusion
from crossexplain.models.towers import ConvTower, EncoderTower

TOKENS = torch.tensor([[2, 5, 7, 3, 0], [2, 6, 4, 8, 3]])


def held(*maps, gradients=None):
    """What capture would have kept of attention maps (1, 1, T, T)."""
    kept = {f"block{i}": torch.tensor([[rows]]) for i, rows in enumerate(maps)}
    slopes = kept if gradients is None else {f"block{i}": torch.tensor([[rows]]) for i, rows in enumerate(gradients)}
    return Captured(torch.zeros(1), None, torch.zeros(1), kept, slopes)


def test_rollout_and_relevance_of_two_tokens_by_hand():
    one, two = [[1.0, 0.0], [0.5, 0.5]], [[0.25, 0.75], [0.0, 1.0]]
    taken = held(one, two, gradients=(one, [[1.0, 1.0], [0.0, 0.0]]))  # the model reads the first token
    # rollout: (A + 1) / 2 of each, the later on the left: [[.625, .375], [0, 1]] @ [[1, 0], [.25, .75]]
    assert torch.allclose(roll(taken, ["block0", "block1"], "attention-rollout"), torch.tensor([[0.71875, 0.28125]]))
    # relevance with gradients 1, -1 for the second map: R = 1 + A1; then R + 0
    signs = held(one, two, gradients=([[1.0, 1.0], [1.0, 1.0]], [[-1.0, -1.0], [-1.0, -1.0]]))
    assert torch.allclose(roll(signs, ["block0", "block1"]), torch.tensor([[1.25, 0.75]]))  # it reads both
    second = held(one, two, gradients=([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [-1.0, -1.0]]))
    assert torch.allclose(roll(second, ["block0", "block1"]), torch.tensor([[0.5, 1.5]]))


def test_the_rows_that_the_model_reads_are_found():
    model = small_vit(12, 6, side=24, width=16, layers=2).eval()
    inputs = {"images": torch.rand(2, 3, 24, 24), "tokens": TOKENS}
    maps = [f"{name}#1" for name in model.attention_layers]
    taken = capture(model, inputs, ["input:images", *maps])
    first = torch.eye(5).expand(2, -1, -1)
    for name in maps:
        first = first + (taken.gradients[name] * taken.activations[name]).clamp(min=0).mean(dim=1) @ first
    assert torch.allclose(roll(taken, maps), first[:, 0], atol=1e-6)  # the class token comes first
    heat = attribute(model, inputs, "input:images", "attention-relevance", attention=model.attention_layers)
    assert heat.shape == (2, 2, 2) and torch.allclose(heat.flatten(1), roll(capture(model, inputs, ["input:images", *maps],
                                                                                    "predicted"), maps)[:, 1:], atol=1e-6)
    words = text_scores(model, inputs, model.text_layer, ["attention-relevance", "attention-rollout"],
                        special="keep", attention=model.text_attention_layers)
    end = capture(model, inputs, [model.text_layer, *(f"{name}#1" for name in model.text_attention_layers)])
    names = [f"{name}#1" for name in model.text_attention_layers]
    step = torch.eye(5).expand(2, -1, -1)
    for name in names:
        step = step + (end.gradients[name] * end.activations[name]).clamp(min=0).mean(dim=1) @ step
    read_at = torch.stack([step[0, 3], step[1, 4]])  # the end-of-text tokens
    assert torch.allclose(words["attention-relevance"], read_at, atol=1e-6)
    assert words["attention-rollout"].shape == (2, 5) and (words["attention-rollout"][0, 4] == 0)  # padding is not read


def test_grad_cam_on_patch_tokens_is_grad_cam_on_their_map():
    model = small_vit(12, 6, side=36, width=16, layers=2).eval()
    inputs = {"images": torch.rand(2, 3, 36, 36), "tokens": TOKENS}
    taken = capture(model, inputs, model.image_layer)
    acts, grads = (patch_map(values[model.image_layer]) for values in (taken.activations, taken.gradients))
    expected = (grads.mean(dim=(2, 3), keepdim=True) * acts).sum(dim=1).clamp(min=0)
    assert torch.allclose(attribute(model, inputs, model.image_layer, "grad-cam", 1, "for"), expected, atol=1e-6)
    with pytest.raises(InputError, match="no square of patches"):
        patch_map(torch.zeros(1, 8, 4), layer="blocks.0")
    with pytest.raises(InputError, match="are no 3 x 3 patches"):
        attribute(small_vit(12, 6, side=24, width=16, layers=2).eval(), {"images": torch.rand(2, 3, 24, 24), "tokens": TOKENS},
                  model.image_layer, grid=(3, 3))
    with pytest.raises(InputError, match="names of the self-attention modules"):
        attribute(model, inputs, "input:images", "attention-rollout")


@pytest.mark.parametrize("new", [lambda: small_vit(12, 6, side=24, width=16, layers=2), lambda: small_cnn(12, 6)])
def test_a_word_by_patch_map_is_a_mixed_difference(new):
    model = new().double().eval()
    torch.manual_seed(0)
    inputs = {"images": torch.rand(2, 3, 24, 24, dtype=torch.double), "tokens": TOKENS}
    maps = word_by_patch(model, inputs)
    word, where, small = 2, (1, 0), 1e-4

    def stretched(patch: float, token: float) -> torch.Tensor:
        def more_patch(module, args, output):
            output = output.clone()
            if output.ndim == 4:
                output[:, :, where[0], where[1]] *= 1 + patch
            else:
                side = int((output.shape[1] - 1) ** 0.5)
                output[:, 1 + where[0] * side + where[1]] *= 1 + patch
            return output

        def more_word(module, args, output):
            output = output.clone()
            output[:, word] *= 1 + token
            return output

        hooks = [model.get_submodule(model.image_layer).register_forward_hook(more_patch),
                 model.get_submodule(model.text_layer).register_forward_hook(more_word)]
        with torch.no_grad():
            score = model(**inputs)
        for hook in hooks:
            hook.remove()
        return score

    mixed = (stretched(small, small) - stretched(small, -small) - stretched(-small, small) + stretched(-small, -small))
    assert torch.allclose(maps[:, word, where[0], where[1]], mixed / (4 * small**2), rtol=1e-3, atol=1e-5)
    assert maps.shape[:2] == (2, 5) and (maps[0, 4] == 0).all()  # padding


def test_early_fusion_is_read_in_first_order():
    torch.manual_seed(0)
    text = BertModel(BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                intermediate_size=16, max_position_embeddings=10))
    model = Fusion(ConvTower((4, 4, 8, 8, 8)), EncoderTower(text), width=16).eval()
    inputs, words = {"images": torch.rand(2, 3, 32, 32), "tokens": TOKENS[:, 1:]}, Tokens(layer=model.text_layer)
    maps = word_by_patch(model, inputs, words=words, order="first")

    def by_patch(given):
        taken = capture(model, given, model.image_layer)
        return (taken.gradients[model.image_layer] * taken.activations[model.image_layer]).sum(dim=1)

    hidden = inputs | {"tokens": inputs["tokens"].clone()}
    hidden["tokens"][:, 1] = 1
    assert torch.allclose(maps[:, 1], by_patch(inputs) - by_patch(hidden), atol=1e-6)
    assert (maps[0, 3] == 0).all()
    with pytest.raises(InputError, match="got order 'third', expected one of 'first', 'second'"):
        word_by_patch(model, inputs, order="third")


def test_cells_keep_the_sum():
    heat = torch.rand(2, 6, 9)
    found = to_cells(heat, (2, 3))
    assert torch.allclose(found[0, 1, 2], heat[0, 3:, 6:].sum()) and torch.allclose(found.sum(), heat.sum())
    with pytest.raises(InputError, match="at least one pixel a cell"):
        to_cells(heat, (7, 3))
