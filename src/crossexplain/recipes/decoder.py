"""Chapter 8 on scenes: a small language model that gets a picture in its prompt, asked whether it shows something.

As LLaVA was trained: on the maps of a frozen image tower, that of early fusion, first to say what a picture shows, word by
word, then to answer questions about it, here with yes or no; phrases first, then also whole captions.

``data`` of a trained model are the :class:`~crossexplain.data.scenes.Scenes`.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaModel

from crossexplain.data import scenes
from crossexplain.data.scenes import Pairs, Scenes, tokenize
from crossexplain.models import decoder
from crossexplain.models.decoder import Decoder
from crossexplain.models.training import binary_loss, fit
from crossexplain.recipes import Recipe, Trained, load_or_train, state_file, with_checkpoint
from crossexplain.recipes.one_stream import FIRST, TRAIN, TWINS, described, held_out_pairs, tested
from crossexplain.recipes.scene_batches import Contrasts, Judged, Maps, Pictures
from crossexplain.recipes.scenes import TEST

NAME = "scenes_decoder"
PLAN = {"saying": (1, 1e-3), "phrases": (1, 1e-3), "captions": (3, 1e-3)}  # epochs and highest learning rate of each step
BEFORE, AFTER = ("does", "the", "picture", "show"), ("?", "answer")  # the prompt: "does the picture show a red ball ? answer"
IMAGE, ANSWERS = "[IMAGE]", ("yes", "no")
VOCABULARY = (*scenes.VOCABULARY, *(word for word in (IMAGE, *BEFORE, *AFTER, *ANSWERS) if word not in scenes.VOCABULARY))
YES, NO = (VOCABULARY.index(word) for word in ANSWERS)
NOT_ASKED = -100
CACHE = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"  # renamed in 5.24


def prompts(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Put each text into the question, padded at the front so that all questions end at the last place.

    Parameters
    ----------
    tokens : Tensor of int64, shape (N, T)
        Words of texts, which padding and the marks of start and end are left out of.

    Returns
    -------
    ids : Tensor of int64, shape (N, L)
    words : Tensor of bool, shape (N, L)
        Which of them are words of the text.
    """
    before, after = ([VOCABULARY.index(word) for word in part] for part in (BEFORE, AFTER))
    texts = [[token for token in row if token == 1 or token >= FIRST] for row in tokens.tolist()]  # 1 is [MASK]
    longest = max(map(len, texts))
    ids = [[0] * (longest - len(text)) + before + text + after for text in texts]
    words = [[False] * (longest - len(text) + len(before)) + [True] * len(text) + [False] * len(after) for text in texts]
    return torch.tensor(ids), torch.tensor(words)


class Asked(nn.Module):
    """The model as it is trained, on maps that were computed before: all questions about a picture read its patches once.

    Parameters
    ----------
    model : Decoder
    saying : bool
        Return logits of the next word at each place of the prompt, (P, V, L), in place of those of yes.
    """

    def __init__(self, model: Decoder, saying: bool = False):
        super().__init__()
        self.model, self.saying = model, saying

    def forward(self, maps: Tensor, tokens: Tensor, picture: Tensor | None = None) -> Tensor:
        """Return the logits (P,) of yes; without ``picture`` each question belongs to the map of its number."""
        language = self.model.language
        patches = self.model.patches(maps)
        known = DynamicCache()  # keys and values of the patches, which do not depend on what is asked
        language.model(inputs_embeds=patches, use_cache=True, **{CACHE: known})
        if picture is not None:
            known.batch_select_indices(picture)
        here = torch.cat([tokens.new_ones(len(tokens), patches.shape[1]), (tokens != 0).long()], dim=1)
        places = (here.cumsum(dim=1) - 1)[:, patches.shape[1] :].clamp(min=0)
        states = language.model(input_ids=tokens, attention_mask=here, position_ids=places, use_cache=True,
                                **{CACHE: known}).last_hidden_state
        if self.saying:
            words: Tensor = language.lm_head(states).transpose(1, 2)
            return words
        return yes(language.lm_head(states[:, -1:]))


