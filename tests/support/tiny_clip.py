"""A tiny CLIP of random weights in the format and with the quirks of the published one."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from crossexplain.models import clip

START, STOP = "<|startoftext|>", "<|endoftext|>"
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # a piece for every byte, within a word and as its end
MERGES = [("c", "a"), ("d", "o"), ("do", "g</w>"), ("r", "u"), ("ru", "n"), ("run", "s</w>")]
PIECES = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *map("".join, MERGES), START, STOP]


def write(folder: Path, weights: str = "model.safetensors") -> CLIPModel:
    """Write model, processor and tokenizer into a folder, and return the model."""
    # The published configuration names 2 as its end of text, which is not so: it is the last of the vocabulary.
    config = CLIPConfig(
        text_config={"vocab_size": len(PIECES), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
                     "num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 2},
        vision_config={"image_size": 16, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16,
                       "num_hidden_layers": 2, "num_attention_heads": 2},
        projection_dim=8,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    if weights == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / weights)
    pixels = {"image_mean": list(clip.MEAN), "image_std": list(clip.STD), "size": 16, "crop_size": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    rules = Tokenizer(models.BPE({piece: i for i, piece in enumerate(PIECES)}, MERGES, end_of_word_suffix="</w>",
                                 unk_token=STOP))
    rules.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    rules.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
    stop, start = ((piece, PIECES.index(piece)) for piece in (STOP, START))
    rules.post_processor = processors.RobertaProcessing(stop, start, trim_offsets=False, add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=START, eos_token=STOP, pad_token=STOP, unk_token=STOP,
                            model_max_length=8, model_input_names=["input_ids", "attention_mask"]).save_pretrained(folder)
    return model
