"""Makes group_photo.jpg: the portraits as prints on a board, at different sizes and tilts."""

from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

HERE = Path(__file__).parent
SIZE = (1400, 960)

# Portrait, height of the print in pixels, tilt in degrees (clockwise), center of the print.
PRINTS = [
    ("obama_standing.jpg", 420, 0, (1120, 250)),
    ("biden_standing.jpg", 470, -8, (690, 300)),
    ("obama_speaking.jpg", 360, 22, (1150, 700)),
    ("obama_smiling.jpg", 520, 6, (280, 620)),
    ("collins.jpg", 250, -35, (240, 190)),
    ("collins.jpg", 380, 14, (730, 720)),
]


def print_of(portrait: Image.Image, height: int, tilt: float) -> Image.Image:
    """A portrait on paper with a white rim, turned, with transparent corners."""
    width = round(portrait.width * height / portrait.height)
    paper = ImageOps.expand(portrait.resize((width, height), Image.Resampling.LANCZOS), 10, "white")
    return paper.convert("RGBA").rotate(-tilt, Image.Resampling.BICUBIC, expand=True)


def main() -> None:
    board = Image.linear_gradient("L").resize(SIZE)
    group = ImageOps.colorize(board, (92, 104, 110), (58, 66, 72)).convert("RGBA")
    for name, height, tilt, (x, y) in PRINTS:
        with Image.open(HERE / "portraits" / name) as portrait:
            sheet = print_of(portrait.convert("RGB"), height, tilt)
        corner = (x - sheet.width // 2, y - sheet.height // 2)
        shadow = Image.new("L", SIZE)
        shadow.paste(
            sheet.getchannel("A").point(lambda a: a * 5 // 8), (corner[0] + 6, corner[1] + 9)
        )
        group.paste((0, 0, 0, 255), mask=shadow.filter(ImageFilter.GaussianBlur(8)))
        group.alpha_composite(sheet, corner)
    group.convert("RGB").save(HERE / "group_photo.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
