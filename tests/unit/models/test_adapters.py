"""Kinds of fine-tuning: each begins as the identity, learns, and merges into what it computes; formulas by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from models import tiny
from models.adapters.adapter import Adapter, Training
from models.adapters.diff_pruning import VALUES, gate, open_probability
from models.adapters.kinds import load_unmerged, merge_trained, merger, new_adapter, set_beside
from models.adapters.settings import WEIGHTS, AdapterConfig
from models.adapters.trainer import with_own_rate

STEPS, RATE = 10, 1e-2
IDS = torch.randint(0, tiny.VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(0))
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True},
    "adalora": {"kind": "adalora", "adalora": {"interval": 2}},
    "ia3": {"kind": "ia3"},
    "bitfit": {"kind": "bitfit"},
    "diff-pruning": {"kind": "diff-pruning", "diff_pruning": {"density": 0.01}},
    "diff-pruning in groups": {"kind": "diff-pruning", "diff_pruning": {"density": 0.01, "groups": True}},
}


def base(reward: bool = False) -> Any:
    """A small Llama with biases everywhere and random weights, always the same."""
    torch.manual_seed(0)
    told = tiny.ARCHITECTURE | {"attention_bias": True, "mlp_bias": True, "num_hidden_layers": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(**told, max_position_embeddings=64, num_labels=1)
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model = kind.from_config(config).float().eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.02)
    return model


def attached(told: dict[str, Any], reward: bool = False, drawn: bool = True) -> Adapter:
    adapter = new_adapter(AdapterConfig.model_validate(told), Training(RATE, 3, reward, drawn))
    assert adapter is not None
    adapter.model = adapter.attach(base(reward))
    adapter.begin(STEPS)
    return adapter


def outputs(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(IDS).logits


def optimizer_of(adapter: Adapter) -> torch.optim.Optimizer:
    learned = [weight for weight in adapter.model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(learned, lr=RATE, weight_decay=0.0)


def learn(adapter: Adapter, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[float]:
    """Learn one batch by heart, as the training programs do it; return the losses."""
    adapter.model.train()
    losses = []
    for _ in range(steps):
        loss = adapter.model(input_ids=IDS, labels=IDS).loss
        losses.append(loss.item())
        penalty = adapter.penalty()
        (loss if penalty is None else loss + penalty).backward()
        adapter.before_update()
        optimizer.step()
        adapter.after_update()
        optimizer.zero_grad()
    return losses


def penalty_of(adapter: Adapter) -> float:
    penalty = adapter.penalty()
    assert penalty is not None
    return penalty.item()


def save(adapter: Adapter, folder: Path) -> dict[str, torch.Tensor]:
    adapter.save(folder, adapter.model.state_dict())
    return load_file(folder / WEIGHTS)


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> tuple[Adapter, list[float]]:
    adapter = attached(KINDS[request.param])
    assert torch.equal(outputs(adapter.model), outputs(base()))  # it begins as the identity
    return adapter, learn(adapter, optimizer_of(adapter))


def test_it_learns_and_merges_into_what_it_computes(trained: tuple[Adapter, list[float]], tmp_path: Path) -> None:
    adapter, losses = trained
    assert losses[-1] < losses[0]
    computed = outputs(adapter.model)
    assert (computed - outputs(base())).abs().max() > 0.1
    save(adapter, tmp_path)
    merged = merge_trained(base(), tmp_path)
    assert (outputs(merged) - computed).abs().max() < 1e-5
    assert set(merged.state_dict()) == set(base().state_dict())


def test_without_it_the_model_computes_as_the_base(trained: tuple[Adapter, list[float]]) -> None:
    adapter, _ = trained
    computed = outputs(adapter.model)
    with adapter.disabled():
        assert torch.equal(outputs(adapter.model), outputs(base()))
    assert torch.equal(outputs(adapter.model), computed)


def test_each_layer_alone_merges_into_the_same(trained: tuple[Adapter, list[float]], tmp_path: Path) -> None:
    """As the engine beside a trainer gets its weights."""
    adapter, _ = trained
    save(adapter, tmp_path)
    merged, found = merge_trained(base(), tmp_path), 0
    inner = getattr(adapter.model, "get_base_model", lambda: adapter.model)()
    for name, layer in inner.named_modules():
        if merge := merger(layer):
            weight, bias = merge(layer, layer.base_layer.weight, layer.base_layer.bias)
            expected = merged.get_submodule(name)
            assert (weight - expected.weight).abs().max() < 1e-6 and (bias - expected.bias).abs().max() < 1e-6
            found += 1
    assert found or adapter.config.kind == "bitfit"


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_models_head_is_trained_and_merged_with_it(kind: str, tmp_path: Path) -> None:
    adapter = attached(KINDS[kind], reward=True)
    optimizer = optimizer_of(adapter)
    adapter.model.train()
    adapter.model(IDS).logits.sum().backward()
    adapter.before_update()
    optimizer.step()
    adapter.after_update()
    save(adapter, tmp_path)
    merged = merge_trained(base(reward=True), tmp_path)
    assert not torch.equal(merged.score.weight, base(reward=True).score.weight)
    assert (outputs(merged) - outputs(adapter.model)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [3, 8])
def test_it_goes_on_after_a_stop_as_if_there_had_been_none(kind: str, stop: int) -> None:
    whole = attached(KINDS[kind])
    torch.manual_seed(1)
    learn(whole, optimizer_of(whole))
    first = attached(KINDS[kind])
    optimizer = optimizer_of(first)
    torch.manual_seed(1)
    learn(first, optimizer, stop)
    drawn, weights, state = torch.get_rng_state(), first.model.state_dict(), first.state()
    second = attached(KINDS[kind])
    second.model.load_state_dict(weights)
    second.begin(STEPS, stop)
    second.load_state({name: value.clone() for name, value in state.items()})
    going_on = optimizer_of(second)
    going_on.load_state_dict(optimizer.state_dict())
    torch.set_rng_state(drawn)
    learn(second, going_on, STEPS - stop)
    assert torch.equal(outputs(second.model), outputs(whole.model))


def test_adalora_reaches_its_budget_where_it_matters(tmp_path: Path) -> None:
    adapter = attached(KINDS["adalora"])
    learn(adapter, optimizer_of(adapter))
    values = [weight for name, weight in adapter.model.named_parameters() if "lora_E" in name]
    ranks = [int(weight.count_nonzero()) for weight in values]
    assert sum(ranks) == 8 * len(values) and len(set(ranks)) > 1  # 12 at first, 8 on average in the end
    saved = save(adapter, tmp_path)
    assert sorted(len(tensor) for name, tensor in saved.items() if "lora_E" in name) == sorted(ranks)


def test_adaloras_penalty_is_zero_for_orthogonal_vectors_alone() -> None:
    adapter = attached(KINDS["adalora"])
    weights = {
        name: weight for name, weight in adapter.model.named_parameters() if "lora_A" in name or "lora_B" in name
    }
    for name, weight in weights.items():
        torch.nn.init.orthogonal_(weight)
        assert min(weight.shape) == 12, name
    assert penalty_of(adapter) == pytest.approx(0.0, abs=1e-5)
    for weight in weights.values():
        weight.data *= 2  # P PᵀP − I is 3 I, of norm 3 √12
    assert penalty_of(adapter) == pytest.approx(0.1 * 3 * math.sqrt(12), rel=1e-5)


def test_in_sixteen_bits_it_learns_too() -> None:
    for told in [*KINDS.values(), *BESIDE.values()]:
        adapter = new_adapter(AdapterConfig.model_validate(told), Training(RATE, 3))
        assert adapter is not None
        adapter.ready(adapter.attach(base().bfloat16()))
        adapter.begin(STEPS)
        losses = learn(adapter, optimizer_of(adapter))
        assert losses[-1] < losses[0], told


def test_while_ranks_fall_the_file_has_all_that_the_model_computes_with(tmp_path: Path) -> None:
    adapter = attached(KINDS["adalora"])
    learn(adapter, optimizer_of(adapter), 3)
    save(adapter, tmp_path)
    assert (outputs(merge_trained(base(), tmp_path)) - outputs(adapter.model)).abs().max() < 1e-5


def test_gates_have_a_learning_rate_of_their_own_and_vectors_no_decay() -> None:
    adapter = attached(KINDS["diff-pruning"])
    optimizer = optimizer_of(adapter)
    with_own_rate(optimizer, adapter, "lr", lambda rate, times: rate * times)
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in adapter.model.named_parameters():
        if weight.requires_grad:
            expected = 0.1 if name.endswith(("gate_weight", "gate_bias")) else RATE
            assert rates[id(weight)] == pytest.approx(expected), name
    assert attached(KINDS["ia3"]).undecayed == ("ia3_l",)


def test_diff_pruning_keeps_as_many_numbers_as_it_is_told(tmp_path: Path) -> None:
    adapter = attached(KINDS["diff-pruning"])
    learn(adapter, optimizer_of(adapter))
    saved = save(adapter, tmp_path)
    numbers = sum(tensor.numel() for name, tensor in saved.items() if name.endswith(VALUES))
    linear = [
        layer for name, layer in base().named_modules() if name.startswith("model.layers") and name.endswith("proj")
    ]
    whole = sum(weight.numel() for layer in linear for weight in layer.parameters())
    assert numbers == round(0.01 * whole)
    merged, before = merge_trained(base(), tmp_path).state_dict(), base().state_dict()
    assert sum(int((merged[name] != before[name]).sum()) for name in before) == numbers


def test_hard_concrete_gates_by_hand() -> None:
    """σ(x) · 3 − 1.5, cut to [0, 1]: 0 at x ≤ 0, 1 from σ(x) = 5/6 on, where x is log 5."""
    alphas = torch.tensor([-2.0, 0.0, 1.0, math.log(5), 5.0])
    expected = [0.0, 0.0, 3 / (1 + math.exp(-1)) - 1.5, 1.0, 1.0]
    assert gate(alphas, 0.0).tolist() == pytest.approx(expected, abs=1e-6)
    assert gate(alphas, -1.0)[2:4].tolist() == pytest.approx([0.0, 3 / (1 + math.exp(1) / 5) - 1.5])
    assert open_probability(alphas).tolist() == pytest.approx([1 / (1 + math.exp(-alpha)) for alpha in alphas.tolist()])
    noise = torch.logit(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    share = (gate(torch.full_like(noise, 0.5), noise) > 0).float().mean().item()
    assert share == pytest.approx(open_probability(torch.tensor(0.5)).item(), abs=0.005)


def test_gates_are_drawn_anew_in_each_update_but_not_within_one() -> None:
    adapter = attached({"kind": "diff-pruning", "diff_pruning": {"opening": 0.0}})
    layer = next(module for module in adapter.model.modules() if merger(module))
    layer.train()
    torch.nn.init.ones_(layer.diff_weight)
    first, again = layer.difference("weight"), layer.difference("weight")
    assert torch.equal(first, again) and 0.4 < (first > 0).float().mean() < 0.6
    adapter.after_update()
    assert not torch.equal(layer.difference("weight"), first)
    learned_online = attached({"kind": "diff-pruning", "diff_pruning": {"opening": 1.0}}, drawn=False)
    layer = next(module for module in learned_online.model.modules() if merger(module))
    torch.nn.init.ones_(layer.diff_weight)
    assert torch.equal(layer.train().difference("weight"), layer.at_evaluation("weight"))


BESIDE: dict[str, dict[str, Any]] = {
    "prompt": {"kind": "prompt", "prompt": {"tokens": 5}},
    "p-tuning": {"kind": "p-tuning"},
    "p-tuning with an lstm": {"kind": "p-tuning", "p_tuning": {"encoder": "lstm", "tokens": 3}},
    "prefix": {"kind": "prefix", "prefix": {"hidden": 16}},
    "prefix without a perceptron": {"kind": "prefix", "prefix": {"hidden": None, "tokens": 4}},
    "bottleneck": {"kind": "bottleneck", "bottleneck": {"size": 8}},
}


@pytest.fixture(scope="module", params=BESIDE)
def beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, Path]:
    """A trained adapter that cannot be merged, and where it was written."""
    adapter = attached(BESIDE[request.param])
    if request.param == "bottleneck":  # the others are no identity at first
        assert torch.equal(outputs(adapter.model), outputs(base()))
    losses = learn(adapter, optimizer_of(adapter))
    assert losses[-1] < losses[0]
    folder = tmp_path_factory.mktemp("beside")
    save(adapter, folder)
    return adapter, folder


def test_what_stays_beside_the_weights_is_loaded_as_it_was_trained(beside: tuple[Adapter, Path]) -> None:
    adapter, folder = beside
    computed = outputs(adapter.model)
    assert torch.allclose(outputs(load_unmerged(base(), folder)), computed, atol=1e-6)
    with adapter.disabled():
        assert torch.equal(outputs(adapter.model), outputs(base()))
    assert torch.equal(outputs(adapter.model), computed)
    goes_on = new_adapter(adapter.config, adapter.training)
    assert goes_on is not None
    model = goes_on.attach(base())
    goes_on.go_on(folder)
    assert torch.equal(outputs(model), computed)
    served = base()
    set_beside(served, adapter.config.kind, {name: torch.zeros_like(one) for name, one in adapter.beside().items()})
    set_beside(served, adapter.config.kind, adapter.beside())
    assert torch.allclose(outputs(served), computed, atol=1e-6)


def test_weights_under_a_bottleneck_can_be_trained_by_others(beside: tuple[Adapter, Path]) -> None:
    """A value model starts from a policy with its adapter, and all its weights are trained."""
    model = load_unmerged(base(reward=True), beside[1])
    assert all(weight.requires_grad for weight in model.parameters())


def test_peft_computes_the_same_from_the_same_files(beside: tuple[Adapter, Path]) -> None:
    adapter, folder = beside
    if adapter.config.kind == "bottleneck":  # which peft lacks
        with pytest.raises(KeyError, match="peft_type"):
            PeftModel.from_pretrained(base(), str(folder))
        return
    mask = torch.ones_like(IDS)
    mask[1, -4:] = 0
    with torch.no_grad():
        ours = adapter.model.eval()(input_ids=IDS, attention_mask=mask).logits
        theirs = PeftModel.from_pretrained(base(), str(folder)).eval()(input_ids=IDS, attention_mask=mask).logits
    assert torch.allclose(theirs[:, -IDS.shape[1] :][mask.bool()], ours[mask.bool()], atol=1e-6)


def test_with_a_cache_and_padding_it_computes_the_same(beside: tuple[Adapter, Path]) -> None:
    model = load_unmerged(base(), beside[1]).eval()
    mask = torch.ones_like(IDS)
    mask[1, :6] = 0
    told = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    generated = model.generate(input_ids=IDS, attention_mask=mask, **told)
    for row in range(2):
        ids = IDS[row][mask[row].bool()][None]
        for _ in range(8):  # anew each time, without a cache
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1)[None]], dim=1)
        assert ids[0, -8:].tolist() == generated[row, -8:].tolist()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"kind": "adalora", "adalora": {"rank": 12}}, "rank 12 is not below initial_rank 12"),
        ({"kind": "adalora", "adalora": {"begin": 0.5}}, "begin 0.5 is not before end 0.5"),
        ({"kind": "ia3", "ia3": {"feedforward": ["fc"]}}, "feedforward names fc, which targets do not"),
        ({"kind": "diff-pruning", "quantize": True}, "Set quantize to false"),
        ({"kind": "diff-pruning", "diff_pruning": {"density": 0}}, "greater than 0"),
        ({"kind": "prompts"}, "Input should be"),
    ],
)
def test_settings_that_cannot_work(told: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AdapterConfig.model_validate(told)


def test_only_settings_of_the_kind_count() -> None:
    old = {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": ("q_proj", "v_proj"), "quantize": False}
    assert AdapterConfig().model_dump() == old  # as before there were other kinds
    assert AdapterConfig(dora=True).model_dump() == old | {"dora": True}
    ia3 = AdapterConfig.model_validate({"kind": "ia3", "rank": 4, "bitfit": {"targets": ["q_proj"]}})
    assert set(ia3.model_dump()) == {"kind", "quantize", "ia3"}
    assert ia3.idle == ["rank", "bitfit"]
    assert AdapterConfig.model_validate_json(ia3.model_dump_json()).ia3 == ia3.ia3
