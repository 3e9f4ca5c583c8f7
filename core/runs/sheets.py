"""Contact sheets: pictures in rows and columns, with labels."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from core.runs.files import atomic_file
from core.runs.photos import load_photo

HEADER, FOOTER, FONT_SIZE = 24, 20, 14  # pixels


def contact_sheet(
    rows: Sequence[Sequence[Image.Image | Path]],
    *,
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    cell: int = 200,
) -> Image.Image:
    """Pictures in rows, each `cell` pixels per side, under labelled columns and over a label for each row.

    Args:
        rows: pictures or paths of them; rows may be of different lengths.
        column_labels: none for a sheet without a header.
        row_labels: one a row, none for a sheet without them; a label that is too long is cut.

    Raises:
        UserError: a picture can't be read.
    """
    font = ImageFont.load_default(FONT_SIZE)
    header, footer = HEADER if column_labels else 0, FOOTER if row_labels else 0
    width = cell * max(len(column_labels), *map(len, rows))
    sheet = Image.new("RGB", (width, header + (cell + footer) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        pen.text((cell * (column + 0.5), header / 2), label, fill="black", font=font, anchor="mm")
    for number, row in enumerate(rows):
        top = header + number * (cell + footer)
        for column, picture in enumerate(row):
            image = load_photo(picture) if isinstance(picture, Path) else picture.convert("RGB")
            sheet.paste(image if image.size == (cell, cell) else image.resize((cell, cell)), (column * cell, top))
        if row_labels:
            pen.text((4, top + cell + 2), shortened(row_labels[number], font, width - 8), fill="black", font=font)
    return sheet


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut with "…" to at most `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def side_by_side(blocks: Sequence[Image.Image], across: int) -> Image.Image:
    """Sheets of about the same size in a grid, `across` of them a row."""
    width, height = (max(block.size[side] for block in blocks) for side in (0, 1))
    across = min(len(blocks), across)
    grid = Image.new("RGB", (across * width, -(-len(blocks) // across) * height), "white")
    for place, block in enumerate(blocks):
        grid.paste(block, (place % across * width, place // across * height))
    return grid


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture atomically, as PNG."""
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
