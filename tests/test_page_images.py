"""How the page of `doit serve` shows and feeds files of all kinds, in a real Chromium."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from project import programs
from webm import write_webm

from tasks.inference.prompts import natural_image
from tasks.web import packages, server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("images")]

SIZE = 256
Pixels = NDArray[np.uint8]
Write = Callable[[Path], Path]


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """The page without a model, which still opens files."""
    folders = {**packages.libraries(), "/": packages.PAGE}
    app = server.application(folders, {"/models.json": list})
    with server.serving(app) as address:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("No model is deployed")
        yield page
        page.close()


def open_files(page: Page, *files: Path) -> None:
    page.locator("#status").evaluate("status => { status.textContent = '' }")
    page.locator("#file").set_input_files(files)
    expect(page.locator("#status")).to_have_text(f"{files[0].name} is open.")


def seen(page: Page) -> Pixels:
    """The displayed image or frame, RGB; transparent pixels on white."""
    return pixels(
        page.evaluate(
            """() => {
              const shown = document.querySelector('#picture').firstElementChild
              const [width, height] = [shown.naturalWidth ?? shown.width,
                shown.naturalHeight ?? shown.height]
              const context = new OffscreenCanvas(width, height).getContext('2d')
              context.fillStyle = 'white'
              context.fillRect(0, 0, width, height)
              context.drawImage(shown, 0, 0)
              const { data } = context.getImageData(0, 0, width, height)
              return [width, height, Array.from(data, (byte) => String.fromCharCode(byte)).join('')]
            }"""
        )
    )


def fed(page: Page, file: Path, size: int, frame: int = 0) -> Pixels:
    """The pixels of a file that the encoder gets, RGB, `size` × `size`."""
    return pixels(
        page.evaluate(
            """async ([name, content, size, frame]) => {
              const { openFiles } = await import('/frames/sequence.js')
              const { scaledPixels } = await import('/shared/image.js')
              const { placement } = await import('/shared/preprocessing.js')
              const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0))
              const image = await openFiles([new File([bytes], name)], () => {})
              const place = placement(image.width, image.height, size, 'stretch')
              const data = scaledPixels(await image.read(frame), place)
              image.close()
              return [size, size, Array.from(data, (byte) => String.fromCharCode(byte)).join('')]
            }""",
            [file.name, base64.b64encode(file.read_bytes()).decode(), size, frame],
        )
    )


def pixels(answer: tuple[int, int, str]) -> Pixels:
    width, height, text = answer
    return np.frombuffer(text.encode("latin1"), np.uint8).reshape(height, width, 4)[..., :3]


def gray() -> Pixels:
    """A noiseless image that spans all 8 bits."""
    wave = np.sin(np.arange(SIZE) / 20)
    return (127.5 + 127.5 * wave * wave[:, None]).round().astype(np.uint8)


def write_png(path: Path, samples: NDArray[np.uint16]) -> Path:
    """Write samples (H, W, C) as a 16-bit PNG; Pillow writes only gray ones."""
    height, width, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = samples.astype(">u2").reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def saved(image: Image.Image, name: str, **options: Any) -> Write:
    def write(folder: Path) -> Path:
        image.save(folder / name, **options)
        return folder / name

    return write


def deep(samples: NDArray[np.uint16], name: str = "deep.png") -> Write:
    return lambda folder: write_png(folder / name, samples)


# --- dim images ---


def twelve_bits() -> NDArray[np.uint16]:
    return gray().astype(np.uint16) * 16


def with_hot_pixels() -> NDArray[np.uint16]:
    samples = (100 + gray() / 255 * 800).astype(np.uint16)
    samples.ravel()[::400] = 65535
    return samples


def as_tiff(samples: NDArray[Any]) -> Write:
    return saved(Image.fromarray(samples), "dim.tif")


DIM: dict[str, Write] = {
    "12 bits in a PNG of 16": deep(twelve_bits()[..., None]),
    "12 bits of a colour": deep(np.stack([twelve_bits()] * 3, axis=-1)),
    "12 bits in a TIFF": as_tiff(twelve_bits()),
    "100 to 900 with hot pixels": as_tiff(with_hot_pixels()),
    "100 to 900 with hot pixels in a PNG": deep(with_hot_pixels()[..., None]),
    "3 to 30 in a TIFF": as_tiff((3 + gray() / 255 * 27).round().astype(np.uint8)),
    "3 to 30 in a PNG": saved(
        Image.fromarray((3 + gray() / 255 * 27).round().astype(np.uint8)), "dim.png"
    ),
    "3 to 30 in a WebP": saved(
        Image.fromarray((3 + gray() / 255 * 27).round().astype(np.uint8)), "d.webp", lossless=True
    ),
}


@pytest.mark.parametrize("kind", DIM)
def test_a_dim_image_is_stretched_from_black_to_white(
    page: Page, tmp_path: Path, kind: str
) -> None:
    open_files(page, DIM[kind](tmp_path))
    shown = seen(page).astype(int)
    cold = np.ones((SIZE, SIZE), bool)
    cold.ravel()[::400] = "hot" not in kind
    # Black and white are percentiles: up to 1 % of the range is cut at the bright and dark ends.
    steps = 255 / 27 if "3 to 30" in kind else 4
    assert np.abs(shown - gray()[..., None])[cold].max() <= steps + 1
    assert shown.min() == 0
    assert shown.max() == 255


def test_a_mask_of_0_and_1_is_shown_black_and_white(page: Page, tmp_path: Path) -> None:
    mask = (gray() > 110).astype(np.uint8)
    for name in ("mask.tif", "mask.png"):
        open_files(page, saved(Image.fromarray(mask), name)(tmp_path))
        assert (seen(page) == mask[..., None] * 255).all()


def test_a_photograph_is_shown_and_fed_unchanged(page: Page, tmp_path: Path) -> None:
    photograph = natural_image(SIZE)
    for name in ("photograph.png", "photograph.tif"):
        path = saved(Image.fromarray(photograph), name)(tmp_path)
        open_files(page, path)
        assert (seen(page) == photograph).all()
        assert (fed(page, path, SIZE) == photograph).all()


def test_all_frames_of_a_stack_share_one_range(page: Page, tmp_path: Path) -> None:
    for index, gain in enumerate((10, 16)):
        write_png(tmp_path / f"t{index}.png", (gray().astype(np.uint16) * gain)[..., None])
    open_files(page, tmp_path / "t0.png", tmp_path / "t1.png")
    assert np.abs(seen(page).mean() - gray().mean() * 10 / 16) < 2


def test_frames_of_8_and_of_16_bits_cannot_be_mixed(page: Page, tmp_path: Path) -> None:
    files = (
        saved(Image.fromarray(gray()), "a.png")(tmp_path),
        deep(twelve_bits()[..., None])(tmp_path),
    )
    page.locator("#file").set_input_files(files)
    expect(page.get_by_role("alert")).to_contain_text("Some frames have 8 bits a sample")


# --- contrast settings ---


def test_the_sliders_set_black_and_white(page: Page, tmp_path: Path) -> None:
    photograph = natural_image(SIZE)
    open_files(page, saved(Image.fromarray(photograph), "photograph.png")(tmp_path))
    expect(page.locator("#range")).to_have_text("0 is black, 255 is white.")
    page.get_by_label("Black").fill("50")
    page.get_by_label("White").fill("150")
    expected = ((photograph.astype(float) - 50) * 2.55).clip(0, 255)
    page.wait_for_selector("#picture canvas")
    wait_for(page, lambda: np.abs(seen(page) - expected).max() <= 1)
    page.get_by_role("button", name="Automatic").click()
    page.wait_for_selector("#picture img")
    wait_for(page, lambda: (seen(page) == photograph).all())


def wait_for(page: Page, condition: Callable[[], Any]) -> None:
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(20)
    assert condition()


def test_black_stays_below_white(page: Page, tmp_path: Path) -> None:
    open_files(page, saved(Image.fromarray(natural_image(SIZE)), "photograph.png")(tmp_path))
    page.get_by_label("White").fill("100")
    page.get_by_label("Black").fill("200")
    expect(page.locator("#range")).to_have_text("0 is black, 100 is white.")
    expect(page.get_by_label("Black")).to_have_value("0")


def test_a_newly_opened_file_has_its_own_range(page: Page, tmp_path: Path) -> None:
    open_files(page, saved(Image.fromarray(natural_image(SIZE)), "photograph.png")(tmp_path))
    page.get_by_label("White").fill("100")
    open_files(page, saved(Image.fromarray(natural_image(SIZE)), "other.png")(tmp_path))
    expect(page.locator("#range")).to_have_text("0 is black, 255 is white.")


def test_each_channel_has_its_own_contrast(page: Page, tmp_path: Path) -> None:
    channels = np.stack([gray().astype("u2") * 10, gray().T.astype("u2") * 100])
    options: Any = {"imagej": True, "metadata": {"axes": "CYX"}}
    tifffile.imwrite(tmp_path / "cells.tif", channels, **options)
    open_files(page, tmp_path / "cells.tif")
    words = page.locator("#range")
    expect(words).to_have_text("Channel 1: 0 is black, 2550 is white.")
    first = seen(page)
    page.get_by_label("Channel", exact=True).select_option("1")
    expect(words).to_have_text("Channel 2: 0 is black, 25500 is white.")
    page.get_by_label("White").fill("12750")
    bright = (gray().T.astype(float) * 2).clip(0, 255)[..., None]
    wait_for(page, lambda: np.abs(seen(page) - bright).max() <= 1)
    page.get_by_label("Channel", exact=True).select_option("0")
    wait_for(page, lambda: (seen(page) == first).all())
    page.get_by_label("Channel", exact=True).select_option("mixed")
    expect(words).to_contain_text("Channel 1:")
    page.get_by_label("Green").focus()
    expect(words).to_have_text("Channel 2: 0 is black, 12750 is white.")


# --- the page and the documented program agree ---


def turned(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(natural_image(SIZE)).save(folder / "turned.png", exif=exif)
    return folder / "turned.png"


def transparent(scale: float = 1) -> Write:
    alpha = np.zeros((SIZE, SIZE, 1), np.uint8)
    alpha[40:] = 128
    alpha[120:] = 255
    colours = (natural_image(SIZE) * scale).round().astype(np.uint8)
    return saved(Image.fromarray(np.concatenate([colours, alpha], axis=-1)), "transparent.png")


def with_a_profile(folder: Path) -> Path:
    """An image with a profile that swaps red and green, which a browser would apply."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[profile.index(b"rXYZ") : profile.index(b"rXYZ") + 4] = b"xxxx"
    red, green = profile.index(b"xxxx"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    path = folder / "profile.png"
    Image.fromarray(natural_image(SIZE)).save(path, icc_profile=bytes(profile))
    return path


FILES: dict[str, Write] = {
    **DIM,
    "a photograph": saved(Image.fromarray(natural_image(SIZE)), "photograph.png"),
    "turned by EXIF": turned,
    "transparent": transparent(),
    "transparent and dim": transparent(0.2),
    "gray and transparent": deep(
        np.stack([twelve_bits(), np.full((SIZE, SIZE), 65535, np.uint16)], axis=-1)
    ),
    "a colour profile": with_a_profile,
    "a palette": saved(Image.fromarray(natural_image(SIZE)).quantize(64), "palette.png"),
    "1 bit": saved(Image.fromarray(gray() > 110), "bit.png"),
    "0 and 1": saved(Image.fromarray((gray() > 110).astype(np.uint8)), "mask.png"),
    "one value": saved(Image.new("RGB", (SIZE, SIZE), (10, 20, 30)), "one.png"),
    "one value of 16 bits": deep(np.full((SIZE, SIZE, 1), 700, np.uint16)),
}


def sparse(ground: int, height: int) -> Pixels:
    picture = np.full((SIZE, SIZE), ground, np.uint8)
    picture[::3] += 2
    picture[100:104, 60:64] = height
    return picture


FILES["few bright objects"] = saved(Image.fromarray(sparse(2, 220)), "sparse.png")
FILES["few dim objects"] = saved(Image.fromarray(sparse(2, 90)), "sparse.png")
# Pillow reads only 8 bits of these.
REFUSED = {"12 bits of a colour", "gray and transparent"}


def program() -> Callable[[str], Image.Image]:
    (code,) = programs("use.md", "Python", "python")
    names: dict[str, Any] = {}
    exec(code.split("\nfolder, path")[0], names)
    picture: Callable[[str], Image.Image] = names["picture"]
    return picture


@pytest.mark.parametrize("kind", sorted(FILES.keys() - REFUSED))
def test_the_documented_program_feeds_the_encoder_the_same_pixels_as_the_page(
    page: Page, tmp_path: Path, kind: str
) -> None:
    path = FILES[kind](tmp_path)
    # A canvas stores 8-bit colours multiplied by alpha, which leaves few shades of dim ones.
    most = 5 if kind == "transparent and dim" else 1
    assert np.abs(fed(page, path, SIZE).astype(int) - np.array(program()(str(path)))).max() <= most


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_the_documented_program_refuses_16_bit_colours(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SystemExit, match="Pillow reads 8 of the 16 bits"):
        program()(str(FILES[kind](tmp_path)))


# --- kinds of files ---


@pytest.mark.parametrize(
    "name",
    ["a.lsm", "a.stk", "a.svs", "a.ndpi", "a.btf", "a.qptiff", "a", "really_tiff.png", "a.mp4"],
)
def test_a_tiff_is_recognized_under_any_name(page: Page, tmp_path: Path, name: str) -> None:
    Image.fromarray(gray()).save(tmp_path / name, "TIFF")
    open_files(page, tmp_path / name)
    assert (seen(page) == gray()[..., None]).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "AVIF"])
