"""Every family, adapted and asked by every method, is right or refused in this package's own words."""

import pytest
import torch

from benchmarks import families
from benchmarks.families import ANIMALS, METHODS, NOT, REFUSED, RIGHT, Asked, outcome
from benchmarks.studies import typed, zoo
from benchmarks.studies.zoo import decoders, pairs, pictures, texts

SLOW = {"Gemma 3", "BridgeTower", "Qwen3-VL", "GroupViT", "torchvision wide ResNet (small)"}  # left to the benchmark
CORE = "game", "exact shapley", "gradient norm", "gradient x input", "feature ablation (Captum)", "preflight"


def judged(animal: zoo.Animal) -> dict[str, tuple[str, str]]:
    asked = Asked(animal)
    return {method: outcome(check, asked) for method, check in METHODS.items()}


def require_right(came: dict[str, tuple[str, str]], also: tuple[str, ...] = ()) -> None:
    assert not {method: reason for method, (kind, reason) in came.items() if kind not in (RIGHT, REFUSED, NOT)}
    assert not {method: came[method] for method in (*CORE, *also) if came[method][0] != RIGHT}


@pytest.mark.parametrize("name", [name for name in ANIMALS if name not in SLOW and not name.startswith("timm")])
def test_a_family_is_right_by_every_method_or_the_method_is_refused(name):
    animal = ANIMALS[name]()
    also = ("rounds",) * (len(animal.sides) > 1) + ("Grad-CAM",) * bool(animal.maps)
    words = any(isinstance(side, zoo.Words) for side in animal.sides) and animal.kind != "tables"
    require_right(judged(animal), (*also, *("word scores",) * words, *("attention relevance",) * bool(animal.attention)))


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(("answer", "against"), [((30, 33, 31), ()), ((30, 33), (31, 32, 34)), ((30,), (31,))],
                         ids=["several tokens", "one answer against another", "one token against another"])
def test_an_answer_of_several_tokens_follows_the_last_token_that_is_attended(answer, against, padding):
    animal = decoders.with_pictures("LLaVA", answer, against[:1], padding)
    if len(against) > 1 or len(answer) > 1 and against:  # by hand each answer for itself
        one, other = decoders.with_pictures("LLaVA", answer, (), padding), decoders.with_pictures("LLaVA", against, (), padding)
        animal.logits = lambda model, example: one.logits(model, example) - other.logits(model, example)
        animal.choices = {"answer": list(answer), "against": list(against)}
        animal.positive = False
    require_right(judged(animal), ("rounds", "word scores"))


@pytest.mark.parametrize("make", [
    lambda: decoders.with_pictures("Qwen2-VL", (30, 33)), lambda: decoders.with_pictures("PaliGemma", (30, 33)),
    lambda: decoders.with_pictures("Idefics2", (30, 33), (), "left"), lambda: decoders.git((30, 33)),
    lambda: decoders.text_only("GPT-2", (30, 33)), lambda: decoders.text_only("Llama", (30, 33), "right"),
    lambda: decoders.blip("QuestionAnswering", (30, 33)), lambda: decoders.t5((30,)),
], ids=["Qwen2-VL", "PaliGemma", "Idefics2", "GIT", "GPT-2", "Llama", "BLIP (VQA)", "T5"])
def test_an_answer_of_several_tokens_is_right_for_every_kind_of_decoder(make):
    require_right(judged(make()))


@pytest.mark.parametrize("how", ["mask", "delete", "pad"])
def test_every_way_to_hide_words_is_what_it_is_by_hand(how):
    animal = texts.encoder("BERT", pairs=True)
    animal.sides = [zoo.Words(**{**vars(animal.sides[0]), "how": how})]
    require_right(judged(animal))


def test_a_page_with_a_picture_has_both_modalities_and_boxes_that_travel_with_the_words():
    import transformers

    torch.manual_seed(0)
    config = transformers.LayoutLMv3Config(**texts.SMALL | {"max_position_embeddings": 40}, input_size=32, patch_size=8,
                                           coordinate_size=4, shape_size=2, max_2d_position_embeddings=100,
                                           max_rel_pos=8, rel_pos_bins=4, max_rel_2d_pos=8, rel_2d_pos_bins=4)
    model = texts.spread(transformers.LayoutLMv3ForSequenceClassification(config).eval(), 0.1)
    rows, boxes = [[2, 11, 12, 13, 3], [2, 21, 22, 23, 3]], torch.randint(1, 50, (2, 5, 2)).sort(dim=2).values
    boxes = torch.cat([boxes, boxes + 20], dim=2)
    ids, mask = zoo.padded(rows)
    batch = {"input_ids": ids, "attention_mask": mask, "bbox": boxes, "pixel_values": torch.rand(2, 3, 32, 32)}
    examples = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(2)]
    words = zoo.Words(embedding="layoutlmv3.embeddings.word_embeddings", how="delete", along=("bbox",))
    animal = zoo.Animal("LayoutLMv3", "texts", model, batch, examples, lambda model, one: model(**one).logits[0],
                        [words, zoo.Cells("image", "pixel_values")], {"special": (2, 3), "mask_id": 4, "pad_id": 0})
    require_right(judged(animal), ("rounds",))


def test_pictures_that_a_processor_cuts_have_to_be_of_one_size():
    animal = decoders.with_pictures("Qwen2-VL")
    batch = animal.batch | {"image_grid_thw": torch.tensor([[1, 4, 4], [1, 2, 8]])}
    with pytest.raises(families.InputError, match="pictures of one size"):
        Asked(animal).adapted.inputs(batch)


def test_the_layer_for_maps_of_every_classifier_of_torchvision_is_there():
    from torchvision import models

    from crossexplain import adapt

    for name in models.list_models(module=models):
        if name.startswith(("vgg", "vit", "regnet_y_128", "convnext_large")):  # large, and of a kind with the others
            continue
        with torch.device("meta"):
            model = models.get_model(name, weights=None)
        layer = adapt(model).layers["image"]
        assert layer and isinstance(model.get_submodule(layer), torch.nn.Module), name


def test_siglip_without_a_mask_reads_its_padding_as_it_was_trained():
    animal = pairs.dual("SigLIP")
    assert Asked(animal).adapted.modalities[1].attention is None


def test_what_is_written_is_what_came_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "ANIMALS", {"BERT": lambda: texts.encoder("BERT")})
    monkeypatch.setattr(families, "TABLE", tmp_path / "families.csv")
    monkeypatch.setattr(pictures, "larger", dict)
    counts = {row["id"]: row["value"] for row in families.rows()}
    assert [counts[f"adapters.{what}"] for what in ("families", "wrong", "foreign_errors")] == [1, 0, 0]
    assert all(counts[f"adapters.lines.{library}"] > 2 for library in ("grad-cam", "captum", "shapiq"))
    lines = (tmp_path / "families.csv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + len(METHODS) and lines[0] == "family,kind,method,outcome,reason"


@pytest.mark.parametrize("task", typed.TASKS)
def test_what_is_typed_here_and_with_another_library_gives_the_same(task):
    make, library, here, there = typed.TASKS[task]
    pytest.importorskip({"grad-cam": "pytorch_grad_cam"}.get(library, library))
    found, expected = (typed.run(code, make()) for code in (here, there))
    assert torch.allclose(found, expected, atol=1e-4)
    assert typed.lines_of(here) < typed.lines_of(there)
    assert max(map(len, (here + there).splitlines())) <= 88
