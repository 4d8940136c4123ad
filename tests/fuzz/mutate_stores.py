"""Mutators that know the structure of embedding files, weights files and tables."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from panecho_embed.core.errors import PanEchoEmbedError
from panecho_embed.store.contents import Contents, SealedFile, checksums, combined, with_tail
from tests.fuzz.mutate import RAW, flip_bits, number
from tests.fuzz.seeds import safetensors_file

CANARY = "CANARY"
"""A file of this name in the working directory: code from an input has run."""


def embedding_file(data: bytes, chance: Random) -> bytes:
    """Another table of contents, or other values, with checksums that fit."""
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        try:
            file = SealedFile(Path(stream.name))
        except PanEchoEmbedError:
            return flip_bits(data, chance)
        body, contents = bytearray(data[: file.contents.size]), file.contents
        attributes, places = dict(contents.attributes), dict(contents.places)
        for _ in range(chance.choice((1, 1, 2))):
            change = chance.choice((_attribute, _values, _values, _place))
            change(attributes, places, body, file, chance)
        return bytes(body) + _table(attributes, places, contents, chance)


def _table(attributes: dict[str, Any], places: dict[str, Any], contents: Contents, chance: Random) -> bytes:
    known = {name: (p.at, p.dtype.str, p.shape, p.checksum) for name, p in contents.places.items()}
    listed = {name: known.get(name) if place is contents.places.get(name) else place for name, place in places.items()}
    record: dict[str, Any] = {"attributes": attributes, "headers": contents.headers, "places": listed}
    if chance.random() < 0.05:
        record[chance.choice(sorted(record))] = chance.choice(_ATTRIBUTES)
    return with_tail(json.dumps(record).encode(), contents.size)


_ATTRIBUTES = (
    "",
    "clip",
    "{}",
    "[]",
    "null",
    "1e999",
    '{"weights": 3}',
    "[" * 50_000,
    '{"a":' * 2000,
    "ÿ",
    7,
    -1,
    2**62,
    1.5,
    [],
    {},
    None,
)


def _attribute(
    attributes: dict[str, Any], _places: dict[str, Any], _body: bytearray, _file: SealedFile, chance: Random
) -> None:
    if not attributes:
        return
    name = chance.choice(sorted(attributes))
    if name == "provenance" and chance.random() < 0.7:
        content = json.loads(attributes[name])
        field = chance.choice(sorted(content))
        content[field] = chance.choice((None, 3, -1, "x", [], {}, [1] * 3, 1e400, {"resize": "x"}, 10**400))
        attributes[name] = json.dumps(content)
    elif chance.random() < 0.1:
        del attributes[name]
    else:
        attributes[name] = chance.choice(_ATTRIBUTES)


def _values(
    _attributes: dict[str, Any], places: dict[str, Any], body: bytearray, file: SealedFile, chance: Random
) -> None:
    """Another value, under a checksum that fits."""
    name = chance.choice(sorted(file.contents.places))
    place, values = file.contents.places[name], file.column(name)
    if not len(values):
        return
    texts = (b"", b"\xff\xfe", b"a" * 70_000, b"done", b"v0", b"\0", b"\xed\xb2\x80", b"-1", b"a\0b")
    with np.errstate(all="ignore"):
        other = np.asarray(chance.choice((-1, 0, np.nan, np.inf, number(chance))))
        values[chance.randrange(len(values))] = (
            chance.choice(texts) if values.dtype.kind == "S" else other.astype(values.dtype)
        )
    body[place.at : place.at + place.nbytes] = values.tobytes()
    sums = checksums(values)
    places[name] = (place.at, place.dtype.str, place.shape, combined(sums))
    if name == "embeddings":
        table, there = np.array(sums, dtype="<u4"), file.contents.places["checksums"]
        body[there.at : there.at + there.nbytes] = table.tobytes()
        places["checksums"] = (there.at, there.dtype.str, there.shape, combined(checksums(table)))


def _place(
    _attributes: dict[str, Any], places: dict[str, Any], _body: bytearray, file: SealedFile, chance: Random
) -> None:
    """A data set at another place, of another type or shape; none, or one more."""
    name = chance.choice([*sorted(file.contents.places), "embeddings", "labels/new", "videos/new", "new"])
    place = file.contents.places.get(name, file.contents.places["labels/EF"])
    if chance.random() < 0.15:
        places.pop(name, None)
        return
    shape = chance.choice(
        ((), (0,), place.shape[:1], (*place.shape, 2), (10**9, *place.shape[1:]), (2**61, 0), (-1,), ("x",), None)
    )
    dtype = chance.choice(("<f4", ">f8", "|S3", "|S0", "|O", "|V5", "f4,f4", "(2,)f4", "<c16", "|b1", "<M8[s]", "", 3))
    at = chance.choice((0, -1, place.at + 1, file.contents.size, 2**62, 10**400, 1.5, None, True))
    places[name] = chance.choice(
        (
            (at, place.dtype.str, place.shape, place.checksum),
            (place.at, dtype, place.shape, place.checksum),
            (place.at, place.dtype.str, shape, place.checksum),
            (place.at, place.dtype.str, place.shape),
            chance.choice(_ATTRIBUTES),
        )
    )


def pickled(data: bytes, chance: Random) -> bytes:
    """Opcodes of the pickle inside a weights file exchanged, repeated, removed, or with other arguments."""
    return _in_archive(data, chance, _change_opcodes)


def _in_archive(data: bytes, chance: Random, change: Callable[[bytes, Random], bytes]) -> bytes:
    """The pickle of a .pt archive changed, and the archive otherwise as it was; a bare pickle changed itself."""
    if not data.startswith(b"PK"):
        return change(data, chance)
    try:
        source = zipfile.ZipFile(io.BytesIO(data))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            for item in source.infolist():
                content = source.read(item)
                target.writestr(item.filename, change(content, chance) if item.filename.endswith(".pkl") else content)
        return out.getvalue()
    except Exception:
        return flip_bits(data, chance)


_INSERTED = (
    b"0",
    b"1",
    b"2",
    b"(",
    b")",
    b"]",
    b"}",
    b"N",
    b"t",
    b"R",
    b"b",
    b"s",
    b"u",
    b"a",
    b"e",
    b"d",
    b"\x85",
    b"\x86",
    b"\x81",
    b"Q",
    b"h\0",
    b"q\0",
    b"j\xff\xff\xff\x7f",
    b"r\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8b\x04\0\0\0aaaa",
    b"B\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\0\0\0\0",
    b"X\xff\xff\xff\x7f",
    b"\x8a\xff" + b"\x7f" * 255,
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"ctorch\nload\n",
    b"c__main__\nx\n",
    b"cnumpy\nfromfile\n",
    b"\x80\xff",
)


def _change_opcodes(data: bytes, chance: Random) -> bytes:
    try:
        places = [position for _, _, position in pickletools.genops(data) if position is not None]
    except Exception:
        return flip_bits(data, chance)
    start = chance.randrange(len(places))
    here, there = places[start], places[min(start + 1, len(places) - 1)]
    match chance.randrange(5):
        case 0:
            return data[:here] + data[there:]
        case 1:
            return data[:here] + data[here:there] * chance.choice((2, 1000)) + data[there:]
        case 2:
            return data[:here] + chance.choice(_INSERTED) * chance.choice((1, 1, 1, 5000)) + data[here:]
        case 3:
            # K and M: small numbers, such as shapes, strides and offsets.
            numbers = [at for at in places if data[at : at + 1] in (b"K", b"M")]
            if not numbers:
                return flip_bits(data, chance)
            at = chance.choice(numbers)
            width = 2 if data[at : at + 1] == b"K" else 3
            large = chance.choice((b"\x8a\x08" + number(chance).to_bytes(8, "little"), b"J\xff\xff\xff\xff"))
            return data[:at] + large + data[at + width :]
        case _:
            names = [b"_rebuild_tensor_v2", b"_rebuild_parameter", b"OrderedDict", b"FloatStorage", b"storage"]
            others = (b"_rebuild_meta_tensor_no_storage", b"_rebuild_sparse_tensor", b"_rebuild_qtensor", b"Size", b"x")
            return data.replace(chance.choice(names), chance.choice((*names, *others)), 1)


class _Call:
    """Pickled as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def code(data: bytes, chance: Random) -> bytes:
    """A pickle that, once loaded with code, makes a file named CANARY."""
    hostile = chance.choice(
        (
            _Call(os.system, f"touch {CANARY}"),
            _Call(eval, f"open({CANARY!r}, 'w')"),
            _Call(exec, f"open({CANARY!r}, 'w')"),
            _Call(open, CANARY, "w"),
            _Call(Path.touch, Path(CANARY)),
            _Call(np.save, CANARY, 1),
        )
    )
    content = chance.choice((hostile, {"weights": hostile}, {"weights": {"a": hostile}}, {hostile: 1}))
    return _in_archive(data, chance, lambda _data, chance: pickle.dumps(content, protocol=chance.choice((0, 2, 4, 5))))