@pytest.mark.parametrize("name", ["picture.tif", "picture", "picture.webm"])
def test_an_image_is_recognized_under_any_name(
    page: Page, tmp_path: Path, kind: str, name: str
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(gray()).save(tmp_path / name, kind, **options)
    open_files(page, tmp_path / name)
    assert np.abs(seen(page).astype(int) - gray()[..., None]).mean() < 3
    expect(page.locator("#timeline")).to_be_hidden()


def test_an_svg_drawing_is_opened(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "drawing"
    path.write_text((packages.PAGE / "sample.svg").read_text())
    open_files(page, path)
    assert seen(page).std() > 10


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (b"ZISRAWFILE", "is a Zeiss CZI, which this page cannot read. Open it in Fiji"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"RIFF\0\0\0\0AVI LIST", "is an AVI"),
        (b"PK\x03\x04", "is an archive, which this page cannot read. Unpack it"),
        (b"no picture", "is not an image, a TIFF or a video that this page can read"),
        (b"", "is empty."),
    ],
)
def test_an_unsupported_file_is_refused_with_its_kind(
    page: Page, tmp_path: Path, start: bytes, sentence: str
) -> None:
    (tmp_path / "cells.tif").write_bytes(start)
    page.locator("#file").set_input_files(tmp_path / "cells.tif")
    expect(page.get_by_role("alert")).to_contain_text(f"cells.tif {sentence}")


