"""Image files, and images of any mode as RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_advise._utils.errors import on_one_line, reason, warn_caller
from captum_advise._utils.io import require_file
from captum_advise._utils.optional_dependencies import import_optional

if TYPE_CHECKING:
    from PIL import Image

# Of the files in a folder that are read. Any format is read of a file that is named.
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")

_MOST_16_BIT = 65535


def open_image(path: str | Path) -> Image.Image:
    """Read a whole image file; the first frame of an animation.

    Args:
        path: A file of any format that Pillow reads. The image keeps its mode.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read: not an image, damaged or too large.

    Example::

        >>> zoo.open_image("cat.jpg").size
        (224, 224)
    """
    pil = import_optional("PIL.Image", "zoo")
    path = Path(path)
    shown = on_one_line(str(path))
    require_file(path, "image")
    try:
        with pil.open(path) as file:
            file.load()
            image: Image.Image = file.copy()
            return image
    except pil.UnidentifiedImageError as error:
        raise ValueError(
            f"{shown} is not an image in a format that can be read, such as JPEG, PNG, GIF, WebP, "
            "TIFF or BMP."
        ) from error
    # What a decoder raises on a damaged file differs from format to format.
    except Exception as error:
        raise ValueError(
            f"The image {shown} is truncated or damaged, has too many pixels to be opened safely, "
            f"or may not be read ({reason(error)})."
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as upright 8-bit RGB, by its EXIF orientation.

    Transparent parts become white. 16-bit grey is scaled to 8 bits. Floating-point grey, which has
    no fixed white, is stretched between its own minimum and maximum. 16-bit grey that uses less
    than a tenth of its range gives a warning.
    """
    pil, ops, numpy = (
        import_optional(module, "zoo") for module in ("PIL.Image", "PIL.ImageOps", "numpy")
    )
    image = ops.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255. Some versions read 16-bit files as mode I.
        values = numpy.asarray(image)
        if 0 < values.max() < _MOST_16_BIT / 10:
            warn_caller(
                f"A 16-bit image is shown almost black, as its values end at {values.max()} of "
                f"{_MOST_16_BIT}: scale them to the whole range, if they have fewer bits."
            )
        scaled = numpy.rint(values / 257).clip(0, 255)
        image = pil.fromarray(scaled.astype(numpy.uint8))
    elif image.mode == "F":
        values = numpy.nan_to_num(numpy.asarray(image))
        span = numpy.ptp(values) or 1.0
        stretched = numpy.rint((values - values.min()) / span * 255)
        image = pil.fromarray(stretched.astype(numpy.uint8))
    elif image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        white = pil.new("RGBA", image.size, "white")
        image = pil.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def example_image() -> Image.Image:
    """The example image of commands and tutorials: Chelsea, a cat, from scikit-image.

    The ``demo`` extra brings it.

    Example::

        >>> zoo.example_image().size
        (451, 300)
    """
    data, pil = import_optional("skimage.data", "demo"), import_optional("PIL.Image", "demo")
    image: Image.Image = pil.fromarray(data.chelsea())
    return image
