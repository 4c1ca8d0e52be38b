"""A Message in and out: files of ours, pandas' formats, Arrow, tensordict."""

import datetime
import io
import json
import os
import pickle
import random
import sqlite3
import struct
import subprocess
import sys
import tarfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from tensordict import TensorDict

from fireworks.core.message import Message
from fireworks.utils.exceptions import FormatError

FRAME_COLUMNS = {
    "text": pd.Series(["a", None, "ü😀\x00\n"]),
    "text of Python": pd.Series(["a", None, "c"], dtype=object),
    "integers": [1, 2**62 + 1, -3],
    "small integers": np.array([1, 2, 3], dtype=np.int8),
    "large integers": np.array([1, 2, 2**64 - 1], dtype=np.uint64),
    "integers beyond 64 bits": [2**70, 1, None],
    "nullable integers": pd.array([1, None, 2**62 + 1], dtype="Int64"),
    "floats": [0.1, float("nan"), float("inf")],
    "half floats": np.array([1, 2, 3], dtype=np.float16),
    "nullable floats": pd.array([0.5, None, 1.5], dtype="Float32"),
    "booleans": [True, False, True],
    "nullable booleans": pd.array([True, None, False], dtype="boolean"),
    "categories": pd.Categorical(["x", "y", None], categories=["z", "y", "x"]),
    "ordered categories": pd.Categorical(["x", "y", "x"], categories=["y", "x"], ordered=True),
    "categories of integers": pd.Categorical([3, 1, 3]),
    "timestamps": pd.Series([pd.Timestamp("2020-01-01 12:00:00.123456"), None, pd.Timestamp("1970-01-01")]),
    "timestamps in s": pd.date_range("2020", periods=3).as_unit("s"),
    "timestamps in ns": pd.date_range("2020", periods=3).as_unit("ns"),
    "timestamps with zone": pd.date_range("2020-03-29", periods=3, freq="h", tz="Europe/Berlin"),
    "time differences": pd.to_timedelta([1, 2, None], unit="s"),
    "periods": pd.period_range("2020", periods=3, freq="M"),
    "intervals": pd.interval_range(0, 3),
    "decimals": [Decimal("1.10"), Decimal("-1e-20"), None],
    "bytes": [b"a", b"\x00\xff", None],
    "dates": [datetime.date(2020, 1, 1), None, datetime.date(1, 1, 1)],
    "datetimes as objects": pd.Series([datetime.datetime(1000, 1, 1), None, datetime.datetime.max], dtype=object),
    "objects": [{"a": [1, None]}, [1, (2.5, "x")], None],
    "numbers and text": [1, "a", None],
    "nothing": [None, None, None],
    "arrays": np.arange(12.0).reshape(3, 2, 2),
    "ragged lists": [[1, 2], [3], []],
    "tensors": [torch.ones(2), torch.zeros(1, dtype=torch.int8), torch.tensor(float("nan"))],
    "Arrow integers": pd.Series([1, None, 3], dtype="int64[pyarrow]"),
}
DTYPES = sorted(
    (
        dtype
        for name, dtype in vars(torch).items()
        if isinstance(dtype, torch.dtype) and name.startswith(("bool", "int", "uint", "float", "bfloat", "complex"))
        # types of less than a byte have no operations on the CPU
        if dtype.itemsize > 1 or str(dtype)[-1] == "8" or "8_" in str(dtype) or dtype is torch.bool
    ),
    key=str,
)
experimental = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def saved(message: Message) -> bytes:
    """The bytes of the file of a message."""
    buffer = io.BytesIO()
    message.save(buffer)
    return buffer.getvalue()


def loaded(data: bytes) -> Message:
    """The message of a file with these bytes."""
    return Message.load(io.BytesIO(data))


def dtypes(message: Message) -> dict[str, str]:
    """The types of all columns, with those of categories."""
    columns = {name: column.dtype for name, column in message.items()}
    return {name: str(getattr(dtype, "categories", None)) + str(dtype) for name, dtype in columns.items()}


def assert_same(result: Message, expected: Message) -> None:
    """The same columns in the same order, with the same types and values."""
    assert result == expected
    assert result.columns == expected.columns
    assert dtypes(result) == dtypes(expected)
    assert result.check_length() == len(expected)


def everything() -> Message:
    """A message with every kind of column that our files keep."""
    return Message({**FRAME_COLUMNS, "x": torch.randn(3, 2), "b": torch.tensor([True, False, True])})


# Our own file


@pytest.mark.parametrize("values", FRAME_COLUMNS.values(), ids=FRAME_COLUMNS.keys())
def test_every_kind_of_frame_column_is_loaded_as_it_was_saved(values):
    message = Message({"a": values})

    assert_same(loaded(saved(message)), message)
    assert_same(loaded(saved(message[1:])), message[1:])
    assert_same(loaded(saved(message[0:0])), message[0:0])