# --- limits ---


@pytest.mark.parametrize(("width", "height"), [(65_536, 2), (2, 70_000), (20_000, 14_000)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_too_large_for_a_canvas_is_refused_up_front(
    page: Page, tmp_path: Path, kind: str, width: int, height: int
) -> None:
    path = tmp_path / "large"
    compression = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    Image.new("1", (width, height)).save(path, kind, **compression)
    page.locator("#file").set_input_files(path)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(
        f"large has {width} × {height} pixels, but this page shows at most"
    )
    expect(alert).to_contain_text("crop it, or save it smaller")


def test_an_image_of_the_maximum_width_is_shown(page: Page, tmp_path: Path) -> None:
    picture = np.zeros((2, 65_535), np.uint8)
    picture[:, -1] = 255
    open_files(page, saved(Image.fromarray(picture), "long.png")(tmp_path))
    assert (seen(page)[..., 0] == picture).all()


# --- frames ---

GRAYS = [30, 70, 110, 150, 190, 230]


def moving(position: int) -> Image.Image:
    """A square on black, at a different place on each frame."""
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[10:30, 10 * position : 10 * position + 20] = GRAYS[position]
    return Image.fromarray(picture)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {"duration": [20, 400, 20, 100, 1000, 60], "loop": 0}),
        ("GIF", {"duration": 100, "disposal": 2}),
        ("WEBP", {"duration": [20, 400, 20, 100, 1000, 60], "lossless": True}),
        ("PNG", {"duration": 100, "loop": 0}),
        ("AVIF", {"duration": 100, "quality": 100}),
    ],
)
def test_each_frame_of_an_animated_image_is_shown_once(
    page: Page, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "moving"
    first, *others = (moving(index) for index in range(6))
    first.save(path, kind, save_all=True, append_images=others, **options)
    open_files(page, path)
    expect(page.locator("#frame-number")).to_have_text("1 of 6")
    for index in (0, 5, 2, 3, 1, 4):
        show(page, index)
        assert np.abs(seen(page).astype(int) - np.array(moving(index))).max() < 20


def show(page: Page, index: int) -> None:
    """Scrub to a frame, counted from 0."""
    page.locator("#slider").fill(str(index + 1))
    page.wait_for_function(
        "index => document.querySelector('#status').textContent.startsWith(`Frame ${index} of`)"
        " || index === 1",
        arg=index + 1,
    )


def film(path: Path, grays: list[int], **options: Any) -> Path:
    pictures = [np.full((48, 64, 3), gray, np.uint8) for gray in grays]
    write_webm(path, pictures, **{"rate": 10, **options})
    return path


def levels_of(page: Page, count: int) -> list[float]:
    """The brightness of each frame; the frames are shown backwards, and then forwards."""
    expect(page.locator("#frame-number")).to_have_text(f"1 of {count}")
    for index in reversed(range(count)):
        show(page, index)
    levels = [float(seen(page).mean())]
    for index in range(1, count):
        show(page, index)
        levels.append(float(seen(page).mean()))
    return levels


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"times": [0, 17, 500, 520, 2000, 2033]},
        {"times": [300, 317, 500, 520, 2000, 2033]},
        {"sound": 5000},
        {"times": [0, 40, 90, 1000, 1001, 1002], "sound": 3000},
    ],
)
def test_each_frame_of_a_video_is_shown_once(
    page: Page, tmp_path: Path, options: dict[str, Any]
) -> None:
    open_files(page, film(tmp_path / "film", GRAYS, **options))
    assert levels_of(page, 6) == pytest.approx(GRAYS, abs=6)


