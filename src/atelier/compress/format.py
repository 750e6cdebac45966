"""A net in one small file, exact to the bit: what it is, its tensors under an entropy coder, and a checksum.

The file: MAGIC, a byte of version, the CRC-32 of what follows, a byte for the coder, the lengths of all sections but
the last, the sections. Each section is one stream of the coder:

- shapes: the spec, from which names, order and shapes of the tensors follow by building the net, and a digest of those;
  for tensors that are not those of the spec's net the list of them as well
- codebook: how every matrix is coded, and its distinct values
- indices: where its values other than 0 are
- values: which of the distinct values each is, with the table of the code; or the values themselves
- biases: all of these for tensors of fewer than two dimensions, which are biases, scales, running means, counters
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from atelier import checkpoint
from atelier.compress.entropy import (
    READERS,
    WRITERS,
    Counter,
    Reader,
    Writer,
    put_number,
    put_rising,
    put_symbols,
    take_number,
    take_rising,
    take_symbols,
)
from atelier.compress.places import put_places, take_places
from atelier.errors import AtelierError, nearest

MAGIC, VERSION = b"ATLR", 1
START = len(MAGIC) + 1 + 4  # where the part under the checksum begins
SECTIONS = ("shapes", "codebook", "indices", "values", "biases")
CODERS = ("huffman", "range")
RAW, DENSE, SPARSE = range(3)
MANY = 2**16  # distinct values beyond which a table of them is not tried
LONG = 16  # rising numbers, such as kept inputs, from which a mask is worth its list
# What specs are likely to say, likeliest last; part of the version.
WORDS = (
    b'"inputs":{"kept":784}"relu","biases":1,"batch_norm":true,"dropout":[0.5],"cell":"gru","conv 16 3 valid","pool 2",'
    b'"dense 128"],"plan":["family":"recurrent","family":"autoencoder","family":"cnn","settings":{"activation":"tanh",'
    b'"widths":[64,'
    b'"shape":[9,128]}][{"classes":6,[{"classes":10,"family":"mlp","settings":{"hidden":[300,100]},"shape":[1,28,28]}]'
)
Tensors = Mapping[str, np.ndarray]


def dump(spec: Mapping[str, Any], tensors: Tensors, coder: str = "range") -> bytes:
    """spec: family, shape, classes, settings; its `cost` is left out. tensors: of numbers of at most 64 bits.

    coder: `range`, or `huffman` as in Deep Compression. Raises AtelierError for other coders and other numbers.
    """
    if coder not in CODERS:
        raise AtelierError(f"there is no coder {coder}; {nearest(coder, CODERS)}")
    writers = {section: WRITERS[coder]() for section in SECTIONS}
    _put_spec(writers["shapes"], spec, tensors)
    for tensor in tensors.values():
        _put_tensor(_parts(writers, tensor.ndim), tensor)
    sections = [writer.finish() for writer in writers.values()]
    body = bytes([CODERS.index(coder)]) + b"".join(_length(len(section)) for section in sections[:-1])
    body += b"".join(sections)
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body


def load(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The spec as JSON has it, with lists for tuples, and the tensors, bit for bit those that were dumped.

    Raises AtelierError, before anything is decoded, if a byte is missing, added or other than it was.
    """
    coder, sections = _split(content)
    readers = {name: READERS[coder](section) for name, section in sections.items()}
    spec, layout = _take_spec(readers["shapes"])
    return spec, {name: _take_tensor(_parts(readers, len(shape)), dtype, shape) for name, dtype, shape in layout}


def ledger(content: bytes) -> dict[str, int]:
    """Bytes of each section, and of the header, which is the rest: magic, version, checksum, coder, lengths."""
    _, sections = _split(content)
    sizes = {name: len(section) for name, section in sections.items()}
    return sizes | {"header": len(content) - sum(sizes.values())}


# ---- the file


