"""Videos, sounds, tables, and several modalities at once."""

import torch
from torch import Tensor, nn

from benchmarks.studies.zoo import Animal, Cells, Example, Frames, Rows, Stretches, Words, examples_of, padded
from benchmarks.studies.zoo.texts import spread

VIDEO = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=16,
    patch_size=8,
    num_labels=3,
    num_frames=4,
)
SOUND = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=[8, 8],
    conv_stride=[5, 4],
    conv_kernel=[10, 8],
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    classifier_proj_size=8,
    num_labels=3,
)
GRID = (2, 1, 2)


def video(family: str, kind: str, **sizes) -> Animal:
    """Return a classifier of videos."""
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForVideoClassification")(
        getattr(transformers, f"{kind}Config")(**VIDEO | sizes)
    )
    batch = {"pixel_values": torch.rand(2, 4, 3, 16, 16)}
    return Animal(
        family,
        "videos",
        spread(model.eval(), 0.1),
        batch,
        examples_of(batch, None),
        lambda model, one: model(**one).logits[0],
        [Frames("video", "pixel_values", GRID)],
    )


def wave(family: str, kind: str) -> Animal:
    """Return a classifier of sounds as they were sampled."""
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(getattr(transformers, f"{kind}Config")(**SOUND))
    batch = {"input_values": torch.randn(2, 800)}
    return Animal(
        family,
        "sounds",
        spread(model.eval(), 0.1),
        batch,
        examples_of(batch, None),
        lambda model, one: model(**one).logits[0],
        [Stretches("sound", "input_values")],
        {"stretches": 4},
    )


def spectrogram(family: str) -> Animal:
    """Return a classifier of spectrograms."""
    import transformers

    torch.manual_seed(1)
    if family.startswith("AST"):
        model = transformers.ASTForAudioClassification(
            transformers.ASTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                patch_size=8,
                num_labels=3,
                frequency_stride=8,
                time_stride=8,
                max_length=32,
                num_mel_bins=16,
            )
        )
        key, shape = "input_values", (2, 32, 16)
    else:
        model = transformers.WhisperForAudioClassification(
            transformers.WhisperConfig(
                vocab_size=60,
                num_mel_bins=16,
                d_model=16,
                encoder_layers=2,
                encoder_attention_heads=2,
                decoder_layers=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_source_positions=30,
                num_labels=3,
                classifier_proj_size=8,
                pad_token_id=0,
            )
        )
        key, shape = "input_features", (2, 16, 60)
    batch = {key: torch.rand(shape)}
    examples = [{key: batch[key][i : i + 1, None]} for i in range(2)]  # as a picture of one channel
    return Animal(
        family,
        "sounds",
        spread(model.eval(), 0.1),
        batch,
        examples,
        lambda model, one: model(**{key: one[key][:, 0]}).logits[0],
        [Cells("sound", key)],
    )


class Tables(nn.Module):
    """Reads a table of numbers and one of categories."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Sequential(nn.Linear(3 + 8, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return logits (N, 2)."""
        return self.head(torch.cat([numbers, self.embed(categories).flatten(1)], dim=1))


class Numbers(nn.Module):
    """Reads a table of numbers alone."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, numbers: Tensor) -> Tensor:
        """Return logits (N, 3)."""
        return self.head(numbers)


class Several(nn.Module):
    """Reads a picture and a sentence, and a sound and regions where it is told to: three or four modalities."""

    def __init__(self, four: bool):
        super().__init__()
        self.four = four
        self.see = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.words = nn.Embedding(60, 6)
        self.hear = nn.Sequential(
            nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 3, 8, 4), nn.Tanh(), nn.AdaptiveAvgPool1d(2), nn.Flatten()
        )
        self.regions = nn.Linear(5, 4)
        self.head = nn.Sequential(nn.Linear(16 + 6 + 6 + 4 * four, 12), nn.Tanh(), nn.Linear(12, 1))

    def forward(
        self,
        images: Tensor,
        input_ids: Tensor,
        waveform: Tensor,
        region_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return one logit an example, (N,)."""
        seen = (input_ids != 0).float() if attention_mask is None else attention_mask.float()
        said = (self.words(input_ids) * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True)
        parts = [self.see(images), said, self.hear(waveform)]
        if self.four:
            parts.append(self.regions(region_features).tanh().sum(dim=1))
        return self.head(torch.cat(parts, dim=1))[:, 0]


def table(family: str) -> Animal:
    """Return a model of tables; a category is hidden by that of another example, since there is none that says nothing."""
    torch.manual_seed(1)
    both = "categories" in family
    model = spread((Tables() if both else Numbers()).eval())
    batch, choices = {"numbers": torch.randn(4, 3 if both else 5)}, {}
    if both:
        batch["categories"] = torch.randint(1, 7, (4, 2))
        choices = {"categories_layer": "embed", "donors": {key: value.flip(0) for key, value in batch.items()}}
    examples = examples_of(batch, None)
    for example, other in zip(examples, examples[::-1]):
        if both:
            example["other"] = other["categories"]
    sides = [Rows("numbers", "numbers")] + ([Categories("categories", "categories")] if both else [])

    def logits(model: nn.Module, one: Example) -> Tensor:
        return model(**{key: one[key] for key in batch})[0]

    return Animal(family, "tables", model, batch, examples, logits, sides, choices | {"inputs": batch})


class Categories(Words):
    """Numbers of categories (1, F), read at the layer that embeds them: hidden by those of another example."""

    baseline = "data"

    def __init__(self, name: str, key: str):
        super().__init__(name, key, stay=(), embedding="embed", how="data")

    def hide(self, one: Example, features: list[int], example: Example) -> Example:
        """Return the example without some features."""
        values = one[self.key].clone()
        values[:, list(features)] = example["other"][:, list(features)]
        return {**one, self.key: values}


def several(four: bool) -> Animal:
    """Return a model of three or four modalities."""
    torch.manual_seed(2)
    model = spread(Several(four).eval())
    rows = [[11, 12], [21, 22]]
    ids, mask = padded(rows)
    batch = {"images": torch.rand(2, 3, 8, 8), "input_ids": ids, "waveform": torch.randn(2, 64)}
    sides = [
        Cells("image", "images", (1, 2)),
        Words(stay=(), mask_id=5, embedding="words", attention=None),
        Stretches("sound", "waveform", 2),
    ]
    if four:
        batch["region_features"] = torch.randn(2, 2, 5)
        sides.append(Rows("vectors", "region_features"))
    return Animal(
        f"{'four' if four else 'three'} modalities at once",
        "several modalities",
        model,
        batch,
        examples_of(batch, None),
        lambda model, one: model(**one),
        sides,
        {"inputs": batch, "special": (), "mask_id": 5, "pad_id": 0, "stretches": 2},
    )


ANIMALS = {
    "VideoMAE": lambda: video("VideoMAE", "VideoMAE", tubelet_size=2),
    "TimeSformer": lambda: video("TimeSformer", "Timesformer"),
    "ViViT": lambda: video("ViViT", "Vivit", tubelet_size=[2, 8, 8]),
    "wav2vec 2.0": lambda: wave("wav2vec 2.0", "Wav2Vec2"),
    "HuBERT": lambda: wave("HuBERT", "Hubert"),
    "WavLM": lambda: wave("WavLM", "WavLM"),
    "AST": lambda: spectrogram("AST"),
    "Whisper": lambda: spectrogram("Whisper"),
    "a table of numbers": lambda: table("a table of numbers"),
    "a table of numbers and categories": lambda: table("a table of numbers and categories"),
    "three modalities at once": lambda: several(False),
    "four modalities at once": lambda: several(True),
}