class Questions:
    """Texts as questions, with the words that follow each place or with the answers.

    Parameters
    ----------
    texts : Judged
    saying : bool
        Ask for the next words of texts that are true.
    """

    def __init__(self, texts: Judged, saying: bool = False):
        self.texts, self.saying = texts, saying

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the inputs of :class:`Asked`, and answers (P,) or words (P, L), ``NOT_ASKED`` where none is asked for."""
        given, labels = self.texts.batch(indices)
        ids, words = prompts(given["tokens"])
        if self.saying:
            labels = torch.full_like(ids, NOT_ASKED)
            labels[:, :-1] = ids[:, 1:].where(words[:, 1:] | words[:, :-1], labels[:, 1:])  # the text, and where it ends
        return given | {"tokens": ids}, labels


def yes(output: Tensor) -> Tensor:
    """Return the logit (N,) of yes against no as the next word, from the output (N, L, V) of a model."""
    return output[:, -1, YES] - output[:, -1, NO]


def new_model(seed: int = 0) -> Decoder:
    """Return a model with random weights, but for the image tower, which has learned to name what stands where."""
    model = decoder.small(len(VOCABULARY), VOCABULARY.index(IMAGE), scenes.SIDE, seed=seed)
    model.image.load_state_dict(load_or_train("scenes_fusion").model.image.state_dict())
    model.image.requires_grad_(False)
    return model


def train(seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None, *,
          data: Scenes | None = None, plan: dict[str, tuple[int, float]] | None = None) -> Trained:
    """Train a model: say what pictures show, answer questions of a phrase, answer questions of a caption.

    Parameters
    ----------
    seed, size, progress, resume, data, plan
        As for :func:`crossexplain.recipes.one_stream.train`.

    Returns
    -------
    Trained
    """
    small = size == "small"
    data = data or scenes.load(sizes=(64, 20, 20) if small else (TRAIN, *scenes.SIZES[1:]))
    plan = plan or {step: (1 if small else epochs, rate) for step, (epochs, rate) in PLAN.items()}
    model, histories = new_model(seed), {}
    maps = Maps(model, Pictures(data, np.concatenate([data.splits["train"], data.splits["validation"]])))
    twins, held_out = data.splits["train"].reshape(-1, 2), held_out_pairs(data, maps, 8 if small else 800)
    held_out.inputs["tokens"] = prompts(held_out.inputs["tokens"])[0]
    for step, (epochs, lr) in plan.items():
        saying = step == "saying"
        texts = Judged(Contrasts(data, maps, twins, captions=step != "phrases"), both=not saying)
        loss = nn.functional.cross_entropy if saying else binary_loss
        if epochs:
            histories[step] = fit(Asked(model, saying), Questions(texts, saying), None if saying else held_out, epochs=epochs,
                                  lr=lr, seed=seed, batch_size=TWINS, progress=progress, half=True, loss=loss,
                                  checkpoint=state_file(resume, NAME, seed, step))
    return Trained(name=NAME, model=model.requires_grad_(False).eval(), data=data, seed=seed, histories=histories)


def load(**_: Any) -> Trained:
    """Return the model that travels with the book."""
    model = decoder.small(len(VOCABULARY), VOCABULARY.index(IMAGE))
    return with_checkpoint(Trained(name=NAME, model=model, data=scenes.load()))


def inputs(images: Tensor, captions: Sequence[str], grid: int = 6) -> dict[str, Tensor]:
    """Return what the model and an explanation of it need, for pictures (N, 3, H, W) and their captions.

    Returns
    -------
    dict of str to Tensor
        ``images``; ``input_ids`` and ``attention_mask`` (N, L), an image token for each patch before the question, padded at
        the front; ``special_mask`` (N, L), True for all that is no word of the caption, which the model does not take.
    """
    ids, words = prompts(tokenize(captions))
    patches = torch.full((len(ids), grid**2), VOCABULARY.index(IMAGE))
    joined = torch.cat([patches, ids], dim=1)
    special = torch.cat([torch.ones_like(patches, dtype=torch.bool), ~words], dim=1)
    padding_first = (joined != 0).long().argsort(dim=1, stable=True)
    joined, special = joined.gather(1, padding_first), special.gather(1, padding_first)
    return {"images": images, "input_ids": joined, "attention_mask": (joined != 0).long(), "special_mask": special}


def logits(model: Decoder, pairs: Pairs) -> Tensor:
    """Return the logits of yes of pairs, (N,); each picture is looked at once."""
    pictures = np.unique(pairs.image)
    maps, asked = Maps(model, Pictures(pairs.scenes, pictures)), Asked(model).eval()
    tokens = prompts(pairs.tokens())[0]
    with torch.no_grad():
        return torch.cat([asked(maps[pairs.image[part]], tokens[part]) for part in torch.arange(len(pairs)).split(200)])


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    pairs = {kind: trained.data.build("test", TEST, trained.seed, kind) for kind in ("random", "foil")}
    return described(*(tested(logits(trained.model, one), one) for one in pairs.values()))


RECIPES = {NAME: Recipe(NAME, train, load, card)}
