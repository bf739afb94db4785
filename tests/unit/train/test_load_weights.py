"""Foreign weights: read without trust, refused with what does not fit."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.load_weights import load_into, read_weights  # noqa: E402


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))


def test_a_safetensors_file_gives_its_tensors(tmp_path: Path, network: nn.Sequential) -> None:
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    _assert_same(read_weights(tmp_path / "w.safetensors"), network.state_dict())


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
def test_a_checkpoint_gives_its_tensors_bare_or_wrapped(
    tmp_path: Path, network: nn.Sequential, wrapper: str | None, suffix: str
) -> None:
    state = network.state_dict()
    torch.save(state if wrapper is None else {"epoch": 3, wrapper: state, "best": 0.5}, tmp_path / f"w{suffix}")
    _assert_same(read_weights(tmp_path / f"w{suffix}"), state)


def test_a_checkpoint_of_before_torch_1_6_gives_its_tensors(tmp_path: Path, network: nn.Sequential) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    _assert_same(read_weights(tmp_path / "w.pth"), network.state_dict())


def test_the_prefix_of_data_parallel_training_is_taken_off(tmp_path: Path, network: nn.Sequential) -> None:
    torch.save({"state_dict": nn.DataParallel(network).state_dict()}, tmp_path / "w.pth")
    _assert_same(read_weights(tmp_path / "w.pth"), network.state_dict())


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    torch.save({"state_dict": _Hostile(proof)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Hostile(proof)))
    torch.save(_Hostile(proof), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "zip.pth", tmp_path / "bare.pth", tmp_path / "old.pth"):
        _refused(path, "cannot be read as a torch checkpoint of plain tensors")
    assert not proof.exists()
    _Hostile(proof).__reduce__()[0](*_Hostile(proof).__reduce__()[1])
    assert proof.exists(), "the pickle would not have run anything, so its refusal proves nothing"


def test_a_pickled_module_is_refused(tmp_path: Path, network: nn.Sequential) -> None:
    torch.save(network, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", "cannot be read as a torch checkpoint of plain tensors")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused(tmp_path: Path, network: nn.Sequential, suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    _refused(path, "not a whole safetensors file" if suffix == ".safetensors" else "cannot be read")


def test_a_safetensors_header_that_points_outside_is_refused(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    _refused(tmp_path / "w.safetensors", "not a whole safetensors file")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"<!DOCTYPE html><title>404</title>")
    _refused(path, "w" + suffix)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 7, {"state_dict": {}}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", "hold no tensors")


def test_a_checkpoint_whose_keys_are_no_names_is_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2), 1: torch.ones(3)}, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", "hold no tensors")


def test_a_safetensors_file_without_tensors_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", "hold no tensors")


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pth"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    _refused(tmp_path / name, "do not exist")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    _refused(tmp_path / name, "do not exist")


def test_tensors_that_fit_are_loaded_bit_for_bit(network: nn.Sequential) -> None:
    other = _like(network)
    load_into(other, dict(network.state_dict()), (), "a network", "w.pth")
    _assert_same(other.state_dict(), network.state_dict())


def test_tensors_of_the_old_head_are_left_out(network: nn.Sequential) -> None:
    tensors = {**network.state_dict(), "fc.weight": torch.ones(9, 9), "aux1.conv.weight": torch.ones(1)}
    load_into(_like(network), tensors, ("fc", "aux1"), "a network", "w.pth")
    message = _unfit(_like(network), {**tensors, "fc2.weight": torch.ones(1)}, ("fc", "aux1"))
    assert "1 unexpected (fc2.weight)" in message


def test_counters_of_training_steps_may_be_missing(network: nn.Sequential) -> None:
    tensors = {name: t for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    load_into(_like(network), tensors, (), "a network", "w.pth")


def test_missing_tensors_are_counted_and_the_first_are_named(network: nn.Sequential) -> None:
    assert "1 missing (2.bias);" in _unfit(network, _without(network, "2.bias"))
    message = _unfit(network, _without(network, "0.weight", "0.bias", "1.weight", "1.running_var"))
    assert "which has 9 tensors: 4 missing (0.weight, 0.bias, 1.weight, …);" in message


def test_unexpected_tensors_are_counted_and_the_first_are_named(network: nn.Sequential) -> None:
    extra = {**network.state_dict(), "3.weight": torch.ones(1), "3.bias": torch.ones(1)}
    assert "2 unexpected (3.weight, 3.bias);" in _unfit(network, extra)


def test_tensors_of_another_shape_are_named_with_both_shapes(network: nn.Sequential) -> None:
    reshaped = {**network.state_dict(), "2.weight": torch.ones(7, 4, 1, 1)}
    assert "1 of another shape (2.weight is (7, 4, 1, 1), expected (5, 4, 1, 1));" in _unfit(network, reshaped)


def test_weights_of_another_architecture_are_refused_with_all_that_differs(network: nn.Sequential) -> None:
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(2, 2))
    message = _unfit(network, dict(other.state_dict()))
    assert "4 missing (1.running_mean, 1.running_var, 2.weight, …)" in message
    assert "4 of another shape (0.weight is (8, 3, 3, 3), expected (4, 3, 3, 3)" in message
    assert "name the backbone that they belong to" in message


def test_refused_weights_leave_the_network_as_it_was(network: nn.Sequential) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _unfit(network, {name: tensor + 1 for name, tensor in _without(network, "2.bias").items()})
    _assert_same(network.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_type_are_loaded_as_float32(network: nn.Sequential, dtype: torch.dtype) -> None:
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in network.state_dict().items()}
    other = _like(network)
    load_into(other, tensors, (), "a network", "w.pth")
    assert {t.dtype for t in other.state_dict().values()} == {torch.float32, torch.int64}
    assert np.allclose(other[0].weight.detach(), network[0].weight.detach(), atol=1e-2)


class _Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.proof),)


def _like(network: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))


def _without(network: nn.Module, *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if name not in names}


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(EdgetlError) as error:
        read_weights(path)
    assert reason in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def _unfit(network: nn.Module, tensors: dict[str, Tensor], head: tuple[str, ...] = ()) -> str:
    with pytest.raises(EdgetlError) as error:
        load_into(network, tensors, head, "a network", "w.pth")
    message = str(error.value)
    assert message.startswith("weights w.pth do not fit a network, which has")
    assert "\n" not in message
    return message


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
