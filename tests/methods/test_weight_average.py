"""The running average against a loop written by hand."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from safe_sft.merging import WeightAverage


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in (("a", (3, 4)), ("b", (5,)))}


def train(values, step):
    """A change that is different at each step."""
    generator = torch.Generator().manual_seed(step)
    for value in values.values():
        value += torch.randn(value.shape, generator=generator).to(value.dtype)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_a_loop(warmup, dtype):
    values = parameters(dtype)
    average = WeightAverage(values, 0.3, warmup=warmup)
    expected = {name: value.double() for name, value in values.items()}
    for n in range(6):
        train(values, n)
        decay = min(0.3, (1 + n) / (10 + n)) if warmup else 0.3
        assert average.current_decay == pytest.approx(decay)
        average.update(values)
        expected = {name: decay * expected[name] + (1 - decay) * values[name].double() for name in values}
    for name, value in average.averages.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=1e-6)


def test_first_steps_by_hand():
    value = {"w": torch.tensor([1.0])}
    average = WeightAverage(value, 0.5)
    value["w"].fill_(2.0)
    average.update(value)  # decay 1/10: 0.1·1 + 0.9·2
    assert average.averages["w"].item() == pytest.approx(1.9)
    average.update(value)  # decay 2/11
    assert average.averages["w"].item() == pytest.approx(2 / 11 * 1.9 + 9 / 11 * 2)


def test_resumes_exactly():
    values = parameters()
    average = WeightAverage(values, 0.9)
    for n in range(3):
        train(values, n)
        average.update(values)
    resumed = WeightAverage(values, 0.9)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    for run in (average, resumed):
        run.update(values)
    assert resumed.updates == average.updates == 4
    for name in values:
        assert torch.equal(resumed.averages[name], average.averages[name])


def test_swapped_puts_the_trained_values_back_bit_for_bit():
    values = parameters(torch.bfloat16)
    average = WeightAverage(values, 0.9)
    train(values, 0)
    average.update(values)
    before = {name: value.clone() for name, value in values.items()}

    def fails():
        with average.swapped(values):
            for name, value in values.items():
                assert torch.equal(value, average.averages[name].bfloat16())
                assert not torch.equal(value, before[name])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    for name, value in values.items():
        assert torch.equal(value, before[name])


def test_works_on_parameters_that_need_gradients():
    values = {"w": torch.nn.Parameter(torch.ones(3))}
    average = WeightAverage(values, 0.5)
    average.update(values)
    with average.swapped(values):
        pass
    average.copy_to(values)
    assert not average.averages["w"].requires_grad
    assert values["w"].requires_grad


@pytest.fixture
def mesh(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sharded_parameters(mesh, dtype):
    plain = parameters(dtype)
    sharded = {name: distribute_tensor(value.clone(), mesh, [Shard(0)]) for name, value in plain.items()}
    averages = [WeightAverage(values, 0.9) for values in (plain, sharded)]
    for n in range(2):
        train(plain, n)
        for name, value in sharded.items():
            value.copy_(distribute_tensor(plain[name], mesh, [Shard(0)]))
        averages[0].update(plain)
        averages[1].update(sharded)
    with averages[1].swapped(sharded):
        for name, value in sharded.items():
            assert isinstance(averages[1].averages[name], DTensor)
            assert torch.equal(averages[1].averages[name].full_tensor(), averages[0].averages[name])
            assert torch.equal(value.full_tensor(), averages[0].averages[name].to(dtype))
    for name, value in sharded.items():
        assert torch.equal(value.full_tensor(), plain[name])


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"EMA decay .* out of range"):
        WeightAverage(parameters(), decay)


def test_other_names_are_refused():
    average = WeightAverage(parameters(), 0.9)
    with pytest.raises(ValueError, match="'c'"):
        average.update({**parameters(), "c": torch.ones(1)})
    with pytest.raises(ValueError, match="1 names differ, such as 'b'"):
        average.load_state_dict({"a": torch.ones(3, 4), "updates": torch.tensor(0)})
