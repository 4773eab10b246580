"""The model of collages that the paper's code trained, which chapters 3 and 4 take apart."""

import torch
from torch import Tensor, nn

from crossexplain.checks import require_images, require_tokens
from crossexplain.models.cnn_lstm import SIDE


class PublishedCnnLstm(nn.Module):
    """What the paper's code trains on the collages. To be studied, not used.

    Four convolutions and eight LSTM layers (the paper's text says six and two), sentences padded in front to 20 words,
    and only the last step read. The words' influence has to pass eight layers that begin with padding, and does not
    arrive; and the gradient at ``text_layer``, where the paper reads it, is zero at every step but the last by
    construction.

    Parameters
    ----------
    vocabulary : int
    relu_on_logit : bool
        End in a ReLU, as the published model of photographs and captions does: a "no" can then only be a logit of 0,
        where the gradient is 0.
    layers : int
        Of the LSTM.
    """

    image_layer = "features"
    text_layer = "lstm"
    PADDED = 20

    def __init__(self, vocabulary: int, relu_on_logit: bool = False, layers: int = 8):
        super().__init__()
        convolutions: list[nn.Module] = []
        for before, width, kernel in ((1, 16, 5), (16, 32, 5), (32, 64, 5), (64, 32, 3)):
            convolutions += [nn.Conv2d(before, width, kernel, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*convolutions)  # (N, 32, 4, 4)
        self.embedding = nn.Embedding(vocabulary, 100)
        self.lstm = nn.LSTM(100, 128, num_layers=layers, dropout=0.2, batch_first=True)
        self.said = nn.Sequential(nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU())
        self.fusion = nn.Sequential(nn.Linear(32 * 16 + 128, 128), nn.ReLU(), nn.Linear(128, 1))
        self.relu_on_logit = relu_on_logit

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return the logit, shape (N,); inputs as for :class:`crossexplain.models.cnn_lstm.CnnLstm`, padded in front here."""
        require_images(images, channels=1, side=2 * SIDE, unit=True)
        require_tokens(tokens, self.embedding.num_embeddings)
        steps, _ = self.lstm(self.embedding(_pad_in_front(tokens, self.PADDED)))  # (N, 20, 128)
        joined = torch.cat([self.features(images).flatten(1), self.said(steps[:, -1])], dim=1)
        logit = self.fusion(joined)[:, 0]
        return logit.relu() if self.relu_on_logit else logit


def _pad_in_front(tokens: Tensor, length: int) -> Tensor:
    """Move the padding from after the words to before them, (N, T) to (N, length)."""
    padded = nn.functional.pad(tokens, (0, length - tokens.shape[1]))
    order = (padded != 0).long().sort(dim=1, stable=True).indices
    return padded.gather(1, order)
