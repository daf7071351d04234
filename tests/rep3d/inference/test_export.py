"""Export: the files hold the network and the task, need no code of ours, and are never left wrong or half-written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rep3d.checkpoint import Checkpoint, save_checkpoint
from rep3d.errors import ExportError, MissingComponentError, OutputError
from rep3d.inference import export
from rep3d.inference.export import Exported, export_onnx, export_program
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

CONFIG = Rep3DConfig(out_channels=3, dims=(4, 6, 8, 10), depths=(1, 1, 1, 1), hidden_size=12, kernel_size=11)
TASK = TaskConfig(
    "toy", {"Tail": 7, "Head": 2}, (1.0, 1.0, 2.0), Intensity("window", 0, 100), "LPS", (40, 10, 36)
)  # the second side is fixed at one stride


def trained(config: Rep3DConfig) -> Checkpoint:
    """Return a network with statistics, masks and norms away from their start."""
    torch.manual_seed(0)
    network = Rep3D(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(1, 1, 32, 16, 16) * 3 + 1).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        network.out.conv.conv.weight.mul_(10)
    return Checkpoint(network.eval(), TASK, {"version": "v4"})


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return trained(CONFIG)


def image_and_probabilities(checkpoint: Checkpoint, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 2
    with torch.no_grad():
        probabilities = checkpoint.model(image).softmax(1)
    assert probabilities.min() < 0.1 and probabilities.max() > 0.9, "nearly constant, so this would prove nothing"
    return image, probabilities


@pytest.mark.slow
class TestOnnx:
    @pytest.fixture(scope="class")
    def checkpoint(self) -> Checkpoint:
        """Return a network that interpolates its logits: it has every operator that the others have, and that one."""
        return trained(replace(CONFIG, decoder="half"))

    @pytest.fixture(scope="class")
    def exported(self, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Exported:
        for package in ("onnx", "onnxscript"):
            pytest.importorskip(package, reason=f"ONNX export needs it: {export.INSTALL_ONNX}")
        return export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "model.onnx")

    def test_is_one_file_of_standard_operators_with_free_sizes_where_they_can_be(self, exported: Exported) -> None:
        import onnx

        assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
        assert exported.size == exported.path.stat().st_size
        assert b"unetr.py" not in exported.path.read_bytes()  # where our code lies is nobody's affair
        model = onnx.load(exported.path)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.domain for entry in model.opset_import] == [""]
        assert {node.domain for node in model.graph.node} == {""} and not model.functions
        (image,), (logits,) = model.graph.input, model.graph.output
        for tensor, name, channels in ((image, "image", 1), (logits, "logits", 3)):
            shape = [axis.dim_param or axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
            assert tensor.name == name and shape == ["batch", channels, "depth", 16, "width"]

    def test_nothing_is_said_of_what_nobody_needs(
        self, checkpoint: Checkpoint, exported: Exported, tmp_path: Path
    ) -> None:
        model = tmp_path / "model.pt"
        save_checkpoint(model, checkpoint.model, checkpoint.task, checkpoint.info)
        command = [sys.executable, "-m", "rep3d.cli.main", "export", "--checkpoint", str(model)]
        done = subprocess.run(
            [*command, "--output", str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("Wrote ") and done.stderr == ""

    def test_says_what_the_task_is(self, exported: Exported) -> None:
        import onnx

        facts = {entry.key: json.loads(entry.value) for entry in onnx.load(exported.path).metadata_props}
        assert facts == TASK.to_dict() | {"roi_size": [48, 16, 48], "values": [0, 2, 7], "version": "v4"}

    def test_computes_what_the_trained_network_does(self, checkpoint: Checkpoint, exported: Exported) -> None:
        onnxruntime = pytest.importorskip(
            "onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime"
        )
        assert exported.checked_with == "onnxruntime"
        assert exported.max_error is not None and exported.max_error < 1e-4
        image, expected = image_and_probabilities(checkpoint, 3, 1, 32, 16, 64)
        session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
        actual = torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0]).softmax(1)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


def test_onnx_without_its_packages_is_refused_with_the_pip_line(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingComponentError, match=r"onnx, onnxscript.*pip install onnx onnxscript"):
        export_onnx(checkpoint, tmp_path / "model.onnx")


class TestProgram:
    @pytest.mark.slow
    def test_loads_with_pytorch_alone_and_computes_what_the_trained_network_does(
        self, checkpoint: Checkpoint, tmp_path: Path
    ) -> None:
        before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
        path = tmp_path / "new" / "model.pt2"
        exported = export_program(checkpoint, path)
        assert [file.name for file in path.parent.iterdir()] == ["model.pt2"]
        assert exported.checked_with == "torch" and exported.size == path.stat().st_size
        assert exported.max_error is not None and exported.max_error < 1e-4
        image, expected = image_and_probabilities(checkpoint, 3, 1, 32, 16, 64)
        torch.save(image, tmp_path / "image.pt")
        script = """
import json, sys, torch
facts = {"rep3d.json": ""}
network = torch.export.load(sys.argv[1], extra_files=facts).module()
torch.save({"logits": network(torch.load(sys.argv[2])), "facts": json.loads(facts["rep3d.json"])}, sys.argv[3])
assert not {"rep3d", "monai"} & set(sys.modules)
"""
        assert all(torch.equal(before[name], value) for name, value in checkpoint.model.state_dict().items())
        assert all(parameter.requires_grad for parameter in checkpoint.model.parameters())
        files = [str(path), str(tmp_path / "image.pt"), str(tmp_path / "found.pt")]
        subprocess.run([sys.executable, "-c", script, *files], check=True, timeout=120, cwd=tmp_path)
        found = torch.load(tmp_path / "found.pt")
        torch.testing.assert_close(found["logits"].softmax(1), expected, rtol=0, atol=1e-3)
        assert found["facts"]["labels"] == dict(TASK.labels) and found["facts"]["orientation"] == "LPS"

    @pytest.mark.slow
    def test_a_file_that_computes_something_else_is_refused_and_the_old_one_stays(
        self, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "model.pt2").write_text("old")
        plain = export._plain_convolution

        def wrong(module: torch.nn.Module) -> torch.nn.Module | None:
            convolution = plain(module)
            if convolution is not None:
                convolution.weight = torch.nn.Parameter(convolution.weight.flip(2), requires_grad=False)
            return convolution

        monkeypatch.setattr(export, "_plain_convolution", wrong)
        with pytest.raises(ExportError, match="would differ by"):
            export_program(checkpoint.model, tmp_path / "model.pt2", (10, 10, 1))
        assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
        assert (tmp_path / "model.pt2").read_text() == "old"

    def test_a_network_that_cannot_be_captured_is_refused(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        class Unruly(Rep3D):
            def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
                return super().encode(x * float(x.sum() > 0))

        with pytest.raises(ExportError, match=r"torch\.export"):
            export_program(Unruly(CONFIG), tmp_path / "model.pt2", (32, 16, 16))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("roi_size", [(32, 32), (32, 0, 32)])
def test_impossible_windows_are_refused(checkpoint: Checkpoint, tmp_path: Path, roi_size: tuple[int, ...]) -> None:
    with pytest.raises(ExportError, match="roi_size"):
        export_program(checkpoint, tmp_path / "model.pt2", roi_size)


def test_a_network_without_a_task_needs_a_window_and_each_format_its_own_ending(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="roi_size"):
        export_program(checkpoint.model, tmp_path / "model.pt2")
    with pytest.raises(OutputError, match=r"model\.pt cannot be written: the file name must end in \.pt2"):
        export_program(checkpoint, tmp_path / "model.pt")
