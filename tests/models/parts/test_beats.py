"""BEATs gives the same in half precision as in single, on any processor."""

from __future__ import annotations

import pytest
import torch

from naturelm.models.parts.beats import PositionConv


@pytest.mark.parametrize(("width", "kernel"), [(192, 16), (768, 128)], ids=["pocket", "released"])
@pytest.mark.parametrize("autocast", [True, False])
def test_position_convolution_in_bfloat16_is_that_of_float32(width, kernel, autocast):
    torch.manual_seed(0)
    conv = PositionConv(width, kernel, groups=16)
    x_BPD = torch.randn(4, 62, width)
    with torch.no_grad():
        expected_BPD = conv(x_BPD)
        if autocast:
            with torch.autocast("cpu", torch.bfloat16):
                half_BPD = conv(x_BPD)
        else:
            half_BPD = conv.to(torch.bfloat16)(x_BPD.to(torch.bfloat16)).float()
    assert (half_BPD - expected_BPD).norm() < 0.02 * expected_BPD.norm()
