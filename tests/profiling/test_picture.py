import dataclasses

import matplotlib.image
from made_profiles import a_profile

from kiloworlds.profiling import picture
from kiloworlds.profiling.profile import WAITING, Part


def texts(figure):
    axes = figure.axes
    legends = [text.get_text() for one in axes for text in one.get_legend().get_texts()]
    return " | ".join(legends + [text.get_text() for one in axes for text in one.texts])


def test_names_parts_and_ceilings(tmp_path):
    profile = a_profile()
    said = texts(picture.draw(profile))
    assert "learning 70%" in said
    assert "learning: 5.71 GFLOP/s, 6% of all cores" in said
    assert "100 GFLOP/s, 50 GB/s" in said
    assert "one core: 60 GFLOP/s, 40 GB/s" in said
    picture.save(profile, tmp_path / "new" / "picture.png")
    assert matplotlib.image.imread(tmp_path / "new" / "picture.png").shape[1] > 1000


def test_a_loop_on_the_host_with_what_overlaps():
    profile = a_profile(0.5, 0.3, 0.6, loop="host", max_staleness=1)
    profile = dataclasses.replace(
        profile, parts=[*profile.parts, Part(WAITING, 0.2, 0.0, "waits")], operations=[]
    )
    figure = picture.draw(profile)
    assert "waiting 20%" in texts(figure)
    assert "single operations" not in texts(figure)
    assert "run beside learning" in figure.axes[0].get_title(loc="left")


def test_nothing_known_of_what_is_computed():
    profile = a_profile()
    parts = [dataclasses.replace(part, flops=None, bytes=None) for part in profile.parts]
    bare = dataclasses.replace(profile, parts=parts, operations=[])
    assert "GFLOP/s of" not in texts(picture.draw(bare))
