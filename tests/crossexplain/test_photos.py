"""Photographs: every mode that cameras and programs write becomes RGB from 0 to 1, and a broken file is named."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from crossexplain.data import photos, store

needs_data = pytest.mark.skipif(not os.environ.get("CROSSEXPLAIN_DATA"), reason="CROSSEXPLAIN_DATA is not set")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a part of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("RGB", (255, 0, 51), (1, 0, 0.2)),
        ("L", 51, (0.2, 0.2, 0.2)),
        ("LA", (0, 0), (1, 1, 1)),
        ("RGBA", (255, 0, 0, 0), (1, 1, 1)),
        ("RGBA", (255, 0, 0, 255), (1, 0, 0)),
        ("P", 0, (0, 0, 0)),
        ("1", 1, (1, 1, 1)),
    ],
)
def test_any_mode_becomes_rgb(tmp_path, mode, colour, rgb):
    path = tmp_path / "größe 1 Bild.png"
    Image.new(mode, (5, 3), colour).save(path)
    image = photos.read(path)
    assert image.shape == (3, 3, 5) and image.dtype == torch.float32
    assert torch.allclose(image, torch.tensor(rgb, dtype=torch.float32)[:, None, None].expand(3, 3, 5))


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_grey_of_16_bits_keeps_its_range(tmp_path, ending):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / f"ramp.{ending}")
    grey = torch.from_numpy(ramp / 65535).float().expand(3, -1, -1)
    assert torch.allclose(photos.read(tmp_path / f"ramp.{ending}"), grey, atol=1 / 255)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_an_unknown_range_are_refused(tmp_path, mode):
    Image.new(mode, (5, 3), 700).save(tmp_path / "heights.tif")
    with pytest.raises(photos.PhotoError, match="heights.tif holds 32-bit values.*save it again"):
        photos.read(tmp_path / "heights.tif")


@pytest.mark.parametrize("size", [0, -8, 8.0, "8"])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    Image.new("RGB", (5, 3)).save(tmp_path / "x.png")
    with pytest.raises(photos.PhotoError, match=f"got size {size!r}, expected the side in pixels"):
        photos.load([tmp_path / "x.png"], size)


def test_one_pixel_is_scaled_like_any_photograph(tmp_path):
    Image.new("RGB", (1, 1), "white").save(tmp_path / "dot.png")
    assert torch.equal(photos.load([tmp_path / "dot.png"], 8), torch.ones(1, 3, 8, 8))


def test_the_middle_square_is_taken(tmp_path):
    image = Image.new("RGB", (30, 10), "black")
    image.paste("white", (10, 0, 20, 10))
    image.save(tmp_path / "wide.png")
    assert photos.read(tmp_path / "wide.png", 10).min() == 1


def test_a_photograph_is_turned_as_the_camera_says(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert photos.read(tmp_path / "turned.jpg").shape == (3, 4, 2)


@pytest.mark.parametrize("turn", range(1, 9))
def test_each_way_to_hold_a_camera_gives_the_same_photograph(tmp_path, turn):
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste("white", (0, 0, 8, 8))  # a white corner, top left
    upright.paste("red", (24, 8, 32, 16))  # and a red one, bottom right
    ways = Image.Transpose
    held = {2: ways.FLIP_LEFT_RIGHT, 3: ways.ROTATE_180, 4: ways.FLIP_TOP_BOTTOM, 5: ways.TRANSPOSE, 6: ways.ROTATE_90,
            7: ways.TRANSVERSE, 8: ways.ROTATE_270}
    stored, exif = upright.transpose(held[turn]) if turn > 1 else upright, Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "held.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert torch.equal(photos.read(tmp_path / "held.png"), photos.read(tmp_path / "upright.png"))


@pytest.mark.parametrize(("kind", "pixel", "rgb"), [(2, (65535, 257 * 51, 0), (1, 0.2, 0)), (4, (257 * 51, 65535), (0.2,) * 3),
                                                    (6, (65535, 0, 0, 0), (1, 1, 1)), (6, (65535, 0, 0, 65535), (1, 0, 0))])
def test_colours_of_16_bits_and_their_transparency(tmp_path, kind, pixel, rgb):
    row = b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * 4
    body = struct.pack(">IIBBBBB", 4, 3, 16, kind, 0, 0, 0)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", body), (b"IDAT", zlib.compress(row * 3)), (b"IEND", b""))))
    assert torch.allclose(photos.read(tmp_path / "deep.png"), torch.tensor(rgb).float()[:, None, None].expand(3, 3, 4))


@pytest.mark.parametrize("size", [(1, 5000), (60_000, 2), (2, 2)])
def test_a_photograph_that_is_tiny_or_thin_gives_a_square(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "thin.png")
    assert torch.equal(photos.read(tmp_path / "thin.png", 24).mean(dim=(1, 2)), torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize(("size", "said"), [((1, 1), "scaled to 32"), ((3, 900), "3 x 3"), ((900, 3), "3 x 3"),
                                            ((40, 32), "32 x 32 pixels was taken"), ((32, 32), "")])
def test_what_a_reader_hands_in_becomes_a_square_and_the_note_says_how(size, said):
    image, note = photos.square(torch.rand(3, *size), 32)
    assert image.shape == (3, 32, 32) and 0 <= image.min() <= image.max() <= 1 and said in note and bool(note) == bool(said)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["jpeg", "gif", "webp", "tiff", "bmp"])
def test_a_photograph_that_ends_too_early_is_named(tmp_path, kind, share):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, kind)
    (tmp_path / f"cut.{kind}").write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
    with pytest.raises(photos.PhotoError, match=f"cut.{kind} cannot be read as an image.*again"):
        photos.read(tmp_path / f"cut.{kind}")


@pytest.mark.parametrize("kind", ["empty", "page", "half", "header only", "damaged"])
def test_a_broken_file_is_named(tmp_path, kind):
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "png")
    whole = stream.getvalue()
    half = len(whole) // 2
    damaged = whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :]
    page = b"<html>not found</html>"
    content = {"empty": b"", "page": page, "half": whole[:half], "header only": whole[:40], "damaged": damaged}[kind]
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(photos.PhotoError, match="cat.jpg cannot be read as an image.*again"):
        photos.load([tmp_path / "cat.jpg"], 8)


def test_a_missing_file_and_no_file(tmp_path):
    with pytest.raises(photos.PhotoError, match="cat.jpg cannot be read"):
        photos.read(tmp_path / "cat.jpg")
    with pytest.raises(photos.PhotoError, match="got no path"):
        photos.load([], 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_shades(tmp_path, suffix):
    values = np.array([[0, 65535, 257 * 51]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    image = photos.read(tmp_path / f"deep.{suffix}")
    assert torch.allclose(image, torch.tensor([[[0, 1, 0.2]]]).expand(3, 1, 3))


def test_the_colours_of_print_become_red_green_and_blue(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    red = photos.read(tmp_path / "print.jpg").mean(dim=(1, 2))
    assert red[0] > 0.9 and red[1:].max() < 0.1


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path, suffix):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    first.save(tmp_path / f"moving.{suffix}", save_all=True, append_images=[second])
    assert photos.read(tmp_path / f"moving.{suffix}").min() > 0.99


@pytest.mark.parametrize("side", [8100, 9700, 20_000])
@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_a_small_file_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path, side):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(photos.PhotoError, match="bomb.png has .*at most 64,000,000.* are read; make it smaller"):
        photos.read(tmp_path / "bomb.png")


def test_a_file_that_is_open_is_read_like_one_on_disk(tmp_path):
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    with (tmp_path / "grey.png").open("rb") as file:
        assert torch.equal(photos.read(file), photos.read(tmp_path / "grey.png"))


def test_bytes_in_memory_are_read_like_a_file(tmp_path):
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    content = (tmp_path / "grey.png").read_bytes()
    assert torch.equal(photos.read(io.BytesIO(content)), photos.read(tmp_path / "grey.png"))
    with pytest.raises(photos.PhotoError, match="the file cannot be read as an image"):
        photos.read(io.BytesIO(content[:200]))


@pytest.mark.parametrize("other", [None, 5, b"cat.jpg", np.zeros((3, 8, 8))])
def test_what_is_no_file_is_refused(other):
    with pytest.raises(photos.PhotoError, match=f"got {type(other).__name__}, expected the path of a photograph"):
        photos.read(other)


@needs_data
def test_real_photographs():
    paths = sorted(store.find("photos").path.iterdir())
    images = photos.load(paths, 227)
    assert images.shape == (5, 3, 227, 227) and 0 <= images.min() and images.max() <= 1
    assert (images.std(dim=(1, 2, 3)) > 0.1).all()