def bomb(data: bytes, chance: Random) -> bytes:
    """A small file that claims, or unfolds into, more than any memory holds."""
    match chance.randrange(4):
        case 0:
            return _in_archive(data, chance, lambda *_: b"\x80\x02" + b"\x85" * 3 + b"(" * 10**6 + b".")
        case 1:
            return _in_archive(data, chance, lambda *_: b"\x80\x02]" + b"q\0" + b"(" + b"h\0" * 10**5 + b"e.")
        case 2:
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("archive/data.pkl", b"\x80\x02" + b"N0" * (3 << 19) + b"N.")
                archive.writestr("archive/version", "3\n")
            return out.getvalue()
        case _:
            header = {
                "a": {"dtype": "F32", "shape": [number(chance), number(chance)], "data_offsets": [0, number(chance)]}
            }
            return safetensors_file(header, b"\0" * 64)


def safetensors(data: bytes, chance: Random) -> bytes:
    """A .safetensors header that claims other shapes, types or offsets, or is no header."""
    if data[8:9] != b"{":
        return bomb(data, chance)
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        entry = header[chance.choice(sorted(header))]
        field, value = chance.choice(
            (
                ("shape", [number(chance)] * chance.choice((0, 1, 4, 1000))),
                ("dtype", chance.choice(("F64", "BOOL", "F8_E4M3", "X", ""))),
                ("data_offsets", [number(chance), number(chance)]),
                ("shape", "x"),
            )
        )
        entry[field] = value
    except Exception:
        header = b"[" * 100_000
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    claimed = chance.choice((len(text), len(text), number(chance)))
    return claimed.to_bytes(8, "little") + text + data[8 + length :]


