"""Files of embeddings: text vectors as GloVe, word2vec and fastText publish them, and `.npz` archives of ours."""

from __future__ import annotations

import gzip
import os
import re
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from fireworks.utils.exceptions import FormatError, LengthError
from fireworks.utils.files import replacing

__all__ = ["FOLDER_VARIABLE", "create_pretrained_embeddings", "load_embeddings", "save_embeddings"]

FOLDER_VARIABLE = "FIREWORKS_EMBEDDINGS"
_SUFFIXES = (".npz", ".txt", ".vec", ".txt.gz", ".vec.gz")
# Under which name its authors publish a file.
_PUBLISHED = {"glove840b": "glove.840B.300d"}
_LINES_TO_GUESS_FROM = 100
_ARRAYS = ("tokens", "ends", "vectors")
# zipfile sees most damage as such, and in some bytes an offset, a password or a compression that is not there.
_BROKEN_ARCHIVE = (ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
_SPACES = re.compile("[ \t]+")  # not `str.split()`: tokens of GloVe contain no-break spaces


def load_embeddings(
    name: str | os.PathLike[str] = "glove840b", *, path: str | os.PathLike[str] | None = None
) -> dict[str, torch.Tensor]:
    """Loads embeddings by their name, or from a file: an archive that `save_embeddings` wrote, or text vectors.

    Nothing is unpickled. A large text file takes minutes to read; save it once as `.npz`, under the same name in the
    same folder, and that one is loaded from then on.

    Args:
        name: The file; or the name of a file in the folder, without `.npz`, `.txt`, `.vec`, `.txt.gz` or `.vec.gz`.
            'glove840b' also finds `glove.840B.300d.txt`, as its authors name it.
        path: The folder; by default the one that the environment variable FIREWORKS_EMBEDDINGS names, or else
            `.fireworks/embeddings` in the home folder.

    Returns:
        Token → vector of D numbers.

    Raises:
        FileNotFoundError: There is no such file; tells where it was looked for.
        FormatError: The file holds no embeddings, or is broken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_embeddings({"a": [1., 0.], "b": [0., 1.]}, f"{folder}/letters.npz")
        ...     load_embeddings("letters", path=folder)["b"]
        tensor([0., 1.])
    """
    file = _find(os.fspath(name), path)
    return _read_archive(file) if file.suffix == ".npz" else create_pretrained_embeddings(file)


def _find(name: str, folder: str | os.PathLike[str] | None) -> Path:
    if Path(name).name != name or name in (".", "..") or (folder is None and Path(name).is_file()):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no file of embeddings {name}")
        return Path(name)
    folder = Path(folder or os.environ.get(FOLDER_VARIABLE) or Path.home() / ".fireworks" / "embeddings")
    names = [name] if name.endswith(_SUFFIXES) else [name + suffix for suffix in _SUFFIXES]
    names += [_PUBLISHED[name] + suffix for suffix in _SUFFIXES] if name in _PUBLISHED else []
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(
        f"no embeddings {name!r} in {folder}: looked for {', '.join(names)}. Put the file there, give its folder by "
        f"path= or the environment variable {FOLDER_VARIABLE}, or give the file itself as name"
    )


def save_embeddings(embeddings: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Saves embeddings to a file that `load_embeddings` reads: wholly, or not at all.

    Args:
        embeddings: Token → vector.
        path: The file: `.npz` for an archive, which is read quickly; `.txt` or `.vec` for text that other programs
            read too, in the form of word2vec: a line with the number of tokens and of dimensions, then a line each.

    Raises:
        LengthError: The vectors differ in length.
        TypeError: A token is no text.
        ValueError: There are none, the suffix is another, or a token or number cannot stand in a line of text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_embeddings({"a": [1., 0.5]}, f"{folder}/letters.txt")
        ...     print(Path(f"{folder}/letters.txt").read_text())
        1 2
        a 1 0.5
    """
    path = Path(path)
    tokens, vectors = list(embeddings), _matrix(embeddings)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"expected tokens of text, got {token!r:.80}; give str(token) in its place")
    if path.suffix == ".npz":
        encoded = [token.encode() for token in tokens]
        ends = np.cumsum([len(token) for token in encoded], dtype=np.int64)
        joined = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, tokens=joined, ends=ends, vectors=vectors)
    elif path.suffix in (".txt", ".vec"):
        _check_lines(tokens)
        if not np.isfinite(vectors).all():
            token = tokens[int(np.isfinite(vectors).all(axis=1).argmin())]
            raise ValueError(
                f"the vector of {token!r:.80} holds NaN or infinity, which text vectors cannot; save an .npz"
            )
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(f"{len(tokens)} {vectors.shape[1]}\n")
            # As many digits as tell any two numbers of this type apart.
            digits = 9 if vectors.itemsize <= 4 else 17
            for token, vector in zip(tokens, vectors.tolist(), strict=True):
                file.write(f"{token} {' '.join(f'{value:.{digits}g}' for value in vector)}\n")
    else:
        raise ValueError(f"expected a file that ends in .npz, .txt or .vec, got {path}")


def _matrix(embeddings: Mapping[str, Any]) -> np.ndarray:
    if not embeddings:
        raise ValueError("there are no embeddings to save")
    vectors = [torch.as_tensor(vector).detach().cpu() for vector in embeddings.values()]
    shape = vectors[0].shape
    for token, vector in zip(embeddings, vectors, strict=True):
        if vector.ndim != 1 or vector.shape != shape:
            raise LengthError(
                f"expected vectors of one length, got shape {tuple(vector.shape)} for token {token!r} "
                f"and {tuple(shape)} for {next(iter(embeddings))!r}"
            )
    narrow = all(torch.promote_types(vector.dtype, torch.float32) == torch.float32 for vector in vectors)
    is_exact = all(
        vector.is_floating_point() or torch.equal(vector.float().to(vector.dtype), vector) for vector in vectors
    )
    dtype = torch.float32 if narrow and is_exact else torch.float64
    return torch.stack([vector.to(dtype) for vector in vectors]).numpy()


def _check_lines(tokens: list[str]) -> None:
    for token in tokens:
        if not token.strip(" \t\r") or "\n" in token or token != _SPACES.sub(" ", token).strip(" \r"):
            raise ValueError(
                f"token {token!r} cannot stand in a line of text, because of its white space; save an .npz instead"
            )


def _read_archive(path: Path) -> dict[str, torch.Tensor]:
    with open(path, "rb") as file:  # numpy leaves a file open that turns out to be no archive
        try:
            return _unpacked(file)
        except _BROKEN_ARCHIVE as error:
            raise FormatError(
                f"{path}: expected an archive as save_embeddings writes it, of {', '.join(_ARRAYS)}: {error}"
            ) from error


def _unpacked(file: IO[bytes]) -> dict[str, torch.Tensor]:
    with np.load(file, allow_pickle=False) as archive:
        tokens, ends, vectors = (archive[name] for name in _ARRAYS)
    joined, bounds = tokens.tobytes(), [0, *ends.tolist()]
    fits = tokens.dtype == np.uint8 and vectors.ndim == 2 and vectors.dtype.kind == "f"
    if not fits or len(ends) != len(vectors) or bounds[-1] != len(joined) or bounds != sorted(bounds):
        raise ValueError("its arrays do not belong together")
    names = [joined[start:end].decode() for start, end in pairwise(bounds)]
    return dict(zip(names, torch.from_numpy(vectors).unbind(), strict=True))


# --- text ------------------------------------------------------------------------------------------------------------


def create_pretrained_embeddings(
    embeddings_file: str | os.PathLike[str], *, dim: int | None = None
) -> dict[str, torch.Tensor]:
    """Loads embeddings vectors from file into a dict.

    The file is text, a token and its numbers in each line, as GloVe, word2vec (text) and fastText are published; a
    first line with the number of tokens and of dimensions may be there or not. Tokens may contain spaces, as some of
    glove.840B do. Of a token that is there twice, the first vector counts.

    Args:
        embeddings_file: The file, UTF-8; plain, or compressed with the suffix `.gz`.
        dim: How many numbers a vector has; by default what the first line, or else most lines at the beginning say.
            Needed only where tokens end in a space and a number.

    Returns:
        Token → vector of D float32 numbers.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: A line is not as the others, or the file is cut off; names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("the 0.5 1\\nname@domain .com 2 -1e-1\\n")
        ...     file.flush()
        ...     create_pretrained_embeddings(file.name)
        {'the': tensor([0.5000, 1.0000]), 'name@domain .com': tensor([ 2.0000, -0.1000])}
    """
    path = Path(embeddings_file)
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            return _read_lines(file, path, dim)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(f"{path}: the compressed file is broken or cut off: {error}") from error


def _read_lines(file: IO[bytes] | gzip.GzipFile, path: Path, dim: int | None) -> dict[str, torch.Tensor]:
    lines = _numbered_lines(file, path)
    first = list(islice(lines, _LINES_TO_GUESS_FROM))
    expected = _header(first)
    if expected is not None:
        if dim is not None and dim != expected[1]:
            raise FormatError(f"{path}, line 1: says that vectors have {expected[1]} numbers, but dim is {dim}")
        dim = expected[1]
        del first[0]
    is_guess = dim is None
    if dim is None:
        dim = _guess_dim(first, path)
    tokens: dict[str, int] = {}
    values = array("f")
    rows = 0
    for number, line in chain(first, lines):
        token, vector = _parse(line, dim, is_guess, f"{path}, line {number}")
        rows += 1
        if token not in tokens:
            tokens[token] = len(tokens)
            values.frombytes(vector.tobytes())
    if expected is not None and rows != expected[0]:
        raise FormatError(f"{path}: line 1 says {expected[0]} vectors, but there are {rows}; is the file complete?")
    if not tokens:
        raise FormatError(f"{path}: expected lines of a token and its numbers, but the file has none")
    matrix = torch.from_numpy(np.frombuffer(values, dtype=np.float32)).reshape(len(tokens), dim)
    return dict(zip(tokens, matrix.unbind(), strict=True))


_Line = tuple[int, str]


def _numbered_lines(file: IO[bytes] | gzip.GzipFile, path: Path) -> Iterator[_Line]:
    """Each line with its number; empty lines are left out."""
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}, line {number}: expected UTF-8 text, got the byte {error.object[error.start]:#04x}; "
                "is it a binary or compressed file?"
            ) from error
        text = text.rstrip(" \t\r\n")
        if text:
            yield number, text


def _header(first: list[_Line]) -> tuple[int, int] | None:
    """The number of vectors and of dimensions, when that is what the first line tells."""
    fields = _SPACES.split(first[0][1]) if first else []
    if len(fields) != 2 or not all(field.isascii() and field.isdigit() for field in fields):
        return None
    count, dim = map(int, fields)
    # It could also be a number as token, and a vector of one dimension.
    fits = dim > 0 and (len(first) == 1 or len(_SPACES.split(first[1][1])) > dim)
    return (count, dim) if fits else None


def _guess_dim(first: list[_Line], path: Path) -> int:
    """How many numbers most of these lines end in, the first field being part of the token."""
    counts = Counter(_numbers_at_end(_SPACES.split(line)[1:]) for _, line in first)
    dim = counts.most_common(1)[0][0] if counts else 1
    if not dim:
        raise FormatError(f"{path}, line {first[0][0]}: expected a token and its numbers, got {_shown(first[0][1])}")
    return dim


def _numbers_at_end(fields: list[str]) -> int:
    count = 0
    for field in reversed(fields):
        if not _is_number(field):
            break
        count += 1
    return count


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _parse(line: str, dim: int, is_guess: bool, where: str) -> tuple[str, np.ndarray]:
    """The token and the vector of a line."""
    fields = line.split(" ")
    if len(fields) != dim + 1 or "\t" in line:
        fields = _SPACES.split(line)
    given = len(fields) - 1
    # More numbers than in other lines: rather a broken line than a token made of numbers.
    too_many = is_guess and given > dim and _numbers_at_end(fields[1:]) == given
    try:
        vector = np.array(fields[-dim:], dtype=np.float64)
    except ValueError:
        vector = np.empty(0)
    if given < dim or len(vector) != dim or too_many:
        advice = "; if the rest belongs to the token, give dim=" if too_many else ""
        raise FormatError(
            f"{where}: expected a token and {dim} numbers, got {_numbers_at_end(fields[1:])} numbers in "
            f"{_shown(line)}{advice}"
        )
    with np.errstate(over="ignore"):
        single = vector.astype(np.float32)
    if not np.isfinite(single).all():
        raise FormatError(f"{where}: expected finite numbers, got {_shown(line)}")
    return " ".join(fields[:-dim]), single


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
