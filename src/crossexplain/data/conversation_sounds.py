"""The sound of generated conversations: a digit dialled as its two standard tones, or said by a real voice, and noise.

All sound is kept as the power in mel bands; powers of sounds heard at once are added, and heard in decibels above hearing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import rfft

from crossexplain.checks import InputError
from crossexplain.data.conversation_seeds import below, uniform

RATE, SEGMENT = 8000, 3840  # samples a second; of a segment, 0.48 seconds
MELS, STEPS, S = 24, 12, 3  # bands, moments of a segment, segments of a turn
LOW, HIGH = 150.0, 3800.0  # hertz
TONES = {digit: (low, high) for digit, (low, high) in zip(
    "123456789*0#", ((low, high) for low in (697, 770, 852, 941) for high in (1209, 1336, 1477)))}  # ITU-T Q.23
_WINDOW, _TAKES, _NOISES, _HEARING = 512, 24, 600, 1e-3


def mel_power(wave: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Return the power of a sound in mel bands at evenly spaced moments.

    Parameters
    ----------
    wave : array_like, shape (samples,) or (R, samples)
        From -1 to 1.
    rate : int
        Samples a second.

    Returns
    -------
    ndarray, shape (MELS, STEPS) or (R, MELS, STEPS), float32
        The moments divide the sound evenly, however long it is.

    Raises
    ------
    InputError
        For another rate than 8,000, no sample, another number of axes, and NaN or infinity.
    """
    wave = np.asarray(wave, dtype=np.float32)
    if rate != RATE:
        raise InputError(f"got a sound of {rate} samples a second, expected {RATE}; resample it, for example with "
                         f"scipy.signal.resample_poly(wave, {RATE}, {rate}).")
    if wave.ndim not in (1, 2) or not wave.shape[-1]:
        raise InputError(f"got a sound of shape {wave.shape}, expected (samples,) or (R, samples) with at least one sample; "
                         "average the channels of stereo sound.")
    if bad := int((~np.isfinite(wave)).sum()):
        raise InputError(f"{bad} of {wave.size} samples are NaN or infinite, expected numbers from -1 to 1; check how the "
                         "sound was read.")
    missing = max(0, _WINDOW - wave.shape[-1])
    wave = np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(missing // 2, missing - missing // 2)])
    starts = np.linspace(0, wave.shape[-1] - _WINDOW, STEPS).astype(int)
    pieces = wave[..., starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW).astype(np.float32)
    power = np.abs(rfft(pieces)) ** 2 / _WINDOW
    bands: np.ndarray = (power @ _filters().T).swapaxes(-1, -2).astype(np.float32)
    return bands


def heard(power: np.ndarray) -> np.ndarray:
    """Return how loud powers are heard: 0 for silence, then 1 more for each tenfold."""
    return np.log10(1 + power / _HEARING)


@dataclass(frozen=True)
class Sounds:
    """What the sound is made of, as powers (.., MELS, STEPS).

    Attributes
    ----------
    digits : sequence of ndarray
        Takes of each digit in each voice: number ``10 * voice + digit``.
    noise : ndarray
    """

    digits: Sequence[np.ndarray]
    noise: np.ndarray

    @classmethod
    def of_tones(cls, part: str, parties: int) -> "Sounds":
        """Dial each digit in the timbre of each party; each part has takes of its own."""
        takes = np.random.default_rng(list(part.encode()))
        digits = [mel_power(_dialled(digit, party, _TAKES, takes)) for party in range(parties) for digit in range(10)]
        return cls(digits, _noise(takes))

    @classmethod
    def of_waves(cls, waves: Sequence[np.ndarray], digits: Sequence[int], speakers: Sequence[str], part: str) -> "Sounds":
        """Take real voices: waves of 8,000 samples a second, with the digit that each says and who speaks."""
        said, names = np.asarray(digits), np.asarray(speakers)
        powers = np.stack([mel_power(wave / max(np.sqrt(np.mean(np.square(wave))), 1e-6) / 10) for wave in waves])
        takes = [powers[(names == name) & (said == digit)] for name in sorted(set(speakers)) for digit in range(10)]
        if not all(map(len, takes)):
            raise InputError("a speaker lacks a digit; expected at least one take of each of the ten by every speaker.")
        return cls(takes, _noise(np.random.default_rng(list(part.encode()))))

    def draw(self, party: np.ndarray, digits: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return what turns sound like, (R, S, MELS, STEPS), float32; digits -1 where none is heard."""
        at = np.arange(S)
        which = below(seeds[:, None] + at, 21, len(self.noise))
        level = 10 ** (1.5 * uniform(seeds[:, None] + at, 22) - 1)
        rows = np.flatnonzero(digits >= 0)
        turn, place = seeds[rows], segment_of_digit(seeds[rows])
        level[rows, place] *= 0.05
        power = self.noise[which] * level[:, :, None, None].astype(np.float32)
        many, start, every = self._table
        voice = 10 * (party[rows] % (len(many) // 10)) + digits[rows]
        gain = 10 ** (uniform(turn, 24) - 0.5)
        power[rows, place] += every[start[voice] + below(turn, 23, many[voice])] * gain[:, None, None].astype(np.float32)
        return heard(power)

    @property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        many = np.array([len(takes) for takes in self.digits])
        return many, many.cumsum() - many, np.concatenate(self.digits)


def segment_of_digit(seeds: np.ndarray) -> np.ndarray:
    """Return the segment of a turn in which its digit is heard."""
    return below(seeds, 20, S)


def _filters() -> np.ndarray:
    """Return triangular filters, evenly spaced in mel, (MELS, bins)."""
    low, high = 2595 * np.log10(1 + np.array([LOW, HIGH]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    up, down = ((bins - edges[i:MELS + i, None]) / (edges[1 + i:MELS + 1 + i] - edges[i:MELS + i])[:, None] for i in (0, 1))
    filters: np.ndarray = np.clip(np.minimum(up, 1 - down), 0, None).astype(np.float32)
    return filters


def _dialled(digit: int, party: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return takes (n, SEGMENT) of a digit dialled: the party has its overtones, its balance, its tremor and its decay."""
    own = np.random.default_rng([party, 19])
    second, third, balance, tremor, rate, decay = own.uniform([0, 0, 0.6, 0, 4, 0], [0.5, 0.35, 1.6, 0.6, 18, 6])
    start, long = rng.uniform(0, 0.16, (n, 1)), rng.uniform(0.2, 0.32, (n, 1))
    time = np.arange(SEGMENT, dtype=np.float32) / RATE
    since = time - start.astype(np.float32)
    wave = np.zeros((n, SEGMENT), dtype=np.float32)
    for tone, size in zip(TONES[str(digit)], (1.0, balance)):
        angle = (2 * np.pi * tone * rng.uniform(0.985, 1.015, (n, 1))).astype(np.float32) * since
        sine = np.sin(angle)
        wave += size * (sine + second * 2 * sine * np.cos(angle) + third * (3 * sine - 4 * sine**3))
    envelope = np.clip(since / 0.01, 0, 1) * np.clip((long - since) / 0.02, 0, 1) * np.exp(-decay * since.clip(0))
    takes: np.ndarray = 0.1 * wave * envelope * (1 + tremor * np.sin(2 * np.pi * rate * time))
    return takes


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Return noises (R, MELS, STEPS): hiss, hum, gliding tones, clicks."""
    n, time = _NOISES // 4, np.arange(SEGMENT, dtype=np.float32) / RATE
    hiss = rng.normal(0, 0.05, (n, SEGMENT)) * (1 + np.sin(2 * np.pi * (rng.uniform(0, 6, (n, 1)) * time + rng.random((n, 1)))))
    hum = sum(0.1 * np.sin(2 * np.pi * i * rng.uniform(90, 200, (n, 1)) * time) for i in (1, 2, 3))
    begin, end = rng.uniform(300, 3000, (2, n, 1))
    glide = 0.15 * np.sin(2 * np.pi * (begin + (end - begin) * time) * time) + rng.normal(0, 0.01, (n, SEGMENT))
    clicks = 0.6 * rng.normal(0, 1, (n, SEGMENT)) * (rng.random((n, SEGMENT)) < 0.003) + rng.normal(0, 0.005, (n, SEGMENT))
    return mel_power(np.concatenate([hiss, hum, glide, clicks]).astype(np.float32))
