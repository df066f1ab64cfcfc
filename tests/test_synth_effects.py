"""The effects of synth_ocr against synthtiger's own components, given the same parameters."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_ocr import effects, textbox, textures
from synth_ocr.compat import import_synthtiger
from tests.every_face import has_raqm

SIZES = st.tuples(st.integers(60, 180), st.integers(60, 180))


@pytest.fixture(scope="module")
def tiger():
    return import_synthtiger()


@pytest.fixture(scope="module")
def augmenters(tiger):
    import imgaug.augmenters

    return imgaug.augmenters


def picture(size, seed=0):
    """Return a smooth colour picture: height x width x 3."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def through(tiger, component, meta, pixels):
    """Apply a synthtiger component to RGB pixels."""
    layer = tiger.layers.Layer(pixels.astype(np.float32))
    component.apply([layer], meta)
    return layer.image[..., :3].astype(np.uint8)


def distance(a, b):
    return np.abs(a.astype(int) - b.astype(int))


@given(
    size=SIZES,
    intensity=st.integers(0, 160),
    amount=st.floats(0, 1),
    smoothing=st.floats(0.5, 1),
    angle=st.floats(0, 360),
)
@settings(max_examples=25)
def test_shadow_is_synthtigers(size, intensity, amount, smoothing, angle):
    tiger = import_synthtiger()
    meta = {"intensity": intensity, "amount": amount, "smoothing": smoothing, "bidirectional": False, "align": 0}
    pixels = picture(size)
    theirs = through(tiger, tiger.components.Shadow(), meta | {"angle": angle}, pixels)
    ours = effects.darken(pixels, effects.shadow(size, intensity, amount, smoothing, angle))
    # A hard edge falls on one side of a pixel or the other; elsewhere only rounding differs.
    assert np.mean(distance(ours, theirs) > 6) < 0.03
    assert distance(ours, theirs).mean() < 1.5


@given(size=SIZES, contrast=st.floats(1, 1.5), brightness=st.integers(-48, 0))
@settings(max_examples=15)
def test_contrast_and_brightness_are_synthtigers(size, contrast, brightness):
    tiger = import_synthtiger()
    pixels = picture(size)
    layer = tiger.layers.Layer(pixels.astype(np.float32))
    tiger.components.Contrast().apply([layer], {"alpha": contrast})
    tiger.components.Brightness().apply([layer], {"beta": brightness})
    theirs = layer.image[..., :3].astype(np.uint8)
    assert distance(cv2.LUT(pixels, effects.tone(contrast, brightness)), theirs).max() <= 1


def test_tint_is_synthtigers(tiger):
    pixels = picture((90, 70))
    meta = {"rgb": (200, 30, 90), "alpha": 0.17, "grayscale": False}
    theirs = through(tiger, tiger.components.RGB(), meta, pixels)
    assert distance(effects.tint(pixels, (200, 30, 90), round(0.17 * 255) / 255), theirs).max() <= 1


@pytest.mark.parametrize("sigma", range(11))
def test_blur_is_imgaugs(augmenters, sigma):
    pixels = picture((160, 120))
    assert np.array_equal(effects.blur(pixels, sigma), augmenters.GaussianBlur(sigma=sigma)(image=pixels.copy()))


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("angle", [0, 33, 90, 200, 315])
@pytest.mark.parametrize("direction", [0.0, 0.3, 0.5, 1.0])
def test_motion_kernel_is_imgaugs(augmenters, size, angle, direction):
    impulse = np.zeros((15, 15), np.uint8)
    impulse[7, 7] = 255
    theirs = augmenters.MotionBlur(k=size, angle=angle, direction=2 * direction - 1)(image=impulse)
    ours = cv2.filter2D(impulse, -1, effects.motion_kernel(size, angle, direction))
    assert distance(ours, theirs).max() <= 14  # of 255: imgaug draws its kernel in bytes


@pytest.mark.parametrize(("alpha", "sigma"), [(0.2, 0.0), (0.6, 0.3), (1.0, 0.0), (1.0, 0.5)])
def test_elastic_distortion_disturbs_text_as_much_as_imgaugs(augmenters, alpha, sigma):
    page = np.zeros((120, 400), np.uint8)
    cv2.putText(page, "Elastic", (20, 90), cv2.FONT_HERSHEY_SIMPLEX, 2.5, 255, 5, cv2.LINE_AA)
    ours = textbox.distort(page, np.random.default_rng(0), alpha, sigma)
    theirs = augmenters.ElasticTransformation(alpha=alpha, sigma=sigma, mode="nearest", seed=1)(image=page)
    assert distance(ours, page).mean() == pytest.approx(distance(theirs, page).mean(), rel=0.12)


@pytest.mark.parametrize("deviation", [0.0, 1.5, 8.0])
def test_noise_has_its_deviation_and_is_grey(deviation):
    flat = np.full((400, 500, 3), 128, np.uint8)
    noise = effects.add_noise(flat, np.random.default_rng(0), deviation).astype(int) - 128
    assert np.array_equal(noise[..., 0], noise[..., 1]) and np.array_equal(noise[..., 0], noise[..., 2])
    rounding = 1 / 12 if deviation else 0
    assert noise.std() == pytest.approx(np.sqrt(deviation**2 + rounding), rel=0.01)
    assert abs(noise.mean()) < 0.05


@pytest.mark.parametrize("luminance", [0, 17, 64])
def test_dark_colours_are_those_synthtiger_can_draw(tiger, luminance):
    np.random.seed(0)  # synthtiger draws from numpy's global state
    possible = set(map(tuple, effects._colours(luminance).tolist()))
    assert {tiger.utils.to_rgb(luminance, True) for _ in range(40)} <= possible
    ours = {effects.dark_colour(np.random.default_rng(i), luminance) for i in range(300)}
    assert ours <= possible and len(ours) >= min(len(possible), 150)
    assert all(abs(np.dot(colour, [0.2989, 0.587, 0.114]) - luminance) < 0.06 for colour in ours)


def test_paper_blends_a_crop_of_the_texture_over_white():
    texture = np.zeros((50, 40), np.uint8)
    sheet = textures.paper(texture, np.random.default_rng(0), (30, 20), 0.2)
    assert sheet.shape == (20, 30, 3) and np.all(sheet == 204)


def test_crumpled_paper_spreads_its_levels_like_a_histogram_equalised_photo():
    sheet = textures.crumpled_paper(np.random.default_rng(3), (200, 260))
    assert sheet.shape == (260, 200) and 110 < sheet.mean() < 145 and 60 < sheet.std() < 80


def test_synthtiger_draws_text_on_this_pillow(tiger, tmp_path):
    from matplotlib import get_data_path

    has_raqm()
    layer = tiger.layers.TextLayer("Ag", path=f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size=40)
    assert layer.image[..., 3].max() == 255 and 30 < layer.width < 80