def _split(content: bytes) -> tuple[str, dict[str, bytes]]:
    """The coder and the sections of a file that is whole."""
    if content[: len(MAGIC)] != MAGIC:
        raise AtelierError("not a compressed net: it begins with other bytes; give a file that atelier.compress wrote")
    if content[len(MAGIC) : len(MAGIC) + 1] != bytes([VERSION]):
        raise AtelierError(f"a compressed net, but not of version {VERSION}; write it again with this atelier")
    body = content[START:]
    # A CRC-32 differs for certain where up to 32 bits in a row do; for other damage the odds are 1 to 2^32.
    if not body or zlib.crc32(body) != int.from_bytes(content[len(MAGIC) + 1 : START], "big"):
        raise AtelierError("a compressed net, but damaged: its checksum is another; copy or write it again")
    place, lengths = 1, []
    for _ in SECTIONS[:-1]:
        length, place = _read_length(body, place)
        lengths.append(length)
    ends = place + np.cumsum([0, *lengths])
    bounds = zip(ends, [*ends[1:], len(body)], strict=True)
    return CODERS[body[0]], {name: body[a:b] for name, (a, b) in zip(SECTIONS, bounds, strict=True)}


def _length(number: int) -> bytes:
    """Seven bits a byte, low ones first; the eighth says that more follow."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _length(number >> 7)


def _read_length(content: bytes, place: int) -> tuple[int, int]:
    """The number, and where the next begins."""
    number = shift = 0
    while content[place] & 128:
        number |= (content[place] & 127) << shift
        place, shift = place + 1, shift + 7
    return number | content[place] << shift, place + 1


# ---- the spec


def _put_spec(writer: Writer, spec: Mapping[str, Any], tensors: Tensors) -> None:
    """JSON, deflated; a long tuple of rising numbers becomes a mask, which is coded as a tensor of its own."""
    spec = {key: value for key, value in spec.items() if key != "cost"}
    layout = [[name, tensor.dtype.str, list(tensor.shape)] for name, tensor in tensors.items()]
    told = [spec] if _layout(spec) == layout else [spec, layout]
    masks = {key: _mask(value, spec) for key, value in spec.get("settings", {}).items() if _rises(value)}
    if masks:
        short = {key: {"kept": mask.size} for key, mask in masks.items()}
        told[0] = spec | {"settings": spec["settings"] | short}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    deflate = zlib.compressobj(9, wbits=-15, zdict=WORDS)
    content = np.frombuffer(deflate.compress(text.encode()) + deflate.flush(), np.uint8)
    put_number(writer, len(content))
    writer.bits(content, 8)
    writer.bits(np.array([_digest(layout)]), 16)
    for key in sorted(masks):
        _put_tensor(_Parts(writer, writer, writer), masks[key])


def _take_spec(reader: Reader) -> tuple[dict[str, Any], list[list]]:
    """The spec, and name, dtype and shape of every tensor."""
    content = reader.bits(take_number(reader), 8).astype(np.uint8).tobytes()
    spec, *told = json.loads(zlib.decompressobj(wbits=-15, zdict=WORDS).decompress(content))
    digest = int(reader.bits(1, 16)[0])
    settings = spec.get("settings", {})
    for key in sorted(settings):
        if isinstance(settings[key], dict) and settings[key].keys() == {"kept"}:
            shape = _mask_shape(settings[key]["kept"], spec)
            mask = _take_tensor(_Parts(reader, reader, reader), "|b1", shape)
            settings[key] = np.flatnonzero(mask).tolist()
    layout = told[0] if told else _layout(spec)
    if layout is None or _digest(layout) != digest:
        raise AtelierError(
            f"a net of family {spec.get('family')}, which now builds other tensors than when this was written; "
            "read it with the atelier that wrote it"
        )
    return spec, layout


def _layout(spec: Mapping[str, Any]) -> list[list] | None:
    """Name, dtype and shape of the tensors of the net that a spec builds; None if it builds none."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            state = checkpoint.build(spec).state_dict()
    except (AtelierError, KeyError, TypeError, ValueError):
        return None
    return [[name, tensor.numpy().dtype.str, list(tensor.shape)] for name, tensor in state.items()]


def _digest(layout: list[list]) -> int:
    return zlib.crc32(json.dumps(layout).encode()) & 0xFFFF


def _rises(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) < LONG or not all(type(one) is int for one in value):
        return False
    return value[0] >= 0 and all(a < b for a, b in zip(value, value[1:], strict=False)) and value[-1] < 32 * len(value)


def _mask(numbers: tuple[int, ...], spec: Mapping[str, Any]) -> np.ndarray:
    """Which of an item's values the numbers name, laid out as the item is; if it has fewer, a row as long as needed."""
    size = int(np.prod(spec.get("shape", 1)))
    mask = np.zeros(size if numbers[-1] < size else numbers[-1] + 1, bool)
    mask[list(numbers)] = True
    return mask.reshape(_mask_shape(mask.size, spec))


