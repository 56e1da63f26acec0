import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.envs.drawing import drawn_at
from kiloworlds.evaluation.episode import Moment
from kiloworlds.evaluation.pictures import (
    caption,
    caption_height,
    captioned,
    closed,
    fitted,
    picture_as_text,
)


def test_picture_as_text_shows_what_differs_from_the_background():
    picture = np.full((40, 80, 3), 250, np.uint8)
    picture[20:, :40] = 10
    lines = picture_as_text(picture, columns=8).splitlines()
    assert lines == ["", "@@@@"]


def test_caption_stands_above_the_picture():
    picture = np.full((50, 300, 3), 7, np.uint8)
    moment = Moment(3, "left", -1.0, -3.0, picture, None)
    frame = captioned(moment)
    strip = frame[:-50]
    np.testing.assert_array_equal(frame[-50:], picture)
    assert 20 <= len(strip) <= 40
    assert len(strip) % 2 == 0
    other = captioned(moment._replace(episode_return=-4.0))[:-50]
    changed = np.flatnonzero((strip != other).any(axis=(0, 2)))
    assert changed.min() > 200  # the return stands on the right
    with pytest.raises(InvalidValueError, match="picture"):
        captioned(moment._replace(picture=None))


@pytest.mark.parametrize("width", [40, 300, 1280])
def test_captions_fit_their_width(width):
    strip = caption(width, "step 5", "a" * 500, "return 3")
    assert strip.shape == (caption_height(width), width, 3)


def test_pictures_are_shrunk_into_the_middle_of_a_cell_and_never_enlarged():
    picture = np.full((400, 600, 3), 7, np.uint8)
    cell = fitted(picture, 60, 60)
    assert cell.shape == (60, 60, 3)
    assert (cell[10:50] == 7).all()
    assert (cell[:10] != 7).all()
    small = fitted(picture[:20, :20], 60, 60)
    assert (small == 7).all(-1).sum() == 400
    assert (small[20:40, 20:40] == 7).all()


def test_a_picture_of_the_cells_size_stays_as_it_is():
    picture = np.arange(60 * 40 * 3, dtype=np.uint8).reshape(40, 60, 3)
    np.testing.assert_array_equal(fitted(picture, 60, 40), picture)


def test_a_picture_drawn_smaller_is_the_same_picture():
    envs = kiloworlds.make("CartPole-v1", num_envs=1)
    envs.reset(seed=0)
    (large,) = envs.render()
    with drawn_at(0.254):
        (small,) = envs.render()
    assert small.shape == (101, 152, 3)
    assert envs.render()[0].shape == large.shape  # only meanwhile
    difference = np.abs(fitted(large, 152, 101).astype(int) - small)
    assert difference.mean() < 2


def test_closed_cells_are_pale_and_say_how_it_ended():
    cell = np.zeros((100, 150, 3), np.uint8)
    first, second = closed(cell, "return 5"), closed(cell, "return 6")
    assert first.shape == cell.shape
    assert (first[:70] > 100).all()
    assert (first != second).any()
    assert (first[:70] == second[:70]).all()  # the words stand at the lower edge
    tiny = np.zeros((12, 16, 3), np.uint8)
    assert (closed(tiny, "return 5") == closed(tiny, "return 6")).all()  # no room for words
