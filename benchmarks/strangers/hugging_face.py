"""Models of transformers with random weights, a layer or two of sixteen numbers; each with inputs and its modalities."""

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LxmertConfig,
    LxmertForQuestionAnswering,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    ViltConfig,
    ViltForQuestionAnswering,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors

BEGIN, END, MASK = 2, 3, 4  # ids of special tokens
BLOCKS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PICTURE = {"image_size": 32, "patch_size": 8}
Made = tuple[nn.Module, dict[str, Tensor], list]


def sentences(n: int, words: int, seed: int = 0) -> dict[str, Tensor]:
    """Return ids (N, T) between a begin and an end, and their attention mask."""
    ids = torch.randint(5, 50, (n, words), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = BEGIN, END
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pictures(n: int, side: int = 32) -> Tensor:
    """Return pictures (N, 3, side, side)."""
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def words_of(model: nn.Module, vocabulary: int = 60, **more) -> Tokens:
    """Return the words of a model, read at the embedding of its vocabulary."""
    layer = next(name for name, module in model.named_modules()
                 if isinstance(module, nn.Embedding) and module.num_embeddings == vocabulary)
    settings = {"mask_id": MASK, "pad_id": 0, "special": (BEGIN, END), "attention": "attention_mask", "layer": layer}
    return Tokens(input="input_ids", **(settings | more))


def vilt(n: int = 3) -> Made:
    """Words and patches in one sequence, the words first."""
    model = ViltForQuestionAnswering(ViltConfig(vocab_size=60, max_position_embeddings=12, num_labels=4, **BLOCKS, **PICTURE))
    inputs = sentences(n, 6) | {"pixel_values": pictures(n)}
    return model.eval(), inputs, [ImageCells(input="pixel_values"), words_of(model)]


def dual(kind: str, n: int = 4) -> Made:
    """CLIP or SigLIP as they are: the output is every picture with every text."""
    text = BLOCKS | {"vocab_size": 60, "max_position_embeddings": 12, "eos_token_id": END, "bos_token_id": BEGIN,
                     "pad_token_id": 1}
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=BLOCKS | PICTURE, projection_dim=16))
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=BLOCKS | PICTURE))
    inputs = {"input_ids": sentences(n, 5)["input_ids"], "pixel_values": pictures(n)}
    return model.eval(), inputs, [ImageCells(input="pixel_values"), words_of(model, mask_id=MASK, pad_id=1, attention=None)]


class Diagonal(nn.Module):
    """What an author of a wrapper writes: the pairs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.clip = model

    def forward(self, **inputs):
        return self.clip(**inputs).logits_per_image.diagonal()


def blip(n: int = 4) -> Made:
    """A matching head of two logits."""
    model = BlipForImageTextRetrieval(BlipConfig(
        text_config=BLOCKS | {"vocab_size": 60, "encoder_hidden_size": 16, "projection_dim": 16, "max_position_embeddings": 16,
                              "bos_token_id": 1, "sep_token_id": END, "pad_token_id": 0},
        vision_config=BLOCKS | PICTURE | {"projection_dim": 16}, image_text_hidden_size=16))
    inputs = sentences(n, 5) | {"pixel_values": pictures(n)}
    return model.eval(), inputs, [ImageCells(input="pixel_values"), words_of(model)]


def lxmert(n: int = 4) -> Made:
    """Vectors of a detector, with boxes that belong to them."""
    model = LxmertForQuestionAnswering(LxmertConfig(
        vocab_size=60, hidden_size=16, num_attention_heads=2, num_qa_labels=4, intermediate_size=32, l_layers=1, x_layers=1,
        r_layers=1, visual_feat_dim=12, max_position_embeddings=16))
    inputs = sentences(n, 5) | {"visual_feats": torch.rand(n, 4, 12), "visual_pos": torch.rand(n, 4, 4)}
    return model.eval(), inputs, [Vectors("boxes", "visual_feats"), words_of(model)]


def visual_bert(n: int = 4) -> Made:
    """Words and vectors in one sequence, the words first."""
    model = VisualBertForQuestionAnswering(VisualBertConfig(vocab_size=60, visual_embedding_dim=12, max_position_embeddings=20,
                                                            num_labels=4, **BLOCKS))
    inputs = sentences(n, 6) | {"visual_embeds": torch.rand(n, 5, 12),
                                "visual_attention_mask": torch.ones(n, 5, dtype=torch.long)}
    return model.eval(), inputs, [Vectors("image", "visual_embeds"), words_of(model)]


def sentence_pairs() -> Made:
    """BERT on pairs of sentences, of which the token types tell the first from the second."""
    model = BertForSequenceClassification(BertConfig(vocab_size=60, max_position_embeddings=32, num_labels=3,
                                                     initializer_range=0.4, **BLOCKS))
    nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight)
    ids = torch.tensor([[2, 10, 11, 12, 13, 3, 20, 21, 3], [2, 14, 15, 16, 17, 3, 22, 23, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids),
              "token_type_ids": torch.tensor([[0] * 6 + [1] * 3] * 2)}
    return model.eval(), inputs, [words_of(model)]


def llava(n: int = 4) -> Made:
    """A decoder whose prompt holds four places for the patches of the picture."""
    begin, place = 1, 50
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **BLOCKS),
        text_config=LlamaConfig(vocab_size=64, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, **BLOCKS),
        image_token_index=place, vision_feature_layer=-1))
    ids = torch.cat([torch.full((n, 1), begin), torch.full((n, 4), place), torch.randint(5, 49, (n, 4))], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pictures(n, 16)}
    text = words_of(model, 64, mask_id=None, special=(begin, place), padding_side="left")
    return model.eval(), inputs, [ImageCells(input="pixel_values"), text]


def last_token(output: object) -> Tensor:
    """Return the logit of one token after the prompt."""
    return output.logits[:, -1, 30]


class T5Classifier(nn.Module):
    """The mean of T5's states, whose self-attention gives its map third, after the bias of positions."""

    def __init__(self):
        super().__init__()
        self.t5 = T5EncoderModel(T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                                          attn_implementation="eager"))
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        return self.head(self.t5(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.mean(dim=1))
