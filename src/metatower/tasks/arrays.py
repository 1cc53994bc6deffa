"""Tasks from a person's own pictures: any labelled array, or a folder with one sub-folder per class."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from metatower.core.errors import UserError
from metatower.tasks.episodes import Episodes, check_enough


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    rotations: bool = False,
    names: list[str] | None = None,
) -> Episodes:
    """N-way K-shot tasks from labelled pictures.

    Args:
        images: `[n, h, w]`, or `[n, h, w, colours]`: uint8, Boolean, or floats from 0 to 1.
        labels: `[n]`, anything that can be told apart; classes come in sorted order.
        ways, shots, queries, rotations: see `Episodes`.
        names: what to call the classes in errors; their labels if None.

    Raises:
        UserError: shapes that do not fit, other numbers than these, or a class with too few pictures.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim not in (3, 4) or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
        raise UserError(
            "Expected images [n, h, w] or [n, h, w, colours] and labels [n], at least one; "
            f"got shapes {images.shape} and {labels.shape}."
        )
    images = as_bytes(images)
    classes, index, count = np.unique(labels, return_inverse=True, return_counts=True)
    names = [str(name) for name in classes] if names is None else names
    if ways <= len(classes) * (4 if rotations else 1):  # else `Episodes` says so
        check_enough(count, shots, queries, names)
    order = np.argsort(index, kind="stable")
    pool = np.zeros((len(classes), count.max(), *images.shape[1:]), np.uint8)
    pool[index[order], np.concatenate([np.arange(c) for c in count])] = images[order]
    return Episodes(pool, count.astype(np.int32), ways, shots, queries, rotations)


def from_folder(
    folder: Path | str,
    *,
    size: int = 28,
    grey: bool = True,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    rotations: bool = False,
) -> Episodes:
    """N-way K-shot tasks from a folder with one sub-folder of pictures per class.

    Args: as in `read_folder` and `Episodes`.

    Raises:
        UserError: as in `read_folder`, or a class with too few pictures.
    """
    images, labels, names = read_folder(folder, size=size, grey=grey)
    return from_arrays(images, labels, ways=ways, shots=shots, queries=queries, rotations=rotations, names=names)


def read_folder(folder: Path | str, *, size: int = 28, grey: bool = True) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The pictures in the sub-folders of a folder, their classes, and what the classes are called.

    Pictures of any kind that Pillow reads, of any mode and size, are squeezed into `size` x `size` pixels. Files
    that are not called like pictures, and hidden ones, are passed over.

    Args:
        size: pixels along a side.
        grey: one shade per pixel; else red, green and blue. See-through parts are taken for white.

    Returns:
        uint8 `[n, size, size]` (or with 3 colours last), int `[n]`, and the names of the sub-folders in order.

    Raises:
        UserError: the folder cannot be read, it or a sub-folder of it is empty, or a picture is damaged.
    """
    if size < 1:
        raise UserError(f"Expected pictures of at least 1 pixel a side, got size {size}.")
    found = pictures_by_class(Path(folder))
    images = np.stack([read_picture(file, size, grey) for files in found.values() for file in files])
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    return images, labels, list(found)


def pictures_by_class(folder: Path) -> dict[str, list[Path]]:
    """The files that are called like pictures in each sub-folder, by its name, in order; hidden ones are passed over.

    Raises:
        UserError: the folder cannot be read, or it or a sub-folder of it has none.
    """
    try:
        if not folder.is_dir():
            raise UserError(f"Expected a folder with one sub-folder of pictures per class, got {folder}.")
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        files = [pictures_in(entry) for entry in classes]
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error
    if not classes:
        raise UserError(f"Expected one sub-folder of pictures per class in {folder}, found no sub-folder.")
    for entry, found in zip(classes, files, strict=True):
        if not found:
            raise UserError(f"Class {entry.name!r} has no pictures: add some to {entry}, or remove it.")
    return {entry.name: found for entry, found in zip(classes, files, strict=True)}


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 pictures `[..., h, w]`, each averaged down (or up) to `[..., size, size]`."""
    flat = images.reshape(-1, *images.shape[-2:])
    if flat.shape[1:] == (size, size):
        return images
    small = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)) for image in flat]
    return np.stack(small).reshape(*images.shape[:-2], size, size)


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Pictures of uint8, Booleans or floats from 0 to 1, as uint8.

    Raises:
        UserError: other numbers.
    """
    if images.dtype == np.uint8:
        return images
    if images.dtype == bool:
        return images.astype(np.uint8) * 255
    if np.issubdtype(images.dtype, np.floating):
        low, high = images.min(), images.max()
        if low >= 0 and high <= 1:  # false for not-a-number too
            return np.rint(images * 255).astype(np.uint8)
        got = f"numbers from {low} to {high}"
    else:
        got = str(images.dtype)
    raise UserError(f"Expected pictures as uint8, Booleans or floats from 0 to 1; got {got}. Scale them first.")


def pictures_in(folder: Path) -> list[Path]:
    """The files in a folder that are called like pictures, in order."""
    kinds = Image.registered_extensions()
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in kinds and not file.name.startswith(".") and file.is_file()
    )


def read_picture(file: Path, size: int, grey: bool) -> UInt8[np.ndarray, "size size *colour"]:
    """The picture in a file, as `squeezed` makes it.

    Raises:
        UserError: it is damaged, no picture, or of a kind that cannot be converted.
    """
    return squeezed(_opened(file), size, grey, f"The picture {file}")


def _opened(file: Path) -> Image.Image:
    """The right way up."""
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            upright.load()
            return upright
    except Exception as error:  # Pillow raises whatever the damage makes it trip over
        raise UserError(f"The picture {file} is damaged or not a picture: {error}. Mend or remove it.") from error


def squeezed(
    image: Image.Image, size: int, grey: bool, name: str = "A picture"
) -> UInt8[np.ndarray, "size size *colour"]:
    """A picture of any mode and size, in one of this size; see-through parts are taken for white.

    Shades of more than 8 bits go to 255 or to 65535, as their largest says; those that are no integers also to 1.

    Args:
        name: what the picture is called in errors.

    Raises:
        UserError: shades that are not finite, or colours that cannot be converted.
    """
    if image.mode.startswith(("I", "F")):  # 16 bits and more, which `convert` would clip
        shades = np.asarray(image, np.float64)
        if not np.isfinite(shades).all():
            raise UserError(f"{name} has shades that are not finite numbers. Mend or remove it.")
        most = 1 if image.mode == "F" and shades.max() <= 1 else 255 if shades.max() <= 255 else 65535
        image = Image.fromarray(np.uint8(np.rint(np.clip(shades / most, 0, 1) * 255)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    try:
        image = image.convert("L" if grey else "RGB")
    except ValueError as error:
        raise UserError(
            f"{name} has colours that cannot be read ({image.mode}). Save it as RGB, or remove it."
        ) from error
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
