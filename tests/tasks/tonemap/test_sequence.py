"""Smoothing over frames: no lag, no drift, and less flicker on a pan."""

import numpy as np
import pytest

from attnkit.pictures import read_picture
from attnkit.tasks.tonemap.sequence import smooth_parameters
from attnkit.tasks.tonemap.task import TonemapRequest, scene_parameters, tonemap
from attnkit.tasks.tonemap.views import Camera, view


def test_constants_stay_and_structure_is_kept():
    frames = [{"anchor": 0.5, "point": [0.2, -0.3, 1.0], "context": np.ones(4, np.float32), "name": "a"}] * 7
    smoothed = smooth_parameters(frames)
    for frame in smoothed:
        assert frame["anchor"] == pytest.approx(0.5)
        assert isinstance(frame["anchor"], float)
        assert frame["point"] == pytest.approx([0.2, -0.3, 1.0])
        assert isinstance(frame["point"], list)
        assert frame["context"].dtype == np.float32
        assert frame["name"] == "a"


def test_zero_phase():
    # a step is followed neither early nor late: the middle is where the step is, and the course is symmetric
    frames = [{"white": -1.0 if k < 20 else 1.0} for k in range(40)]
    course = np.array([frame["white"] for frame in smooth_parameters(frames, 3.0)])
    assert course == pytest.approx(-course[::-1], abs=1e-12)
    assert (np.diff(course) >= -1e-12).all()
    forward = smooth_parameters(frames[::-1], 3.0)
    assert [frame["white"] for frame in forward[::-1]] == pytest.approx(list(course))


def test_positive_numbers_are_averaged_as_logarithms():
    frames = [{"anchor": 1.0}, {"anchor": 16.0}]
    smoothed = smooth_parameters(frames, 1e6)
    assert [frame["anchor"] for frame in smoothed] == pytest.approx([4.0, 4.0])


def test_nothing_to_smooth():
    assert smooth_parameters([]) == []
    assert smooth_parameters([{"anchor": 2.0}]) == [{"anchor": 2.0}]
    frames = [{"anchor": 1.0}, {"anchor": 3.0}]
    assert smooth_parameters(frames, 0.0) == frames


def test_values_of_other_shapes_stay_those_of_their_frame():
    frames = [{"point": [1.0, 2.0], "levels": 3}, {"point": [1.0], "levels": 4}]
    assert smooth_parameters(frames) == frames


@pytest.mark.parametrize("method", ["llf", "llf-lut"])
def test_a_pan_flickers_less(method, shared):
    panorama = read_picture(shared / "data" / "hdr" / "blender" / "interior.exr").pixels
    # 0.9 degrees a frame at 60 degrees over 128 columns: the middle moves by less than two pixels
    frames = [view(panorama, Camera(20.0 + 3.0 * k, 5.0, 60.0), 72, 96) for k in range(24)]
    parameters = [scene_parameters(TonemapRequest(frame, method=method)) for frame in frames]

    def brightness(course):
        shown = [
            tonemap(TonemapRequest(frame, method=method, parameters=own, strength=0.0)).display
            for frame, own in zip(frames, course, strict=True)
        ]
        # what one fixed tone of light becomes from frame to frame, whatever is in view
        light = [np.log(np.maximum(frame @ [0.2126, 0.7152, 0.0722], 1e-9)) for frame in frames]
        tones = np.median([np.median(values) for values in light])
        return np.array(
            [
                picture.mean(2)[np.abs(values - tones) < 0.25].mean()
                for picture, values in zip(shown, light, strict=True)
            ]
        )

    alone, together = brightness(parameters), brightness(smooth_parameters(parameters))
    flicker = [np.abs(np.diff(course, n=2)).mean() for course in (alone, together)]
    assert flicker[1] < 0.7 * flicker[0]
    assert abs(together.mean() - alone.mean()) < 0.05
