"""The seed CNN, preprocessing and the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from sentinode.errors import ConfigError
from sentinode.models.dropout import SampleDropout
from sentinode.models.export import INPUT_NAME, OUTPUT_NAME, export_onnx
from sentinode.models.families import SeedCnnConfig, build_model, count_parameters, input_px
from sentinode.models.preprocess import Detector, Preprocess, PreprocessConfig, resize_matrix


def patches(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8))


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(Preprocess(PreprocessConfig()), build_model(SeedCnnConfig())).eval()


def test_seed_cnn_is_the_seeds() -> None:
    net = build_model(SeedCnnConfig())
    assert count_parameters(net) == 31_230
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [8, 16, 32, 64]
    assert all(c.kernel_size == (3, 3) and c.padding == (0, 0) for c in convolutions)
    assert [layer.rate for layer in net.modules() if isinstance(layer, SampleDropout)] == [0.25]
    assert net(torch.zeros(3, 3, 46, 46)).shape == (3, 2)
    assert input_px(SeedCnnConfig()) == 46


def test_dropout_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    net = build_model(SeedCnnConfig())
    images = torch.randn(4, 3, 46, 46)
    assert not torch.equal(net.train()(images), net(images))
    assert torch.equal(net.eval()(images), net(images))


@pytest.mark.parametrize("px", [24, 46, 64, 95, 96, 97, 224])
def test_resize_is_torchs_antialiased_bilinear(px: int) -> None:
    images = patches(3)
    expected = functional.interpolate(
        images.permute(0, 3, 1, 2).float() / 255, size=(px, px), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(
        Preprocess(PreprocessConfig(input_px=px)).fit(images), expected, atol=1e-5, rtol=0
    )


def test_resize_keeps_a_flat_image_flat() -> None:
    torch.testing.assert_close(resize_matrix(96, 46).sum(dim=1), torch.ones(46))


@pytest.mark.parametrize("px", [46, 96, 112])
def test_training_fits_to_a_grey_level(px: int) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8)
    preprocess = Preprocess(PreprocessConfig(input_px=px))
    torch.testing.assert_close(
        preprocess.fit_coarsely(images), preprocess.fit(images), atol=1.01 / 255, rtol=0
    )


def test_crop_takes_the_centre() -> None:
    images = patches(2)
    fitted = Preprocess(PreprocessConfig(fit="crop", input_px=32)).fit(images)
    assert torch.equal((fitted * 255).round().byte().permute(0, 2, 3, 1), images[:, 32:64, 32:64])


def test_a_crop_larger_than_the_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set preprocess\.fit to resize"):
        PreprocessConfig(fit="crop", input_px=97)


def test_normalise_uses_mean_and_std_of_each_channel() -> None:
    config = PreprocessConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    grey = torch.full((1, 3, 46, 46), 0.5)
    at_corner = Preprocess(config).normalise(grey)[0, :, 0, 0]
    torch.testing.assert_close(at_corner, torch.tensor([0.8, 1.2, 1.6]))


def test_detector_gives_the_difference_of_logits(detector: Detector) -> None:
    images = patches(5)
    with torch.no_grad():
        logits_BK = detector.net(detector.preprocess(images))
        assert torch.equal(detector(images), logits_BK[:, 1] - logits_BK[:, 0])


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_onnx_equals_pytorch(tmp_path: Path, fit: str) -> None:
    detector = Detector(Preprocess(PreprocessConfig(fit=fit)), build_model(SeedCnnConfig()))
    path = tmp_path / "model.onnx"
    export_onnx(detector, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3, 17):
        images = patches(count, seed=count)
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: images.numpy()})
        assert logits.shape == (count,)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, detector(images).detach().numpy(), atol=1e-4)


def test_onnx_is_reproducible_and_tells_nothing_of_the_machine(detector: Detector, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export_onnx(detector, tmp_path / name)
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    assert str(Path.cwd()).encode() not in data
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]


def test_what_onnx_cannot_express_is_refused(tmp_path: Path) -> None:
    class Spectrum(nn.Module):
        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft2(images_BCHW).real.mean((2, 3))[:, :2]

    with pytest.raises(ConfigError, match="cannot be written as ONNX"):
        export_onnx(Detector(Preprocess(PreprocessConfig()), Spectrum()), tmp_path / "model.onnx")
