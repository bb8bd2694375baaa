"""Claims about the raw export: the graph is the network, names and BatchNorms included, or it is refused."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrizations

from model_export.errors import NetworkInvalid
from model_export.export import export_raw
from model_export.export.check import check_graph, check_same_answers

# Against float64: a handful of float32 layers, each about 1e-7 of its largest value.
PARITY_TOLERANCE = 2e-5


class Tokens(nn.Module):
    """A Linear on a sequence, a BatchNorm over its axis 1 that is applied twice, and functional operations."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.ELU(alpha=0.5))
        self.batchnorm = nn.BatchNorm1d(5)
        self.mixer = nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(30, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        encoded = self.batchnorm(self.encoder(batch))
        mixed = self.batchnorm(self.mixer(encoded)).relu()
        return torch.as_tensor(self.head(mixed.flatten(1)))


def mlp() -> nn.Sequential:
    layers = {
        "flatten": nn.Flatten(),
        "batchnorm0": nn.BatchNorm1d(49),  # first
        "dense1": nn.Linear(49, 16),
        "elu1": nn.ELU(),
        "batchnorm1": nn.BatchNorm1d(16),  # after the activation
        "dropout": nn.Dropout(),
        "dense2": nn.Linear(16, 8, bias=False),
        "batchnorm2": nn.BatchNorm1d(8, affine=False),  # before it
        "relu2": nn.ReLU(),
        "output": nn.Linear(8, 10),
    }
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.SyncBatchNorm(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def volume() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(1, 4, 3, bias=False), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(108, 5))


def normalised_weights() -> nn.Sequential:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Conv1d(2, 4, 3)), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 3), nn.ELU()
    )


NETWORKS = {
    "mlp": (mlp, (1, 7, 7), ["batchnorm0", "batchnorm1", "batchnorm2"]),
    "convnet": (convnet, (1, 14, 14), ["1", "4", "6"]),
    "tokens": (Tokens, (5, 4), ["batchnorm", "batchnorm_2"]),
    "volume": (volume, (1, 5, 5, 5), ["1"]),
    "normalised_weights": (normalised_weights, (2, 8), ["1"]),
}


def instances(num: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(num)) + 0.5


def trained(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Let affine parameters and moving averages leave the values that they were built with."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.train()
    for num in (16, 17, 18):
        network(instances(num, shape))
    return network.eval()


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...], list[str], ir.Model]:
    factory, shape, batchnorms = NETWORKS[request.param]
    torch.manual_seed(0)
    network = trained(factory(), shape)
    return network, shape, batchnorms, export_raw(network, instance_shape=shape)


Exported = tuple[nn.Module, tuple[int, ...], list[str], ir.Model]


def run(model: ir.Model, batch: NDArray[np.float32], level: ort.GraphOptimizationLevel) -> list[NDArray[np.float32]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(["scores", "logits"], {"instance": batch})]


def nodes_of(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_graph_answers_as_the_network_does_in_float64(exported: Exported, batch_size: int, level: str) -> None:
    network, shape, _, model = exported
    batch = instances(batch_size, shape)
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(batch.double())
    scores, logits = run(model, batch.numpy(), getattr(ort.GraphOptimizationLevel, level))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=PARITY_TOLERANCE)
    np.testing.assert_allclose(scores, expected.softmax(-1).numpy(), rtol=0, atol=PARITY_TOLERANCE)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-6)  # a few float32 roundings


def test_every_batchnorm_is_still_there_under_its_own_name(exported: Exported) -> None:
    _, _, batchnorms, model = exported
    assert [node.name for node in nodes_of(model, "BatchNormalization")] == batchnorms


def test_a_batchnorms_parameters_have_one_value_a_channel(exported: Exported) -> None:
    *_, model = exported
    for node in nodes_of(model, "BatchNormalization"):
        (axis,) = {tuple(value.const_value.shape) for value in node.inputs[1:] if value and value.const_value}
        assert len(axis) == 1


def test_the_signature_is_scores_then_logits_with_a_symbolic_batch(exported: Exported) -> None:
    _, shape, _, model = exported
    (given,) = model.graph.inputs
    assert given.name == "instance"
    assert [output.name for output in model.graph.outputs] == ["scores", "logits"]
    assert [str(axis) for axis in given.shape or ()] == ["batch", *map(str, shape)]
    assert {str(output.shape[0]) for output in model.graph.outputs if output.shape} == {"batch"}


def test_node_names_are_unique_and_shapes_are_known_everywhere(exported: Exported) -> None:
    *_, model = exported
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    assert all(output.shape is not None for node in model.graph for output in node.outputs)


def test_nothing_is_left_that_computes_shapes_or_changes_nothing(exported: Exported) -> None:
    *_, model = exported
    left = {node.op_type for node in model.graph}
    assert not left & {"Shape", "Squeeze", "Concat", "Expand", "CastLike", "Identity", "Dropout", "Mul", "Constant"}


def test_what_is_saved_names_no_path_of_this_machine(exported: Exported, tmp_path: Path) -> None:
    *_, model = exported
    ir.save(model, tmp_path / "raw.onnx")
    content = (tmp_path / "raw.onnx").read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_layers_and_initializers_are_called_as_in_the_network() -> None:
    model = export_raw(mlp().eval(), instance_shape=(1, 7, 7))
    assert [node.name for node in model.graph] == [
        *("flatten", "batchnorm0", "dense1", "elu1", "batchnorm1"),
        *("dense2", "batchnorm2", "relu2", "output", "scores"),
    ]
    assert {"dense1.weight", "dense1.bias", "batchnorm0.running_mean", "batchnorm2.running_var"} <= set(
        model.graph.initializers
    )


