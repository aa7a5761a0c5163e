"""One image at a time: any file or array -> uint8 RGB, resized and cropped as torchvision does it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# Read where there is a decoder: a Pillow built with AVIF, and the package of the extra "heif".
DECODERS = {
    ".avif": "a Pillow with AVIF",
    **dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif (pip install 'quantjax[heif]')"),
}
# Whatever a file is called, it is decoded as one of these or not at all.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
# Other pictures; and ".bmp2", ".jpg_large", ".png~": a suffix that is read, with something behind it.
OTHER_PICTURES = frozenset(
    {".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".tga", ".psd", ".svg", ".exr", ".hdr", ".ico", ".dds", ".qoi", ".pcx"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".xcf", ".mpo", ".insp"}
)
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
ORIENTATION = 0x0112  # EXIF's tag; its values 2 to 8 and what undoes each, as PIL.Image.Transpose names it
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


def is_image_name(path: Path) -> bool:
    """Whether a path is named like an image that is read here; hidden files (`.name`) are not."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix in DECODERS and has_decoder(suffix))


@cache
def has_decoder(suffix: str) -> bool:
    """Whether files with a suffix of DECODERS can be read on this machine."""
    if suffix != ".avif":
        return find_spec("pillow_heif") is not None
    from PIL import features

    return bool(features.check("avif"))


def looks_like_an_image(path: Path) -> bool:
    """Whether people would call the file an image: by its suffix or, where it has none, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix:
        return suffix in SUFFIXES | DECODERS.keys() | OTHER_PICTURES or suffix.startswith(tuple(SUFFIXES))
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(MAGIC) or (start.startswith(b"RIFF") and start.endswith(b"WEBP"))


def to_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] -> [H, W, 3]; grey is repeated, alpha is dropped."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 in 0..255, got {image.dtype}; convert with (x * 255).round().astype('uint8')"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(f"an image must have shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {list(image.shape)}")
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def read_image(path: str | Path, *, upright: bool = True) -> np.ndarray:
    """Decode an image file to uint8 [H, W, 3]: palettes are looked up, alpha is dropped, deep grey as `to_bytes` says.

    upright turns the picture as its EXIF orientation says, as viewers show it; False leaves the pixels as they are
    stored, which is how annotations of published sets count them. Of 16-bit colour the high bytes are kept.

    Raises:
        ValueError: the file is no image of FORMATS, is cut short, or its deep grey has no range that `to_bytes` knows.
    """
    image = decoded(path, upright=upright)
    if image.mode[0] in "IF":
        try:
            return to_rgb(to_bytes(np.asarray(image)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    try:
        return np.array(image.convert("RGB"))
    except ValueError as error:  # colour spaces without a way to RGB
        raise ValueError(f"{path} cannot be decoded ({error}); save it again as RGB") from error


def decoded(path: str | Path, *, upright: bool = False) -> Any:
    """The file as a PIL image in memory, turned upright or as it is stored; ValueError names a file that is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=decoders()) as file:
            file.load()
            turn = UPRIGHT.get(_orientation(file)) if upright else None
            return file if turn is None else file.transpose(Image.Transpose[turn])
    except UnidentifiedImageError:
        raise ValueError(
            f"{path} is named like an image but is none of the kinds that are read ({', '.join(decoders())}; up to "
            "four channels of whole numbers), or is damaged; remove it from the folder, convert or replace it"
        ) from None
    except Exception as error:  # decoders meet damage with nearly any exception
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be decoded ({reason}); replace it with an intact copy or remove it") from error


@cache
def decoders() -> tuple[str, ...]:
    """Those of FORMATS that can be decoded on this machine."""
    from PIL import Image

    if has_decoder(".heic"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF: the pixels are whole
        return 1


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits [H, W] -> uint8 [H, W]; the range is read from the type, or from the largest value.

    - 16-bit integers: 0..65535, the high byte, as 16-bit colour is read
    - 32-bit integers: 0..255 as they are; where one is larger 0..65535, the high byte
    - floating point: 0..1 times 255, rounded; where one is larger 0..255, rounded

    Raises:
        ValueError: a value is negative, not finite, or beyond these ranges.
    """
    low, high = values.min(), values.max()
    limit = 255 if values.dtype.kind == "f" else 65535
    if not 0 <= low <= high <= limit:  # NaN is in no range
        raise ValueError(
            f"grey values must lie in 0..{limit} ({values.dtype}), got {low}..{high}; scale them to 0..255 and save "
            "them as 8-bit"
        )
    if values.dtype.kind == "f":
        return np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    return (values if high <= 255 and values.dtype.itemsize > 2 else values >> 8).astype(np.uint8)


def resize_and_crop(image: np.ndarray, size: int, short_side: int | None = None) -> np.ndarray:
    """Resize the short side (bilinear, antialiased), then cut the centre: uint8 [H, W, 3] -> [size, size, 3].

    Pixel for pixel torchvision's `Resize(short_side)` followed by `CenterCrop(size)` on a PIL image: the long side is
    rounded down, the crop's offset rounds half to even. short_side is at least `size`, which is the default.
    """
    from PIL import Image

    height, width = image.shape[:2]
    short, wanted = min(height, width), short_side or size
    if short != wanted:
        height, width = int(wanted * height / short), int(wanted * width / short)
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def fit(image: Any, size: int, short_side: int | None = None) -> np.ndarray:
    """Any uint8 image -> RGB [size, size, 3], by way of a short side of so many pixels (default: size)."""
    return resize_and_crop(to_rgb(image), size, short_side)
