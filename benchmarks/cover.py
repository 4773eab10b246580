"""The cover of the book: one pair of a collage and a sentence, seen four times by the model of chapter 4.

Writes ``book/images/cover.html``, which the first page shows; its numbers are those of the rows. The pair is chosen by rule:
of the true test pairs about the largest digit, right with both parts and wrong with either part alone, the one in which the
gradient of the first round points most clearly at the digit that decides.
"""

import html
import io
from base64 import b64encode
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crossexplain import rounds
from crossexplain.data import collages
from crossexplain.files import write_whole
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.recipes import load_or_train
from crossexplain_book import find_root

PAGE = find_root(Path(__file__).parent) / "book" / "images" / "cover.html"
STYLE = Path(__file__).with_name("studies") / "cover.css"
VIEWS = {"full": "both", "text masked": "picture only", "image masked": "sentence only", "all masked": "neither"}


def rows(seed: int = 0) -> list[dict]:
    """Return the probability of a match and the gradient norms of each view; write the cover."""
    trained = load_or_train("collages", progress=False)
    test, model = collages.build(trained.data, 128, "test", seed), trained.model
    inputs = test.inputs()
    record = rounds(model, inputs, [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)],
                    baselines=[{"image": "zero", "text": "mask"}], control=False, seed=seed, progress=False)
    passes = {view: record.passes[record.baselines[0], view] for view in VIEWS}
    yes = {view: one.logits[:, 0].numpy() > 0 for view, one in passes.items()}
    # Right with both, wrong with either part alone: what the sentence below the pictures says.
    fits = (test.labels == 1) & (test.kind // 2 == 0) & yes["full"] & ~yes["text masked"] & ~yes["image masked"]
    cells = passes["full"].importance["image"].numpy()  # (N, 4)
    clear = (cells * test.deciding_cells).sum(axis=1) / cells.sum(axis=1).clip(1e-9)
    example = int(np.where(fits, clear, -np.inf).argmax())
    chances = {view: float(torch.sigmoid(one.logits[example, 0])) for view, one in passes.items()}
    top = {name: max(float(one.importance[name][example].max()) for one in passes.values() if one.importance)
           for name in record.modalities}
    shares = {view: {name: (one.importance[name][example] / top[name]).tolist() for name in one.importance}
              for view, one in passes.items()}
    norms = {view: {name: float(one.norms[name][example]) for name in one.norms} for view, one in passes.items()}
    page = cover(inputs["images"][example, 0].numpy(), collages.words(inputs["tokens"][example]), chances, shares, norms)
    write_whole(PAGE, lambda part: part.write_text(page, "utf-8"))
    numbers = {f"{view}.match": (chances[view], "probability of a match") for view in VIEWS}
    for view in VIEWS:
        numbers |= {f"{view}.{name}": (norm, f"gradient norm at the {name}") for name, norm in norms[view].items()}
    return [{"id": f"cover.{key.replace(' masked', '_masked')}", "value": value, "low": value, "high": value, "n": 1,
             "unit": unit} for key, (value, unit) in numbers.items()]


def cover(image: np.ndarray, words: list[str], chances: dict, shares: dict, norms: dict) -> str:
    """Return the cover as HTML that needs no script.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        From 0, paper, to 1, ink.
    words : list of str
        Of the sentence.
    chances : dict of str to float
        Probability of a match, by view.
    shares, norms : dict of str to dict
        Gradient of each feature on one scale for all views, and the raw norm, by view and modality.
    """
    sentence = " ".join(words)
    said = "; ".join(f"{name}: {_answer(chances[view])}" for view, name in VIEWS.items())
    choices = "".join(f'<label><input type="radio" name="ce-cover" id="ce-cover-{k}"{" checked" * (not k)}>{name}</label>'
                      for k, name in enumerate(("play", *VIEWS.values())))
    views = "".join(_view(k, name, view, _png(image), words, chances[view], shares[view], norms[view])
                    for k, (view, name) in enumerate(VIEWS.items(), start=1))
    return (f'<div class="ce-cover" role="group" aria-label="A collage of four digits and the sentence '
            f'{html.escape(sentence)!r} given to one network four times. Its answer: {said}."><style>{STYLE.read_text("utf-8")}'
            f"</style><fieldset><legend>What the network gets</legend>{choices}</fieldset>"
            f'<div class="ce-cover-views">{views}</div><p class="ce-cover-norms">One pair, one network, seen four times. '
            "Orange is the length of the gradient at a digit or a word, with its number, on one scale for all four; the bar is "
            f"how likely the network finds a match. It says {_answer(chances['full']).split(',')[0]} only where it gets both."
            "</p></div>\n")


def _view(number: int, name: str, view: str, png: str, words: list[str], chance: float, shares: dict, norms: dict) -> str:
    image, text = name in ("both", "picture only"), name in ("both", "sentence only")
    cells = "".join(f'<i><span style="background:{_tint(share)}"></span><b>{share:.2f}</b></i>'
                    for share in shares.get("image", ())[:4] if image)
    tokens = " ".join(_token(word, share if text else None)
                      for word, share in zip(words, shares.get("text") or [0.0] * len(words)))
    seen = [("image", "picture")] * image + [("text", "words")] * text
    steep = ", ".join(f"at the {part} {norms[key]:.2g}" for key, part in seen if key in norms)
    return (f'<section class="ce-cover-view ce-cover-v{number}" aria-label="{name}"><p class="ce-cover-name">{name}</p>'
            f'<div class="ce-cover-picture"><img alt="Four handwritten digits in two rows of two" src="{png}">'
            f'{cells or "<span class=ce-cover-hatch></span>"}</div>'
            f'<p class="ce-cover-words">{tokens}</p><p class="ce-cover-answer"><span class="ce-cover-bar">'
            f'<i style="width:{chance:.0%}"></i></span> {_answer(chance)}</p>'
            f'<p class="ce-cover-norms">{f"length of the gradient: {steep}" if steep else "nothing left to ask"}</p></section>')


def _answer(chance: float) -> str:
    word, sure = ("match", chance) if chance > 0.5 else ("no match", 1 - chance)
    return f"{word}, over 99%" if sure > 0.995 else f"{word}, {sure:.0%}"


def _token(word: str, share: float | None) -> str:
    if share is None:
        return f'<span class="ce-cover-hidden">{html.escape(word)}</span>'
    return f'<span style="background:{_tint(share)}">{html.escape(word)}<b>{share:.2f}</b></span>'


def _tint(share: float) -> str:
    """Return orange as strong as a share, under dark text always light enough to read."""
    return f"rgba(240,120,30,{0.75 * share:.2f})"


def _png(image: np.ndarray) -> str:
    packed = io.BytesIO()
    Image.fromarray((255 * (1 - image)).round().astype(np.uint8)).save(packed, "png", optimize=True)
    return f"data:image/png;base64,{b64encode(packed.getvalue()).decode()}"
