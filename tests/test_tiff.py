"""The page reads the pixels and axes of a TIFF as tifffile does, or explains why it cannot."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from project import ROOT

READER = ROOT / "web/test/tiff-reader.js"
HEIGHT, WIDTH = 61, 83  # not multiples of a tile's sides
Array = NDArray[Any]


def picture(kind: str, seed: int = 0) -> Array:
    """Smooth shades with noise, over the whole range of a number type."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(seed).uniform(0, 0.1, (HEIGHT, WIDTH))
    shades = ((np.sin(x / 9 + seed) * np.cos(y / 7) + 1) / 2.3 + noise).clip(0, 1)
    if kind == "bool":
        return shades > 0.5
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return ((shades - 0.5) * 1000).astype(dtype)
    bounds = np.iinfo(dtype)
    return (bounds.min + shades * (float(bounds.max) - bounds.min)).astype(dtype)


@dataclass(frozen=True)
class Reading:
    """The page's report on a file, and its samples: frame, slice, plane, row, column."""

    report: dict[str, Any]
    samples: Array


def read(*paths: Path) -> list[Reading]:
    node = shutil.which("node")
    assert node
    done = subprocess.run(
        [node, "--max-old-space-size=1000", str(READER), *map(str, paths)],
        cwd=ROOT / "web",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    readings = []
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        report = json.loads(line)
        samples = np.zeros(0)
        if "error" not in report:
            shape = (report["frames"], report["slices"], -1, report["height"], report["width"])
            samples = np.fromfile(f"{path}.samples").reshape(shape)
        readings.append(Reading(report, samples))
    return readings


Write = Callable[[Path], None]
FILES: dict[str, Write] = {}


def file(name: str, pixels: Array, **options: Any) -> None:
    options.setdefault("photometric", "minisblack")
    FILES[name] = lambda path: tifffile.imwrite(path, pixels, **options)


def with_both_orders() -> None:
    colors = np.stack([picture("u1", seed) for seed in range(3)], -1)
    for order, byteorder in (("le", "<"), ("be", ">")):
        bo: dict[str, Any] = {"byteorder": byteorder}
        for big in (False, True):
            name = f"{order}{'-big' if big else ''}"
            u2 = picture("u2")
            file(f"{name}-strips", np.tile(u2, (8, 1)), rowsperstrip=1, bigtiff=big, **bo)
            file(f"{name}-tiles", np.tile(u2, (4, 4)), tile=(16, 16), bigtiff=big, **bo)
            file(f"{name}-pages", np.stack([u2, u2[::-1]]), bigtiff=big, **bo)
        for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"):
            file(f"{order}-{kind}", picture(kind), **bo)
        for method in ("lzw", "deflate", "packbits", "zstd"):
            for kind in ("u1", "u2", "f4"):
                options = {"compression": method, "rowsperstrip": 20, **bo}
                file(f"{order}-{kind}-{method}", picture(kind), **options)
        for method in ("lzw", "deflate", "zstd"):
            for kind in ("u1", "u2", "i2", "u4", "f2", "f4", "f8"):
                predictor = 3 if kind[0] == "f" else 2
                options = {"compression": method, "predictor": predictor, **bo}
                name = f"{order}-{kind}-{method}-predictor"
                file(name, picture(kind), rowsperstrip=20, **options)
                file(f"{name}-tiles", picture(kind), tile=(32, 16), **options)
        for depth, rgb in (("", colors), ("16", colors.astype("u2") * 250)):
            options = {"photometric": "rgb", **bo}
            file(f"{order}-rgb{depth}", rgb, **options)
            planar = {**options, "planarconfig": "separate"}
            file(f"{order}-rgb{depth}-planar", rgb.transpose(2, 0, 1).copy(), **planar)
            packed = {**options, "compression": "lzw", "predictor": 2, "tile": (32, 32)}
            file(f"{order}-rgb{depth}-predictor", rgb, **packed)
        file(f"{order}-white-is-zero", picture("u1"), photometric="miniswhite", **bo)
        for method in (None, "lzw", "packbits"):
            file(f"{order}-1bit-{method}", picture("bool"), compression=method, **bo)
        for bits in (2, 4, 10, 12, 14):
            values = picture("u2") >> (16 - bits)
            kind = "u1" if bits < 8 else "u2"
            file(f"{order}-{bits}bits", values.astype(kind), bitspersample=bits, **bo)


with_both_orders()
# All codes of a table of 4096 are used: see lzw.js.
LZW_OF_ALL_CODES = (np.tile(picture("f4"), (12, 9)) > 100).astype("u1") * 255
file("lzw-of-all-codes", LZW_OF_ALL_CODES, compression="lzw", rowsperstrip=1000)


@pytest.fixture(scope="module")
def readings(
    npm_packages: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Reading]]:
    """All files, read in one process."""
    folder = tmp_path_factory.mktemp("tiffs")
    paths = [folder / f"{name}.tif" for name in FILES]
    for path, write in zip(paths, FILES.values(), strict=True):
        write(path)
    return dict(zip(FILES, zip(paths, read(*paths), strict=True), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_samples_match_tifffile(readings: dict[str, tuple[Path, Reading]], name: str) -> None:
    path, reading = readings[name]
    assert "error" not in reading.report, reading.report
    expected = tifffile.imread(path).astype(float)
    if expected.shape[-1] == 3:
        expected = np.moveaxis(expected, -1, 0)
    samples = reading.samples
    np.testing.assert_array_equal(samples.reshape(expected.shape), expected)
    assert reading.report["seconds"] < 2


def read_one(path: Path) -> Reading:
    (reading,) = read(path)
    assert "error" not in reading.report, reading.report
    return reading


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_colour_map_is_applied(tmp_path: Path, byteorder: str) -> None:
    x = np.arange(256)
    colors = np.stack([x * 2, x * 2 - 255, 255 - x]).clip(0, 255).astype("u2") * 256
    path, pixels = tmp_path / "lut.tif", picture("u1")
    tifffile.imwrite(path, pixels, photometric="palette", colormap=colors, byteorder=byteorder)
    shown = read_one(path).samples[0, 0]
    np.testing.assert_array_equal(shown, (colors >> 8)[:, pixels])


@pytest.mark.parametrize(("subsampling", "most"), [((1, 1), 2), ((2, 2), 8)])
def test_jpeg_nearly_matches_tifffile(
    tmp_path: Path, subsampling: tuple[int, int], most: int
) -> None:
    y, x = np.mgrid[:96, :128]
    smooth = np.stack([x * 2, y * 2, 255 - x - y], -1).astype("u1")
    path = tmp_path / "jpeg.tif"
    options = {"compression": "jpeg", "tile": (32, 32), "subsampling": subsampling}
    tifffile.imwrite(path, smooth, photometric="ycbcr", **options)
    shown = np.moveaxis(read_one(path).samples[0, 0], 0, -1)
    assert np.abs(shown - tifffile.imread(path)).max() <= most


# The axes. Each plane of these files has one value, which encodes its place.

SIZES = {"T": 3, "Z": 4, "C": 2}


def planes(axes: str, sizes: dict[str, int] = SIZES) -> Array:
    """Planes of the value 100 t + 10 z + c."""
    index = np.indices([sizes.get(axis, 2) for axis in axes])
    worth = {"T": 100, "Z": 10, "C": 1}
    value = sum(worth.get(axis, 1000) * index[i] for i, axis in enumerate(axes))
    return (np.asarray(value)[..., None, None] * np.ones((16, 24))).astype("u2")


def values(reading: Reading) -> Array:
    """The value of each plane, by frame, slice and channel."""
    assert (reading.samples == reading.samples[..., :1, :1]).all()
    return reading.samples[..., 0, 0]


def expected_values(
    frames: str, slices: str, channels: str, sizes: dict[str, int] = SIZES
) -> Array:
    worth = {"T": 100, "Z": 10, "C": 1, "": 0}
    index = np.indices([sizes.get(axis, 1) for axis in (frames, slices, channels)])
    return np.asarray(
        sum(worth[axis] * index[i] for i, axis in enumerate((frames, slices, channels)))
    )


LAYOUTS = {  # the axes of frames, slices and channels
    "T": "T  ",
    "Z": "Z  ",
    "C": "  C",
    "TZ": "TZ ",
    "TC": "T C",
    "ZC": "Z C",
    "TZC": "TZC",
}


def expected_of(axes: str) -> Array:
    ordered = "".join(sorted(axes, key="TZC".index))
    frames, slices, channels = (axis.strip() for axis in LAYOUTS[ordered])
    return expected_values(frames, slices, channels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_the_axes_of_an_imagej_stack_are_read(tmp_path: Path, axes: str, byteorder: str) -> None:
    path = tmp_path / "stack.tif"
    metadata = {"axes": f"{axes}YX"}
    tifffile.imwrite(path, planes(axes), imagej=True, metadata=metadata, byteorder=byteorder)
    np.testing.assert_array_equal(values(read_one(path)), expected_of(axes))


@pytest.mark.parametrize(
    "axes", ["C", "TC", "CT", "ZC", "TZC", "TCZ", "ZTC", "ZCT", "CTZ", "CZT", "TZ", "ZT"]
)
def test_the_axes_of_an_ome_stack_are_read_in_any_order(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, planes(axes), photometric="minisblack", metadata={"axes": f"{axes}YX"})
    np.testing.assert_array_equal(values(read_one(path)), expected_of(axes))


@pytest.mark.parametrize("axes", ["C", "TC", "CT", "TZC", "CZT"])
def test_the_axes_of_a_tifffile_stack_are_read(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, planes(axes), photometric="minisblack", metadata={"axes": f"{axes}YX"})
    np.testing.assert_array_equal(values(read_one(path)), expected_of(axes))


def test_ome_metadata_gives_the_page_of_each_plane_and_the_channel_names(tmp_path: Path) -> None:
    path = tmp_path / "stack.ome.tif"
    names = ["DAPI", "GFP &amp; µ"]
    tifffile.imwrite(
        path,
        planes("TC"),
        photometric="minisblack",
        metadata={"axes": "TCYX", "Channel": {"Name": ["DAPI", "GFP & µ"]}},
    )
    xml = tifffile.tiffcomment(path)
    assert xml
    blocks = "".join(
        f'<TiffData FirstT="{page // 2}" FirstC="{1 - page % 2}" IFD="{page}" PlaneCount="1"/>'
        for page in range(6)
    )
    start, rest = xml.split("<TiffData", 1)
    changed = start + blocks + rest.split("/>", 1)[1]
    tifffile.tiffcomment(path, changed.encode())
    reading = read_one(path)
    np.testing.assert_array_equal(values(reading), expected_of("TC")[..., ::-1])
    assert reading.report["channels"] == [names[0], "GFP & µ"]


def test_samples_of_a_page_that_are_not_colours_are_channels(tmp_path: Path) -> None:
    path = tmp_path / "samples.tif"
    four = np.moveaxis(planes("TC", {"T": 3, "C": 4}), 1, -1)
    tifffile.imwrite(
        path, four, photometric="minisblack", planarconfig="contig", metadata={"axes": "TYXS"}
    )
    expected = expected_values("T", "", "C", {"T": 3, "C": 4})
    np.testing.assert_array_equal(values(read_one(path)), expected)


def without_directories(path: Path) -> Path:
    """Keep only the first directory, as ImageJ does for a stack above 4 GiB."""
    data = bytearray(path.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, offset)
    struct.pack_into(f"{order}I", data, offset + 2 + 12 * entries, 0)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_all_images_of_an_imagej_stack_with_one_directory_are_read(
    tmp_path: Path, byteorder: str
) -> None:
    path = tmp_path / "large.tif"
    metadata = {"axes": "TZCYX"}
    tifffile.imwrite(path, planes("TZC"), imagej=True, metadata=metadata, byteorder=byteorder)
    reading = read_one(without_directories(path))
    np.testing.assert_array_equal(values(reading), expected_of("TZC"))


def test_all_images_of_a_tifffile_stack_with_one_directory_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, planes("T"), photometric="minisblack", truncate=True)
    np.testing.assert_array_equal(values(read_one(path)), expected_of("T"))


def test_all_images_of_a_metamorph_stack_are_read(tmp_path: Path) -> None:
    path = tmp_path / "stack.stk"
    pixels = planes("T")
    uic2 = (33629, 5, 3, (1, 1) * 3, True)  # a fraction for each image
    tifffile.imwrite(
        path, pixels[0], photometric="minisblack", extratags=[uic2], metadata=None, rowsperstrip=4
    )
    with tifffile.TiffFile(path) as tiff:
        offsets, counts = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    data = path.read_bytes()
    assert offsets[-1] + counts[-1] == len(data)
    path.write_bytes(data + pixels[1:].tobytes())
    np.testing.assert_array_equal(values(read_one(path)), expected_of("T"))


def test_the_axes_of_a_zeiss_stack_are_read_and_samples_of_a_page_are_channels(
    tmp_path: Path,
) -> None:
    path = tmp_path / "stack.lsm"
    about = bytearray(60)
    struct.pack_into("<5i", about, 8, 24, 16, SIZES["Z"], 3, SIZES["T"])
    sizes = {**SIZES, "C": 3}
    with tifffile.TiffWriter(path, byteorder="<") as tiff:
        for page in planes("TZC", sizes).reshape(-1, 3, 16, 24).astype("u1"):
            tags = [(34412, 1, len(about), bytes(about), True)]
            tiff.write(
                page, photometric="rgb", planarconfig="separate", extratags=tags, metadata=None
            )
            thumbnail = np.zeros((4, 6), "u1")
            tiff.write(thumbnail, photometric="minisblack", subfiletype=1, metadata=None)
    expected = expected_values("T", "Z", "C", sizes).astype("u1")
    np.testing.assert_array_equal(values(read_one(path)), expected)


# Skipped contents are reported.


def test_pages_of_other_sizes_are_skipped_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as tiff:
        for side in (64, 64, 32, 16):
            tiff.write(np.full((side, side), side, "u1"), photometric="minisblack", metadata=None)
    reading = read_one(path)
    assert reading.samples.shape == (2, 1, 1, 64, 64)
    assert reading.report["notes"] == [
        "2 pages of other sizes are not shown: the first is 64 × 64 pixels."
    ]


def test_the_pages_of_a_file_with_fewer_than_it_declares_are_frames(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    description = "ImageJ=1.54f\nimages=24\nchannels=2\nslices=4\nframes=3\n"
    pages = planes("T", {"T": 5}).astype("u1")
    tifffile.imwrite(path, pages, photometric="minisblack", description=description, metadata=None)
    reading = read_one(path)
    assert reading.report["frames"] == 5
    (note,) = reading.report["notes"]
    assert "describes 24 pages (T 3, Z 4, C 2), but it has 5" in note


def test_further_ome_images_are_skipped_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for _ in range(2):
            tiff.write(planes("TC"), photometric="minisblack", metadata={"axes": "TCYX"})
    reading = read_one(path)
    np.testing.assert_array_equal(values(reading), expected_of("TC"))
    assert reading.report["notes"] == [f"{path.name} has 2 images: the first is shown."]


def test_one_of_several_ome_files_shows_its_own_planes(tmp_path: Path) -> None:
    path = tmp_path / "b.ome.tif"
    tifffile.imwrite(path, planes("T"), photometric="minisblack", metadata=None)
    blocks = "".join(
        f'<TiffData FirstT="{t}" FirstC="{c}" IFD="{t}"><UUID FileName="{name}">x</UUID></TiffData>'
        for c, name in enumerate(("a.ome.tif", "b.ome.tif"))
        for t in range(3)
    )
    pixels = '<Pixels DimensionOrder="XYZTC" SizeC="2" SizeT="3" SizeX="24" SizeY="16" SizeZ="1">'
    named = '<Channel Name="one"/><Channel Name="two"/>'
    xml = f"<OME><Image>{pixels}{named}{blocks}</Pixels></Image></OME>"
    tifffile.imwrite(
        path, planes("T"), photometric="minisblack", metadata=None, description=xml, ome=False
    )
    reading = read_one(path)
    np.testing.assert_array_equal(values(reading), expected_of("T"))
    assert reading.report["channels"] == ["two"]
    assert reading.report["notes"] == ["b.ome.tif is one of 2 files: only its planes are shown."]


# Unreadable contents are named, with a command that converts the file.


def converted(error: str, folder: Path) -> Path:
    """Run the command of a message; returns the file that it wrote."""
    (code,) = [part for part in error.split('"') if part.startswith("import tifffile")]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    (path,) = folder.glob("*-plain.tif")
    return path


def refused(path: Path) -> str:
    (reading,) = read(path)
    assert reading.report["seconds"] < 1
    return str(reading.report["error"])


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("jpeg2000", "JPEG 2000"),
        ("lzma", "LZMA"),
        ("ccittfax4", "CCITT (fax)"),
        ("jpegxl", "JPEG XL"),
        ("jpegxr", "JPEG XR"),
        ("png", "PNG"),
    ],
)
def test_an_unsupported_compression_is_refused_by_name(
    tmp_path: Path, method: str, name: str
) -> None:
    path = tmp_path / "image.tif"
    pixels = planes("TC").astype("u1")
    if method == "ccittfax4":
        tifffile.imwrite(path, picture("bool"), photometric="minisblack", compression=None)
        data = bytearray(path.read_bytes())
        at = data.index(struct.pack("<HHI", 259, 3, 1))
        struct.pack_into("<H", data, at + 8, 4)
        path.write_bytes(data)
    else:
        tifffile.imwrite(
            path,
            pixels,
            photometric="minisblack",
            compression=method,
            metadata={"axes": "TCYX"},
            compressionargs={"level": 0} if method == "jpegxl" else None,
        )
    error = refused(path)
    assert error.startswith(f"image.tif is compressed with {name}, which this page cannot read.")
    if method in ("lzma", "png"):
        assert values(read_one(converted(error, tmp_path))).shape == (3, 1, 2)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("u8", "unsigned numbers of 64 bits"),
        ("i8", "signed numbers of 64 bits"),
        ("c8", "complex numbers of 64 bits"),
    ],
)
def test_unsupported_number_types_are_refused_by_name(
    tmp_path: Path, kind: str, words: str
) -> None:
    path = tmp_path / "it's.tif"
    pixels = planes("TC").astype(kind)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TCYX"})
    error = refused(path)
    assert error.startswith(f"it's.tif has {words}, which this page cannot read. Convert it")
    np.testing.assert_array_equal(values(read_one(converted(error, tmp_path))), expected_of("TC"))