@experimental
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_and_shape_are_loaded_as_they_were_saved(dtype):
    for shape in ((3,), (3, 2, 2), (0,), (0, 4), (3, 0)):
        tensor = torch.randint(0, 2, shape).to(dtype)
        message = Message({"odd": torch.ones(shape[0], dtype=torch.bool), "t": tensor, "a": [0.5] * shape[0]})

        assert_same(loaded(saved(message)), message)


@pytest.mark.parametrize("handed_out", [False, True], ids=["arrays", "frame"])
def test_a_whole_message_is_loaded_as_it_was_saved(tmp_path, handed_out):
    message = everything()
    if handed_out:
        message.df  # noqa: B018, the file is then written from the DataFrame
    message.save(tmp_path / "file")

    assert_same(Message.load(tmp_path / "file"), message)
    assert_same(Message.load(str(tmp_path / "file"), mmap=True), message)
    assert_same(loaded(saved(Message.load(tmp_path / "file"))), message)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(4, 3).t(),
        torch.arange(12.0)[::4],
        torch.zeros(1, 2).expand(3, 2),
        torch.tensor([1j, 2, 3]).conj(),
        torch.tensor([1j, 2, 3]).conj().imag,
        torch.nn.Parameter(torch.ones(3)),
        torch.ones(3, requires_grad=True) * 2,
    ],
    ids=["transposed", "strided", "expanded", "conjugate", "negative", "parameter", "part of a graph"],
)
def test_tensors_that_lie_otherwise_in_memory_are_saved(tensor):
    assert torch.equal(loaded(saved(Message({"t": tensor})))["t"], tensor.detach())


def test_names_of_columns_are_data_and_not_names_of_files(tmp_path):
    names = ["", "a/b", "../up", "/etc/passwd", "manifest.json", "0", "1", "__index_level_0__", "None", "len", "ü\n"]
    message = Message({name: [1, 2] for name in names} | {name + "t": torch.ones(2) for name in names})
    message.save(tmp_path / "file")

    assert_same(Message.load(tmp_path / "file"), message)
    with tarfile.open(tmp_path / "file") as archive:
        assert archive.getnames() == ["manifest.json", "frame.arrow", "tensors.safetensors"]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "message",
    [Message(), Message({"a": []}), Message({"t": torch.zeros(0, 3)}), Message({"a": [1]})],
    ids=["empty", "no rows", "no rows of tensors", "one row"],
)
def test_small_messages_are_saved(message):
    assert_same(loaded(saved(message)), message)


def test_the_file_can_be_read_by_the_tools_that_its_parts_are_made_for():
    message = Message({"b": torch.tensor([True]), "x": torch.ones(1, 3), "h": torch.ones(1).half(), "s": ["text"]})
    with tarfile.open(fileobj=io.BytesIO(saved(message)), mode="r:") as archive:
        manifest, frame, tensors = (archive.extractfile(member).read() for member in archive)

    assert json.loads(manifest) == {
        "format": "fireworks.Message",
        "version": 1,
        "rows": 1,
        "tensors": ["b", "x", "h"],
        "frame": ["s"],
        "bytes": {},
    }
    assert pa.ipc.open_file(frame).read_all().to_pydict() == {"0": ["text"]}
    assert torch.equal(safetensors.torch.load(tensors)["1"], message["x"])
    header_size = struct.unpack("<Q", tensors[:8])[0]
    assert (8 + header_size) % 64 == 0


def test_a_mapped_file_is_not_changed_by_writing_to_the_tensors(tmp_path):
    Message({"odd": torch.ones(3, dtype=torch.bool), "x": torch.zeros(3, 2)}).save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    mapped = Message.load(tmp_path / "file", mmap=True)
    mapped["x"][0] = 7
    mapped[1] = {"odd": False, "x": torch.ones(1, 2)}

    assert mapped["x"].tolist() == [[7, 7], [1, 1], [0, 0]]
    assert (tmp_path / "file").read_bytes() == before
    assert Message.load(tmp_path / "file")["x"].sum() == 0


def test_a_loaded_message_can_be_changed_like_any_other(tmp_path):
    message = everything()
    message.save(tmp_path / "file")
    for result in (Message.load(tmp_path / "file", mmap=False), Message.load(tmp_path / "file", mmap=True)):
        result[0] = result[2]
        del result[1]
        result["x"][0] = 1
        result["new"] = [1, 2]
        assert result[["text", "integers"]].to_dict() == message[[2, 2]][["text", "integers"]].to_dict()
        assert pickle.loads(pickle.dumps(result)) == result
        assert result.append(result)[[0, 1]] == result