def test_a_normalised_weight_is_exported_as_the_weight_it_computes() -> None:
    model = export_raw(normalised_weights().eval(), instance_shape=(2, 8))
    assert {"0.weight", "3.weight"} <= set(model.graph.initializers)


def test_a_convolution_without_bias_has_none_in_the_graph() -> None:
    conv, *_ = nodes_of(export_raw(volume().eval(), instance_shape=(1, 5, 5, 5)), "Conv")
    assert len(conv.inputs) == 2


def test_the_input_may_have_another_name_and_precision() -> None:
    model = export_raw(
        nn.Sequential(nn.Linear(3, 2)).double().eval(), instance_shape=(3,), input_name="x", dtype=torch.float64
    )
    assert (model.graph.inputs[0].name, model.graph.inputs[0].dtype) == ("x", ir.DataType.DOUBLE)


def test_the_callers_network_and_its_later_changes_stay_apart_from_the_model() -> None:
    network = normalised_weights().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    model = export_raw(network, instance_shape=(2, 8))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network(instances(2, (2, 8))).shape == (2, 3)
    first = run(model, instances(2, (2, 8)).numpy(), ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    network.get_buffer("1.running_mean").fill_(9)
    again = run(model, instances(2, (2, 8)).numpy(), ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    np.testing.assert_array_equal(first[1], again[1])


def test_exporting_prints_nothing() -> None:
    program = """
        import torch
        from model_export.export import export_raw
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
        export_raw(network, instance_shape=(3,))
    """
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


class Calls(nn.Module):
    """A Linear layer, then whatever the test wants to see refused."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.linear(batch))


class Branches(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return super().forward(batch) if batch.sum() > 0 else super().forward(-batch)


class Noise(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return super().forward(batch + torch.randn_like(batch))


class DropsAlways(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(super().forward(batch), 0.5, training=True)


class NormalisesByHand(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.batch_norm(super().forward(batch), torch.zeros(2), torch.ones(2))


class NormalisesWithTheBatch(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.batch_norm(super().forward(batch), None, None, training=True)


class FixesTheBatchSize(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return super().forward(batch.reshape(2, 3))


class AsksForTheLength(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return super().forward(batch.reshape(len(batch), -1))


class AnswersInPairs(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return (super().forward(batch), batch)  # type: ignore[return-value]


class AnswersAnImage(Calls):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return super().forward(batch)[:, None]


REFUSED = [
    (Branches, "can not be exported: .*data-dependent.*no `if` on values"),
    (Noise, "draws random numbers at inference .RandomNormalLike."),
    (DropsAlways, "draws random numbers at inference .Dropout."),
    (NormalisesByHand, r"applies 0 BatchNorms .*the exported graph has 1 .*use the nn\.BatchNorm modules"),
    (NormalisesWithTheBatch, "use the nn.BatchNorm modules"),
    (FixesTheBatchSize, "can not take a batch of 1"),
    (AsksForTheLength, r"does not take a batch of 1.*Take it from batch\.shape\[0\]"),
    (AnswersInPairs, "answered with tuple"),
    (AnswersAnImage, r"answered with a tensor of shape \(2, 1, 2\)"),
]


@pytest.mark.parametrize(("factory", "message"), REFUSED)
def test_a_network_that_has_no_faithful_graph_is_refused(factory: type[Calls], message: str) -> None:
    with pytest.raises(NetworkInvalid, match=message):
        export_raw(factory().eval(), instance_shape=(3,))


def test_a_failed_export_keeps_its_cause_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NetworkInvalid) as refusal:
        export_raw(Branches().eval(), instance_shape=(3,))
    assert refusal.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")


def test_a_layer_in_training_mode_is_refused_by_name() -> None:
    network = mlp().eval()
    network[5].train()
    with pytest.raises(NetworkInvalid, match=r"dropout are in training mode: .*freeze\(\)"):
        export_raw(network, instance_shape=(1, 7, 7))


def test_a_batchnorm_without_running_statistics_is_refused_by_name() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
    with pytest.raises(NetworkInvalid, match="BatchNorm '1' has track_running_stats=False"):
        export_raw(network, instance_shape=(3,))


def test_instances_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(NetworkInvalid, match=r"instances of shape \(4,\)"):
        export_raw(Calls().eval(), instance_shape=(4,))


def test_a_graph_that_lost_a_batchnorm_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    model = export_raw(nn.Sequential(nn.Linear(3, 2)).eval(), instance_shape=(3,))
    with pytest.raises(NetworkInvalid, match=r"applies 1 BatchNorms \(1\), the exported graph has 0"):
        check_graph(model, network, torch.zeros(2, 3))


def test_a_batchnorm_node_in_training_mode_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2)).eval()
    model = export_raw(network, instance_shape=(2,))
    nodes_of(model, "BatchNormalization")[0].attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    with pytest.raises(NetworkInvalid, match="BatchNorm '0' normalises with its batch"):
        check_graph(model, network, torch.zeros(2, 2))


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    torch.manual_seed(0)
    one, other = Calls().eval(), Calls().eval()
    model = export_raw(one, instance_shape=(3,))
    with pytest.raises(NetworkInvalid, match="wrote a model that is not the network"):
        check_same_answers(model, other, torch.zeros(2, 3))