def test_a_circular_chain_of_pages_ends(tmp_path: Path) -> None:
    path = tmp_path / "loop.tif"
    tifffile.imwrite(path, planes("T"), photometric="minisblack", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[2].offset
    (entries,) = struct.unpack_from("<H", data, last)
    struct.pack_into("<I", data, last + 2 + 12 * entries, first)
    path.write_bytes(data)
    assert read_one(path).report["frames"] == 3


def test_broken_lzw_data_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.tif"
    tifffile.imwrite(path, picture("u2"), photometric="minisblack", compression="lzw")
    with tifffile.TiffFile(path) as tiff:
        (offset, *_), (count, *_) = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    data = bytearray(path.read_bytes())
    data[offset + 2 : offset + count] = b"\xff" * (count - 2)
    path.write_bytes(data)
    assert "broken.tif is broken" in refused(path)


def test_a_big_endian_colour_map_image_with_a_predictor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lut.tif"
    lut = np.tile(np.arange(65536, dtype="u2"), (3, 1))
    options = {"compression": "lzw", "predictor": 2, "byteorder": ">"}
    tifffile.imwrite(path, picture("u2"), photometric="palette", colormap=lut, **options)
    assert "has a colour map and stores differences" in refused(path)


def test_axes_without_names_are_frames_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "unnamed.tif"
    tifffile.imwrite(path, planes("TZC"), photometric="minisblack")
    reading = read_one(path)
    assert reading.report["frames"] == 24
    note = "unnamed.tif does not name its axes (3 × 4 × 2): each page is a frame."
    assert reading.report["notes"] == [note]


def test_samples_beside_the_colours_are_skipped_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "five.tif"
    five = np.stack([picture("u1", seed) for seed in range(5)], -1)
    tifffile.imwrite(path, five, photometric="rgb", extrasamples=["unspecified"] * 2)
    assert read_one(path).report["notes"] == [
        "Only red, green and blue are shown, of 5 samples a pixel."
    ]