def test_a_loaded_message_stays_as_it_was_when_its_file_is_saved_anew_or_deleted(tmp_path):
    Message({"x": torch.zeros(5000, 4), "s": ["old"] * 5000}).save(tmp_path / "file")
    old = Message.load(tmp_path / "file")
    Message({"x": torch.ones(3, 4), "s": ["new"] * 3}).save(tmp_path / "file")
    new = Message.load(tmp_path / "file")
    (tmp_path / "file").unlink()

    assert old == Message({"x": torch.zeros(5000, 4), "s": ["old"] * 5000})
    assert new == Message({"x": torch.ones(3, 4), "s": ["new"] * 3})


def test_a_message_that_was_read_whole_outlives_a_file_that_is_cut_off(tmp_path):
    message = Message({"x": torch.arange(100_000.0), "s": ["text"] * 100_000})
    message.save(tmp_path / "file")
    read = Message.load(tmp_path / "file", mmap=False)
    os.truncate(tmp_path / "file", 0)

    assert read == message


@pytest.mark.skipif(os.name == "nt", reason="there files are not mapped by default")
def test_a_file_is_mapped_unless_told_otherwise(tmp_path):
    Message({"x": torch.zeros(100_000)}).save(tmp_path / "file")
    mapped, read = Message.load(tmp_path / "file"), Message.load(tmp_path / "file", mmap=False)
    with open(tmp_path / "file", "r+b") as file:  # what nobody should do
        file.seek(200_000)
        file.write(b"\xff" * 4)

    assert mapped["x"].isnan().sum() == 1
    assert read["x"].isnan().sum() == 0


def test_mapping_a_buffer_is_refused():
    with pytest.raises(ValueError, match="mmap=True needs a path; a buffer is in memory already"):
        Message.load(io.BytesIO(saved(Message())), mmap=True)


def test_a_buffer_is_read_from_its_start_and_written_from_its_position():
    buffer = io.BytesIO()
    Message({"a": [1]}).save(buffer)
    buffer.read()

    assert Message.load(buffer).to_dict() == {"a": [1]}


@pytest.mark.parametrize(
    "values, text",
    [
        ([{1, 2}], "column 'bad' of dtype object cannot be saved: .*set.* Convert it with map\\(\\)"),
        ([object()], "column 'bad' of dtype object cannot be saved"),
        ([(b"a", "b")], "column 'bad' of dtype object cannot be saved"),
        ([Decimal("NaN")], "column 'bad' of dtype object cannot be saved"),
        (np.array([1j]), "column 'bad' of complex128 cannot be saved"),
        (pd.arrays.SparseArray([1]), "column 'bad' of Sparse.* cannot be saved"),
        (torch.eye(1).to_sparse(), "column 'bad' of torch.sparse_coo cannot be saved; convert it with map"),
    ],
)
def test_a_failing_save_names_the_column_and_leaves_the_old_file(tmp_path, values, text):
    Message({"a": [1]}).save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()

    with pytest.raises(TypeError, match=text):
        Message({"good": ["x"], "bad": values, "t": torch.ones(1)}).save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


def test_a_save_that_fails_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    Message({"a": [1]}).save(tmp_path / "file")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("fireworks.core._formats._write_tar", fail)
    with pytest.raises(OSError, match="disk full"):
        Message({"a": [2]}).save(tmp_path / "file")

    assert Message.load(tmp_path / "file").to_dict() == {"a": [1]}
    assert os.listdir(tmp_path) == ["file"]


def test_a_message_whose_halves_do_not_fit_is_not_saved(tmp_path):
    message = Message({"a": [1, 2], "t": torch.ones(2)})
    message.df = message.df
    del message.tensor_message[0]

    with pytest.raises(ValueError, match="columns differ in rows"):
        message.save(tmp_path / "file")
    assert os.listdir(tmp_path) == []


# Files that are not what they should be