def _mask_shape(size: int, spec: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(spec.get("shape", ()))
    return (size // shape[-1], shape[-1]) if size == np.prod(shape) else (size,)


# ---- tensors


class _Parts(NamedTuple):
    """Where the parts of a tensor go, or come from."""

    codebook: Any
    indices: Any
    values: Any


def _parts(streams: Mapping[str, Any], dimensions: int) -> _Parts:
    if dimensions < 2:
        return _Parts(*[streams["biases"]] * 3)
    return _Parts(streams["codebook"], streams["indices"], streams["values"])


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """A tensor as a matrix: a row for each output of a layer."""
    return (shape[0], int(np.prod(shape[1:]))) if len(shape) > 1 else (1, int(np.prod(shape)))


def _put_tensor(parts: _Parts, tensor: np.ndarray) -> None:
    """The cheapest of: all values as they are, a code for each, a code for each other than 0 and where those are."""
    patterns, half = _patterns(tensor)
    ways = [RAW]
    if tensor.size and len(np.unique(patterns)) <= MANY:
        ways += [DENSE, SPARSE] if patterns.any() and not patterns.all() else [DENSE]
    kind = type(parts.values)
    way = RAW if ways == [RAW] else min(ways, key=lambda way: _cost(kind, patterns, half, way))
    _put_patterns(parts, patterns, half, way)


def _put_patterns(parts: _Parts, patterns: np.ndarray, half: bool, way: int) -> None:
    width = int(patterns.max(initial=0)).bit_length()
    parts.codebook.bits(np.array([way]), 2)
    parts.codebook.bits(np.array([half]), 1)
    parts.codebook.bits(np.array([width]), 7)
    values = patterns.ravel()
    if way == RAW:
        parts.values.bits(values, width)
        return
    if way == SPARSE:
        kept = patterns != 0
        put_places(parts.indices, kept)
        values = patterns[kept]
    book, codes = np.unique(values, return_inverse=True)
    put_number(parts.codebook, len(book))
    put_rising(parts.codebook, book, width)
    put_symbols(parts.values, codes, len(book))


def _take_tensor(parts: _Parts, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    way, half, width = (int(parts.codebook.bits(1, bits)[0]) for bits in (2, 1, 7))
    patterns = np.zeros(_rows(shape), np.uint64)
    if way == RAW:
        patterns.flat = parts.values.bits(patterns.size, width)
    else:
        places = take_places(parts.indices, patterns.shape) if way == SPARSE else np.ones(patterns.shape, bool)
        book = take_rising(parts.codebook, take_number(parts.codebook), width)
        patterns[places] = book[take_symbols(parts.values, int(places.sum()), len(book))]
    return _tensor(patterns, bool(half), np.dtype(dtype)).reshape(shape)


def _cost(kind: type[Writer], patterns: np.ndarray, half: bool, way: int) -> float:
    """Bits."""
    counter = Counter(kind)
    _put_patterns(_Parts(counter, counter, counter), patterns, half, way)
    return counter.total


def _patterns(tensor: np.ndarray) -> tuple[np.ndarray, bool]:
    """The bits of every value, as a matrix of numbers; whether they are those of float16, which hold a float32 exactly.

    As patterns, negative zero and every kind of NaN are values like others.
    """
    if tensor.dtype.kind not in "biuf" or tensor.dtype.itemsize > 8:
        raise AtelierError(
            f"a tensor of {tensor.dtype}; convert it: a file holds booleans, integers and floats of up to 64 bits"
        )
    tensor = np.asarray(tensor, order="C").reshape(_rows(tensor.shape))
    patterns = tensor.view(f"u{tensor.dtype.itemsize}")
    half = False
    if tensor.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            halves = tensor.astype(np.float16)
            half = np.array_equal(halves.astype(np.float32).view(np.uint32), patterns)
        patterns = halves.view(np.uint16) if half else patterns
    return patterns.astype(np.uint64), half


def _tensor(patterns: np.ndarray, half: bool, dtype: np.dtype) -> np.ndarray:
    if half:
        return patterns.astype(np.uint16).view(np.float16).astype(dtype)
    return patterns.astype(f"u{dtype.itemsize}").view(dtype)
