"""Other people's models, adapted: which parts they have, what is read and hidden, and what is judged.

``adapt`` looks at a model's class, configuration and processor, says what it chose, and refuses what it does not know.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from crossexplain.adapters import decoders, dual_encoders, one_stream, others, pictures, texts
from crossexplain.adapters.draft import Adapted, Draft
from crossexplain.checks import InputError

__all__ = ["Adapted", "adapt"]
FAMILIES = (*one_stream.FAMILIES, *dual_encoders.FAMILIES, *decoders.FAMILIES, *others.FAMILIES, *texts.FAMILIES,
            *pictures.FAMILIES, *others.LAST)


def adapt(model: nn.Module, processor: object = None, inputs: Mapping[str, Any] | None = None, **choices: Any) -> Adapted:
    """Return a model of other people's with everything that explaining it takes.

    Parameters
    ----------
    model : torch.nn.Module
        Of transformers, torchvision, timm, open_clip, or one of your own with an input that is recognised.
    processor : optional
        Its processor or tokenizer: it knows the ids of [MASK], of the padding, and of what is no word.
    inputs : mapping of str to Tensor, optional
        A few examples, as the processor gives them. Where a model of your own is adapted they show what each input is.
    **choices
        Choices of your own, in place of what would be chosen: ``target``; ``answer`` and ``against`` (of a generative model);
        ``template`` (what of its prompt stands before and after the question); ``whole_words=True``;
        ``attention_modules={"text": [...]}``; and every parameter of a modality, as in ``grid=(4, 4)``,
        ``text_layer="..."``, ``mask_id=103`` or ``special=(101, 102)``.

    Returns
    -------
    Adapted
        ``print`` it to see what was chosen.

    Raises
    ------
    InputError
        For a model that is not known, with the lines to type instead; for what has to be passed; and an unknown choice.

    Examples
    --------
    >>> from torchvision.models import squeezenet1_1
    >>> adapted = adapt(squeezenet1_1(), grid=(3, 3))
    >>> adapted.modalities[0].input, adapted.layers["image"]
    ('x', 'features')
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"got a model of type {type(model).__name__}, expected a torch.nn.Module.")
    if not (inputs is None or isinstance(inputs, Mapping)):
        raise InputError(f"got inputs as {type(inputs).__name__}, expected examples by keyword, as the processor gives them.")
    model = getattr(model, "_orig_mod", model)  # what torch.compile was given: layers of a compiled model are not called
    draft = Draft(model, processor, inputs, choices)
    return next(make for fits, make in FAMILIES if fits(model))(draft)
