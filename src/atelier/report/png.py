"""Pictures of few bytes."""

import io


def packed(drawn: bytes) -> bytes:
    """A PNG file in 256 colours: lines in many colours, and their soft edges, make a large one."""
    from PIL import Image

    found = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").quantize(256).save(found, format="png", optimize=True)
    return found.getvalue()
