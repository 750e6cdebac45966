"""Pictures of few bytes."""

import io


def packed(drawn: bytes) -> bytes:
    """A PNG file in shades of grey, if it has no other colours, else in 256 colours: lines in many colours, and their
    soft edges, make a large one.
    """
    from PIL import Image

    found, image = io.BytesIO(), Image.open(io.BytesIO(drawn)).convert("RGB")
    red, green, blue = (band.tobytes() for band in image.split())
    few = image.convert("L") if red == green == blue else image.quantize(256)
    few.save(found, format="png", optimize=True)
    return found.getvalue()