def test_a_video_of_one_frame_opens_as_an_image(page: Page, tmp_path: Path) -> None:
    open_files(page, film(tmp_path / "film.webm", [200], sound=2000))
    expect(page.locator("#timeline")).to_be_hidden()
    assert abs(seen(page).mean() - 200) < 6


def test_hidden_frames_of_a_video_are_skipped(page: Page, tmp_path: Path) -> None:
    open_files(page, film(tmp_path / "film.webm", GRAYS, hidden={2, 4}))
    expected = [gray for index, gray in enumerate(GRAYS) if index not in (2, 4)]
    assert levels_of(page, 4) == pytest.approx(expected, abs=6)


def test_a_dim_video_is_brightened(page: Page, tmp_path: Path) -> None:
    open_files(page, film(tmp_path / "film.webm", [3, 10, 30]))
    first, middle, last = levels_of(page, 3)
    assert (first < 10, 40 < middle < 100, last > 245) == (True, True, True)


@pytest.mark.parametrize(
    ("decoder", "name"), [("VideoDecoder", "film.webm"), ("ImageDecoder", "film.gif")]
)
def test_a_browser_without_the_needed_decoder_shows_an_error(
    page: Page, tmp_path: Path, decoder: str, name: str
) -> None:
    if name.endswith("gif"):
        moving(0).save(tmp_path / name, save_all=True, append_images=[moving(1)])
    else:
        film(tmp_path / name, GRAYS)
    page.evaluate("name => { window.kept = window[name]; delete window[name] }", decoder)
    page.locator("#file").set_input_files(tmp_path / name)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(f"This browser lacks {decoder}, which {name} needs.")
    expect(alert).to_contain_text("or save the frames as a TIFF")
    page.evaluate("name => { window[name] = window.kept }", decoder)


def test_a_truncated_video_is_refused(page: Page, tmp_path: Path) -> None:
    path = film(tmp_path / "film.webm", GRAYS)
    path.write_bytes(path.read_bytes()[:120])
    page.locator("#file").set_input_files(path)
    expect(page.get_by_role("alert")).to_contain_text("film.webm")