def archive_of(**members: bytes) -> bytes:
    """A tar archive with these members; two underscores are a dot."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def manifest_of(**changes) -> bytes:
    """The manifest of a message of two rows with one tensor, with changes."""
    manifest = {"format": "fireworks.Message", "version": 1, "rows": 2, "tensors": ["t"], "frame": []}
    return json.dumps(manifest | changes).encode()


def safetensors_of(data: bytes = bytes(8), **entry) -> bytes:
    """A safetensors file with one tensor of two floats, with changes to its entry."""
    header = json.dumps({"0": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


GOOD = {"manifest__json": manifest_of(), "tensors__safetensors": safetensors_of()}
DEEP = b"[" * 100_000


def test_the_parts_that_the_next_tests_break_are_sound():
    assert loaded(archive_of(**GOOD)).to_dict() == {"t": [0.0, 0.0]}


@pytest.mark.parametrize(
    "members, text",
    [
        ({"manifest__json": b"{"}, "manifest.json is no JSON"),
        ({"manifest__json": b"\xff"}, "manifest.json is no JSON"),
        ({"manifest__json": DEEP}, "manifest.json is no JSON"),
        ({"manifest__json": b"[]"}, "is no saved Message: its format is not 'fireworks.Message'"),
        ({"manifest__json": manifest_of(format="other")}, "its format is not 'fireworks.Message'"),
        ({"manifest__json": manifest_of(version=2)}, "has version 2 of the format, this release reads 1; upgrade it"),
        ({"manifest__json": manifest_of(tensors=None)}, "does not list the columns"),
        ({"manifest__json": manifest_of(tensors="t")}, "does not list the columns"),
        ({"manifest__json": manifest_of(tensors=[1])}, "does not list the columns"),
        ({"manifest__json": manifest_of(tensors=["t", "t"])}, "does not list the columns"),
        ({"manifest__json": manifest_of(rows="2")}, "does not list the columns"),
        ({"manifest__json": manifest_of(rows=3)}, "is broken: a column has 2 rows, not 3"),
        ({"manifest__json": manifest_of(frame=["a"])}, "is incomplete: it holds no frame.arrow"),
        ({"manifest__json": manifest_of(tensors=["t", "u"])}, "tensors.safetensors is broken"),
        ({"manifest__json": manifest_of(bytes=[1])}, "tensors.safetensors is broken"),
        ({"manifest__json": manifest_of(bytes={"0": "torch.load"})}, "tensors.safetensors is broken"),
        ({"manifest__json": manifest_of(bytes={"0": "torch.complex128"})}, "tensors.safetensors is broken"),
        ({"tensors__safetensors": None}, "is incomplete: it holds no tensors.safetensors"),
        ({"tensors__safetensors": b""}, "tensors.safetensors is broken"),
        ({"tensors__safetensors": struct.pack("<Q", 2**63) + b"{}"}, "tensors.safetensors is broken"),
        ({"tensors__safetensors": struct.pack("<Q", len(DEEP)) + DEEP}, "tensors.safetensors is broken"),
        ({"tensors__safetensors": safetensors_of(b"")}, "shape \\[2\\] does not fit bytes 0 to 8 of 0"),
        ({"tensors__safetensors": safetensors_of(dtype="F65")}, "tensors.safetensors is broken"),
        ({"tensors__safetensors": safetensors_of(dtype=["F32"])}, "tensors.safetensors is broken"),
        ({"tensors__safetensors": safetensors_of(shape=[3])}, "does not fit"),
        ({"tensors__safetensors": safetensors_of(shape=[-2])}, "shapes and offsets are no numbers"),
        ({"tensors__safetensors": safetensors_of(shape=[2.0])}, "shapes and offsets are no numbers"),
        ({"tensors__safetensors": safetensors_of(shape=[])}, "does not fit"),
        ({"tensors__safetensors": safetensors_of(shape=[0, 2**70], data_offsets=[0, 0])}, "is broken"),
        ({"tensors__safetensors": safetensors_of(shape=[2**62, 2**62])}, "does not fit"),
        ({"tensors__safetensors": safetensors_of(data_offsets=[-8, 0])}, "shapes and offsets are no numbers"),
        ({"tensors__safetensors": safetensors_of(data_offsets=[8, 0])}, "does not fit"),
        ({"tensors__safetensors": safetensors_of(data_offsets=[0, 8, 16])}, "is broken"),
        ({"tensors__safetensors": safetensors_of(data_offsets=None)}, "is broken"),
    ],
)
def test_a_broken_part_is_a_format_error_that_names_it(members, text):
    parts = {name: content for name, content in {**GOOD, **members}.items() if content is not None}

    with pytest.raises(FormatError, match=text):
        loaded(archive_of(**parts))


@pytest.mark.parametrize(
    "frame",
    [b"", b"ARROW1", bytes(100), pickle.dumps({"a": 1})],
    ids=["empty", "short", "zeros", "pickle"],
)
def test_a_frame_that_is_no_arrow_file_is_a_format_error(frame):
    manifest = manifest_of(tensors=[], frame=["a"])

    with pytest.raises(FormatError, match=r"frame\.arrow is broken"):
        loaded(archive_of(manifest__json=manifest, frame__arrow=frame))


@pytest.mark.parametrize(
    "table, kinds",
    [
        (pa.table({"0": [1, 2]}), None),
        (pa.table({"0": [1, 2]}), ["pandas", "pandas"]),
        (pa.table({"0": [1, 2], "1": [1, 2]}), ["pandas"]),
        (pa.table({"0": [1, 2]}), 3),
        (pa.table({"0": [1, 2]}), ["json"]),
        (pa.table({"0": ["{", "1"]}), ["json"]),
        (pa.table({"0": ["[" * 100_000, "1"]}), ["json"]),
        (pa.table({"0": ['{"__tensor__": "load"}', "1"]}), ["json"]),
    ],
)
def test_an_arrow_file_with_other_content_is_a_format_error(table, kinds):
    metadata = {} if kinds is None else {b"fireworks": json.dumps(kinds).encode()}
    sink = io.BytesIO()
    table = table.replace_schema_metadata(metadata)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(FormatError, match=r"frame\.arrow is broken"):
        loaded(archive_of(manifest__json=manifest_of(tensors=[], frame=["a"]), frame__arrow=sink.getvalue()))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 2000, b"x" * 2000, b"PK\x03\x04" + b"\x00" * 600, pickle.dumps({"a": 1}) * 50],
    ids=["empty", "zeros", "text", "zip", "pickle"],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_of_another_format_is_a_format_error_that_names_the_file(tmp_path, data, mmap):
    path = tmp_path / "other.bin"
    path.write_bytes(data)

    with pytest.raises(FormatError, match=r"other\.bin is no saved Message"):
        Message.load(path, mmap=mmap)


def test_a_file_that_is_not_there_is_pythons_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Message.load(tmp_path / "absent")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_other_special_members_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("manifest.json")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "file", "w") as archive:
        archive.addfile(info)

    with pytest.raises(FormatError, match=r"is cut off or broken at 'manifest\.json'"):
        Message.load(tmp_path / "file")


def test_a_file_cut_off_anywhere_is_a_format_error():
    message = Message({"a": ["x", "y"], "t": torch.ones(2, 8)})
    data = saved(message)
    end = data.rindex(struct.pack("<f", 1.0)) + 4  # only zeros follow, which fill up the archive

    for size in [*range(0, end, 97), end - 1]:
        with pytest.raises(FormatError):
            loaded(data[:size])
    for size in range(end, len(data), 97):
        assert_same(loaded(data[:size]), message)


def test_damaged_files_are_read_or_refused_and_nothing_else():
    data = saved(everything())
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.choice([0, 255, chance.randrange(256)])
        if chance.random() < 0.3:
            at = chance.randrange(len(damaged))
            del damaged[at : at + chance.randrange(1, 600)]
        try:
            repr(loaded(bytes(damaged)))
        except FormatError:
            refused += 1

    assert 100 < refused < 400


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_nothing_in_a_file_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps(Evil())
    storage = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "2"]))
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil}
    table = pa.Table.from_arrays([storage.storage], schema=pa.schema([pa.field("0", pa.string(), metadata=metadata)]))
    table = table.replace_schema_metadata({b"fireworks": b'["pandas"]', b"pandas": evil})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for parts in (
        {"manifest__json": evil},
        {"manifest__json": manifest_of(), "tensors__safetensors": evil},
        {"manifest__json": manifest_of(tensors=[], frame=["a"]), "frame__arrow": sink.getvalue()},
    ):
        try:
            repr(loaded(archive_of(**parts)))
        except FormatError:
            continue

    assert not os.path.exists("unpickled")


def test_loading_imports_no_pickle_of_ours(tmp_path):
    Message({"a": ["x"], "t": torch.ones(1)}).save(tmp_path / "file")
    script = (
        "import pickle, sys\n"
        "from fireworks.core.message import Message\n"
        "def refuse(*args, **kwargs): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        f"print(Message.load({str(tmp_path / 'file')!r}).to_json())"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert json.loads(finished.stdout) == {"a": ["x"], "t": [1.0]}


# pandas' formats


def mixed() -> Message:
    """Columns that every format of pandas can hold."""
    return Message(
        {
            "i": [1, 2**53 + 1, 3],
            "f": [0.1, 1 / 3, 1e-300],
            "s": ["a", "007", None],
            "b": [True, False, True],
            "t": torch.tensor([[1.0, 2], [3, 4], [5, 6]]),
            "n": torch.tensor([2**60 + 1, 2, 3]),
        }
    )


@pytest.mark.parametrize("method", ["json", "parquet", "feather", "orc", "pickle"])
def test_formats_that_keep_types_give_back_what_they_were_given(tmp_path, method):
    message = mixed()
    assert message.to(method, path=tmp_path / f"file.{method}") is None

    assert_same(Message.read(method, tmp_path / f"file.{method}"), message.to_dataframe())
    assert message == mixed()
    assert os.listdir(tmp_path) == [f"file.{method}"]


@pytest.mark.parametrize("method, suffix", [("csv", ".csv"), ("csv", ".csv.gz"), ("excel", ".xlsx"), ("html", ".html")])
def test_formats_of_text_give_back_numbers_and_text(tmp_path, method, suffix):
    message = Message({"i": [1, 2], "f": [0.1, 0.25], "s": ["a,b", "<c>"], "t": torch.tensor([[1, 2], [3, 4]])})
    message.to(method, tmp_path / f"file{suffix}")

    assert Message.read(method, tmp_path / f"file{suffix}").to_dict() == {
        "i": [1, 2],
        "f": [0.1, 0.25],
        "s": ["a,b", "<c>"],
        "t": ["[1, 2]", "[3, 4]"],
    }


def test_csv_keeps_every_digit(tmp_path):
    values = np.random.default_rng(0).standard_normal(10_000) * 10.0 ** np.arange(-50, 50).repeat(100)
    message = Message({"f": values, "i": np.arange(10_000) + 2**60})
    message.to("csv", tmp_path / "file.csv")

    assert Message.read("csv", tmp_path / "file.csv") == message


def test_without_a_path_the_text_or_object_is_returned():
    message = Message({"a": [1, 2], "t": torch.ones(2, 2)})

    assert message.to("csv") == 'a,t\n1,"[1.0, 1.0]"\n2,"[1.0, 1.0]"\n'
    assert message.to("dict") == message.to_dict() == {"a": [1, 2], "t": [[1.0, 1.0], [1.0, 1.0]]}
    assert message.to("json") == message.to_json() == '{"a": [1, 2], "t": [[1.0, 1.0], [1.0, 1.0]]}'
    assert "<table" in message.to("html")
    assert message.to("records").tolist()[0][1] == 1
    assert Message.read("parquet", io.BytesIO(message.to("parquet"))) == message.to_dataframe()


def test_to_numpy_keeps_shapes_and_types():
    message = Message({"s": ["x", "y"], "i": [1, 2], "t": torch.ones(2, 3, 4), "h": torch.ones(2, 1).bfloat16()})
    arrays = message.to("numpy")
    arrays["t"][0] = 7

    assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == {
        "s": ("|O", (2,)),
        "i": ("<i8", (2,)),
        "t": ("<f4", (2, 3, 4)),
        "h": ("<f4", (2, 1)),
    }
    assert message["t"].sum() == 24
    assert Message(arrays)["t"][1].tolist() == message["t"][1].tolist()


def test_json_keeps_every_digit_of_every_number():
    columns = {
        "i": [2**53 + 1, -(2**63)],
        "big": [2**70, 1],
        "f": [0.1, 1 / 3],
        "holes": [None, 2**60 + 1],
        "bool": [True, None],
    }
    message = Message({**columns, "holes": pd.array(columns["holes"], dtype="Int64"), "t": torch.tensor([0.1, 2**-30])})
    text = message.to_json()

    assert json.loads(text) == {**columns, "t": message["t"].tolist()}
    assert_same(Message.read("json", io.StringIO(text)), message.to_dataframe().map({"t": lambda t: t.astype(float)}))
    assert Message.read("json", io.BytesIO(text.encode())) == Message.read("json", io.StringIO(text))


def test_json_leaves_text_as_text():
    message = Message({"date": ["2020-01-01", "2021-01-01"], "number": ["1", "2"], "list": [["a"], None]})

    assert_same(Message.read("json", io.StringIO(message.to_json())), message)


def test_json_of_other_programs_is_read_as_pandas_reads_it(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    frame.to_json(tmp_path / "plain.json")
    frame.to_json(tmp_path / "records.json", orient="records")
    frame.to_json(tmp_path / "packed.json.gz")
    frame.to_json(tmp_path / "lines.json", orient="records", lines=True)
    expected = {"a": [1, 2], "b": ["x", "y"]}

    for name in ("plain.json", "records.json", "packed.json.gz"):
        assert Message.read("json", tmp_path / name).to_dict() == expected
    assert Message.read("json", tmp_path / "lines.json", lines=True).to_dict() == expected
    assert Message(frame).to("json", orient="records") == '[{"a":1,"b":"x"},{"a":2,"b":"y"}]'


@pytest.mark.parametrize("values", [[1.0, float("inf")], torch.tensor([-float("inf")]), [[1.0, [float("inf")]]]])
def test_infinity_in_json_is_an_error_that_names_the_column(tmp_path, values):
    with pytest.raises(TypeError, match=r"column 'a' holds what JSON cannot: .*; convert it with map"):
        Message({"a": values}).to_json(tmp_path / "file.json")
    assert os.listdir(tmp_path) == []


def test_json_of_dates_and_missing_values():
    message = Message(
        {
            "when": pd.Series([pd.Timestamp("2020-01-01"), None]),
            "date": [datetime.date(2020, 1, 1), None],
            "f": [float("nan"), 1.0],
            "t": torch.tensor([float("nan"), 1.0]),
            "o": [{"k": np.float32(0.5)}, np.arange(2)],
        }
    )

    assert json.loads(message.to_json()) == {
        "when": ["2020-01-01T00:00:00", None],
        "date": ["2020-01-01", None],
        "f": [None, 1.0],
        "o": [{"k": 0.5}, [0, 1]],
        "t": [None, 1.0],
    }


def test_text_can_be_written_to_a_buffer():
    message = Message({"a": [1]})
    for method, read in (("csv", Message.read), ("json", Message.read)):
        buffer = io.StringIO()
        message.to(method, buffer)
        buffer.seek(0)
        assert read(method, buffer) == message


def test_a_csv_can_be_added_to(tmp_path):
    message = Message({"a": [1, 2]})
    message.to("csv", tmp_path / "file.csv")
    message.to("csv", tmp_path / "file.csv", mode="a", header=False)

    assert Message.read("csv", tmp_path / "file.csv") == message.append(message)


def test_tables_of_a_database_can_be_written_and_read(tmp_path):
    connection = sqlite3.connect(tmp_path / "file.db")
    message = Message({"a": [1, 2], "t": torch.tensor([0.5, 1.5])})
    message.to("sql", "rows", con=connection, index=False)

    assert Message.read("sql", "select * from rows", con=connection) == message.to_dataframe()
    connection.close()


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.parquet"
    path.write_text("old")
    with pytest.raises(pa.ArrowInvalid):
        Message({"a": [1, "x"]}).to("parquet", path)

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.parquet"]


@pytest.mark.parametrize("target", ["jsn", "read", "", 1.5, None, torch.float32])
def test_an_unknown_format_lists_the_formats(target):
    with pytest.raises(ValueError, match=r"no device or format .* Formats: arrow, clipboard, csv, dict, excel"):
        Message({"a": [1]}).to(target)


def test_an_unknown_format_to_read_proposes_a_known_one():
    with pytest.raises(ValueError, match=r"no format 'cvs'; did you mean 'csv'\? Formats: "):
        Message.read("cvs", "file")


def test_what_is_read_is_one_table(tmp_path):
    Message({"a": [1]}).to("excel", tmp_path / "file.xlsx")
    with pytest.raises(TypeError, match=r"expected one table, pandas\.read_excel gave a dict; change its arguments"):
        Message.read("excel", tmp_path / "file.xlsx", sheet_name=None)
    two = "<table><tr><td>1</td></tr></table>" * 2
    with pytest.raises(ValueError, match="holds 2 tables; choose one with match= or attrs="):
        Message.read("html", io.StringIO(two))


def test_columns_without_a_name_are_numbered():
    assert Message.read("csv", io.StringIO("1,2\n3,4"), header=None).to_dict() == {"0": [1, 3], "1": [2, 4]}


# Arrow


@pytest.mark.parametrize("values", FRAME_COLUMNS.values(), ids=FRAME_COLUMNS.keys())
def test_every_kind_of_frame_column_goes_through_arrow(values):
    message = Message({"a": values})

    assert_same(Message.from_arrow(message.to_arrow()), message)
    assert_same(Message.from_arrow(message[0:0].to_arrow()), message[0:0])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.uint16, torch.int64, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4), (0,), (0, 2)])
def test_tensors_keep_type_and_shape_in_arrow(dtype, shape):
    message = Message({"t": torch.randint(0, 9, shape).to(dtype)})

    assert_same(Message.from_arrow(message.to_arrow()), message)


def test_tensors_keep_type_and_shape_in_a_parquet_file(tmp_path):
    message = Message(
        {"s": ["a", "b"], "o": [{"k": 1}, None], "t": torch.randn(2, 3), "b": torch.tensor([True, False])}
    )
    pq.write_table(message.to_arrow(), tmp_path / "file.parquet")

    assert_same(Message.from_arrow(pq.read_table(tmp_path / "file.parquet")), message)


def test_arrow_tables_in_several_chunks_are_read():
    message = mixed()
    table = message.to_arrow()

    assert_same(Message.from_arrow(pa.concat_tables([table, table])), message.append(message))
    assert Message.from_arrow(table.slice(1, 1)) == message[1]


def test_libraries_that_read_arrow_streams_read_messages():
    message = mixed()

    assert pa.table(message).column_names == message.columns
    assert Message.from_arrow(pa.RecordBatchReader.from_stream(message)) == message
    assert Message.from_arrow(pa.record_batch({"a": [1, 2]})).to_dict() == {"a": [1, 2]}


def test_tables_of_other_programs_lose_nothing():
    table = pa.table(
        {
            "i": pa.array([1, None, 2**60 + 1]),
            "u": pa.array([1, None, 3], pa.uint8()),
            "b": [True, None, False],
            "s": ["a", None, "b"],
            "l": [[1], None, [2, 3]],
            "st": [{"k": 1}, None, {"k": 2}],
            "d": [Decimal("1.10"), None, Decimal("2.25")],
            "bin": [b"a", None, b"\xff"],
            "dict": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    )
    message = Message.from_arrow(table)

    assert message.df.dtypes.astype(str).to_dict() == {
        "i": "Int64",
        "u": "UInt8",
        "b": "boolean",
        "s": "str",
        "l": "object",
        "st": "object",
        "d": "object",
        "bin": "object",
        "dict": "category",
    }
    assert message["i"][2] == 2**60 + 1
    assert message["l"].tolist() == [[1], None, [2, 3]]
    assert message["d"].tolist() == [Decimal("1.10"), None, Decimal("2.25")]
    assert message.tensor_message.columns == []


@pytest.mark.parametrize(
    "tensor, text",
    [
        (torch.ones(2).bfloat16(), "column 't' of torch.bfloat16 has no Arrow type; convert it"),
        (torch.eye(2).to_sparse(), "column 't' of torch.sparse_coo has no Arrow type; convert it"),
        (torch.ones(2, 0), r"column 't': Arrow has no tensors of shape \(0,\); leave it out"),
    ],
)
def test_tensors_that_arrow_cannot_hold_are_named(tensor, text):
    with pytest.raises(TypeError, match=text):
        Message({"t": tensor}).to_arrow()


def test_arrow_tables_with_one_name_twice_are_refused():
    with pytest.raises(ValueError, match="column 'a' is there twice; names are unique"):
        Message.from_arrow(pa.table([[1], [2]], names=["a", "a"]))


# tensordict


def test_messages_go_through_tensordict():
    message = Message(
        {"t": torch.randn(3, 2), "s": ["a", "b", None], "o": [{"k": 1}, [1], None], "i": [1, 2, 3], "a.b": [1, 2, 3]}
    )
    converted = message.to_tensordict()

    assert isinstance(converted, TensorDict) and converted.batch_size == (3,)
    assert converted["t"] is message["t"]
    assert Message.from_tensordict(converted) == message
    assert Message.from_tensordict(message[1].to_tensordict()) == message[1]
    assert Message.from_tensordict(Message().to_tensordict()) == Message()


def test_nested_tensordicts_are_joined_with_dots():
    nested = TensorDict({"a": {"b": torch.ones(2)}, "c": torch.zeros(2, 3), "n": "text"}, batch_size=[2])

    assert Message.from_tensordict(nested).to_dict() == {"n": ["text", "text"], "a.b": [1, 1], "c": [[0] * 3] * 2}


def test_a_tensordict_of_two_batch_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"expected a TensorDict with one batch dimension, got batch size \(2, 3\)"):
        Message.from_tensordict(TensorDict({"a": torch.ones(2, 3)}, batch_size=[2, 3]))


def test_without_tensordict_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensordict", None)

    with pytest.raises(ImportError, match=r"needs tensordict; install fireworks-ml\[tensordict\]"):
        Message({"a": [1]}).to_tensordict()


@pytest.mark.parametrize("method", ["excel", "feather", "sql"])
def test_a_format_of_files_asks_for_a_path(method):
    with pytest.raises(ValueError, match=f"the format '{method}' is that of a file; say where with path="):
        Message({"a": [1]}).to(method)


def test_a_format_that_is_an_object_takes_no_path(tmp_path):
    with pytest.raises(ValueError, match="the format 'records' is an object and no file; leave path out"):
        Message({"a": [1]}).to("records", path=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_methods_of_a_frame_that_are_no_formats_are_refused():
    with pytest.raises(ValueError, match="no device or format 'timestamp'") as refused:
        Message({"a": [1]}).to("timestamp")
    assert "period" not in str(refused.value)


@pytest.mark.parametrize(
    "call, library, extra",
    [
        ("Message({'a': [1]}).to('excel', path='table.xlsx')", "openpyxl", "excel"),
        ("Message.read('html', 'page.html', flavor='lxml')", "lxml", "html"),
    ],
)
def test_a_format_without_its_library_names_the_extra(tmp_path, call, library, extra):
    (tmp_path / "page.html").write_text("<table><tr><td>1</td></tr></table>")
    # None is what Python has in the place of a module that cannot be imported.
    program = f"import sys; sys.modules[{library!r}] = None; from fireworks import Message; {call}"

    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.stderr.endswith(f"the format '{extra}' needs {library}; install fireworks-ml[{extra}]\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
