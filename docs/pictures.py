"""The manual's pictures, made from the folder of a demo: `python docs/pictures.py runs/demo --browser chromium`.

Figures are those that the demo saved, at a width for reading; the page is drawn by a browser. Without --browser the picture
of the page is left as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
FIGURES = (
    "effective_rank",
    "trace",
    "recoverability",
    "weights",
    "loss_ratio",
    "samples",
    "rarefaction",
)
WIDTH, COLORS = 840, 256
PAGE_SIZE = (1000, 3160)  # the answer, its cards, and what was measured on what


def save(image: Image.Image, name: str, width: int = WIDTH) -> None:
    """Write docs/pictures/<name>.png, at most `width` pixels wide, in 256 colours."""
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.convert("RGB").quantize(COLORS).save(PICTURES / f"{name}.png", optimize=True)


def page(file: Path, browser: str) -> Image.Image:
    """The top of an HTML page as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        size = ",".join(map(str, PAGE_SIZE))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}"]
        subprocess.run([browser, *flags, f"--screenshot={shot}", file.resolve().as_uri()], check=True)
        return Image.open(shot).copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder written by 'ntkdiag demo'")
    parser.add_argument("--browser", help="a browser of the Chromium family, to draw the page with")
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    for name in FIGURES:
        save(Image.open(given.demo / "figures" / f"{name}.png"), name)
    if given.browser:
        save(page(given.demo / "page.html", given.browser), "page")


if __name__ == "__main__":
    main()
