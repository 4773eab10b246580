"""What the front door gives, for type checkers and editors; the names are those of ``__init__.py``."""

from crossexplain.adapters import Adapted as Adapted
from crossexplain.adapters import adapt as adapt
from crossexplain.checks import InputError as InputError
from crossexplain.coalitions.game import Game as Game
from crossexplain.evaluation.methods import explain as explain
from crossexplain.gradients.called import Called as Called
from crossexplain.gradients.capture import capture as capture
from crossexplain.gradients.groups import Groups as Groups
from crossexplain.gradients.modalities import Columns as Columns
from crossexplain.gradients.modalities import ImageCells as ImageCells
from crossexplain.gradients.modalities import Modality as Modality
from crossexplain.gradients.modalities import Tokens as Tokens
from crossexplain.gradients.modalities import Vectors as Vectors
from crossexplain.gradients.modalities import Video as Video
from crossexplain.gradients.modalities import word_numbers as word_numbers
from crossexplain.gradients.preflight import preflight as preflight
from crossexplain.gradients.rounds import rounds as rounds
from crossexplain.gradients.views import Mask as Mask
from crossexplain.gradients.views import Noise as Noise
from crossexplain.gradients.views import Reorder as Reorder
from crossexplain.intervals import Interval as Interval
from crossexplain.recipes import load_or_train as load_or_train

__version__: str