_CELLS = (
    "",
    "v0.npy",
    "v1.npy",
    "../v0.npy",
    "/dev/zero",
    "/dev/stdin",
    "/etc/passwd",
    "~root/x",
    "~nobody-of-this-name/x",
    "-1",
    "nan",
    "inf",
    "1e400",
    "0",
    "0x10",
    "1_000",
    "٣",
    "=1+1",
    "a" * 70_000,
    "\0",
    "\x1b[31m",
    "\udcff",
    '"',
    '""',
    "x\ny",
    "pipe",
    ".",
    "/",
    "http://localhost/x",
    "a,b",
    "\u2028",
    "\ufeff",
    "TRAIN",
)
_COLUMNS = (
    "path",
    "video_id",
    "study_id",
    "patient_id",
    "view",
    "split",
    "fps",
    "EF",
    "query_key",
    "SourceFolder",
    "",
    "FileName",
)


def table(data: bytes, chance: Random) -> bytes:
    """A table with other cells, columns, rows, separators or quotes."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    cells = lines[at].split(b",")
    cell = chance.choice(_CELLS).encode("utf-8", "surrogateescape")
    match chance.randrange(9):
        case 0 | 1 | 2:
            cells[chance.randrange(len(cells))] = cell
            lines[at] = b",".join(cells)
        case 3:
            lines[at] = b",".join(cells) + b"," + cell
        case 4:
            header = lines[0].split(b",")
            header[chance.randrange(len(header))] = chance.choice(_COLUMNS).encode()
            lines[0] = b",".join(header)
        case 5:
            lines[at:at] = [lines[at]] * chance.choice((1, 2, 3000))
        case 6:
            lines[at] = lines[at].replace(b",", chance.choice((b";", b"\t", b",,", b"")))
        case 7:
            lines[at] = b'"' + lines[at]
        case _:
            return b"\n".join(lines).replace(b"\n", chance.choice((b"\r", b"\r\n", b"\n\n", b"\0")))
    return b"\n".join(lines)


__all__ = ["CANARY", "RAW", "bomb", "code", "embedding_file", "pickled", "safetensors", "table"]
