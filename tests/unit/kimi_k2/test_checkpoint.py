from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kimi_k2.checkpoint import Checkpoint
from kimi_k2.errors import CheckpointError, ConfigError, ModelError, UnsupportedFormatError
from kimi_k2.int4 import dequantize
from kimi_k2.load import load_local_experts, load_router_model
from kimi_k2.tensor_names import expert_prefix, router_tensors
from tests.support.checkpoints import StoredAs, write_random_checkpoint

EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight_packed"
BIAS = "model.layers.2.mlp.gate.e_score_correction_bias"


@pytest.fixture(scope="module")
def int4_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(
        tmp_path_factory.mktemp("int4"), with_tokenizer=False, max_shard_bytes=200_000
    )


@pytest.fixture
def broken(int4_dir: Path, tmp_path: Path) -> Path:
    """A private copy to damage."""
    return Path(shutil.copytree(int4_dir, tmp_path / "broken"))


def shard_of(directory: Path, name: str) -> Path:
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    return directory / index["weight_map"][name]


def stored(directory: Path) -> dict[str, Tensor]:
    files = sorted(directory.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def rewrite(directory: Path, name: str, change: Callable[[Tensor], Tensor | None]) -> None:
    shard = shard_of(directory, name)
    tensors = load_file(shard)
    changed = change(tensors.pop(name))
    if changed is not None:
        tensors[name] = changed
    save_file(tensors, shard)


def test_int4_experts_equal_what_is_stored(int4_dir: Path) -> None:
    tensors = stored(int4_dir)
    weights = Checkpoint(int4_dir).expert_weights(2, [5, 0, 15])
    for slot, expert in enumerate([5, 0, 15]):
        parts = []
        for projection in ("gate_proj", "up_proj", "down_proj"):
            name = expert_prefix(2, expert) + projection
            parts.append(
                dequantize(tensors[f"{name}.weight_packed"], tensors[f"{name}.weight_scale"])
            )
        assert torch.equal(weights.gate_up[slot], torch.cat(parts[:2]).float())
        assert torch.equal(weights.down[slot], parts[2].float())


@pytest.mark.parametrize("expert_format", ["float32", "bfloat16"])
def test_plain_weights_are_widened_exactly(tmp_path: Path, expert_format: StoredAs) -> None:
    write_random_checkpoint(tmp_path, {"vocab_size": 64}, expert_format=expert_format)
    tensors = stored(tmp_path)
    checkpoint = Checkpoint(tmp_path)
    checkpoint.check()
    weights = checkpoint.expert_weights(1, range(16))
    name = f"{expert_prefix(1, 9)}down_proj.weight"
    assert torch.equal(weights.down[9], tensors[name].float())
    router = checkpoint.router_weights()
    assert torch.equal(router.lm_head, tensors["lm_head.weight"].float())
    assert router.embed_tokens.dtype is torch.float32


def test_the_bias_is_never_cast(int4_dir: Path) -> None:
    bias = stored(int4_dir)[BIAS]
    assert not torch.equal(bias, bias.bfloat16().float())
    gate = Checkpoint(int4_dir).router_weights(torch.bfloat16).layers[2].gate
    assert gate is not None
    assert gate.e_score_correction_bias.dtype is torch.float32
    assert torch.equal(gate.e_score_correction_bias, bias)
    assert gate.weight.dtype is torch.float32


def test_a_worker_reads_only_its_experts_bytes(int4_dir: Path) -> None:
    checkpoint = Checkpoint(int4_dir)
    checkpoint.check()
    assert checkpoint.bytes_read == 0
    checkpoint.expert_weights(1, [3, 4, 9])
    hidden, width = 64, 32
    packed = 3 * hidden * width // 2
    scales = 3 * hidden * width // 32 * 2
    assert checkpoint.bytes_read == 3 * (packed + scales)


def test_a_router_reads_only_what_is_no_routed_expert(int4_dir: Path) -> None:
    checkpoint = Checkpoint(int4_dir)
    checkpoint.router_weights()
    wanted = sum(
        prod(spec.shape) * (4 if spec.dtypes == ("F32",) else 2)
        for spec in router_tensors(checkpoint.config).values()
    )
    assert checkpoint.bytes_read == wanted


def test_model_hash_changes_with_the_model(int4_dir: Path, broken: Path) -> None:
    wanted = Checkpoint(int4_dir).model_hash
    assert Checkpoint(broken).model_hash == wanted
    rewrite(broken, EXPERT, lambda tensor: tensor[:-1].clone())
    assert Checkpoint(broken).model_hash != wanted


def test_model_hash_changes_with_the_weights(int4_dir: Path, broken: Path) -> None:
    """Of a shard of the same name, size and header; what it reads for that is not counted."""
    checkpoint = Checkpoint(int4_dir)
    shard = shard_of(broken, EXPERT)
    content = bytearray(shard.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    shard.write_bytes(content)
    Checkpoint(broken).check()
    assert Checkpoint(broken).model_hash != checkpoint.model_hash
    assert checkpoint.bytes_read == 0


def test_a_cut_shard_still_has_a_hash(broken: Path) -> None:
    """What is wrong with it is for `check` to say."""
    shard = shard_of(broken, EXPERT)
    wanted = Checkpoint(broken).model_hash
    shard.write_bytes(shard.read_bytes()[:-100])
    assert Checkpoint(broken).model_hash != wanted


def test_one_file_without_index(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, {"vocab_size": 64}, with_tokenizer=False)
    tensors = stored(tmp_path)
    for file in tmp_path.glob("model*"):
        file.unlink()
    save_file(tensors, tmp_path / "model.safetensors")
    Checkpoint(tmp_path).check()


def test_tied_embeddings(tmp_path: Path) -> None:
    write_random_checkpoint(
        tmp_path, {"vocab_size": 64, "tie_word_embeddings": True}, with_tokenizer=False
    )
    weights = Checkpoint(tmp_path).router_weights()
    assert weights.lm_head is weights.embed_tokens


def test_k25_names(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, {"vocab_size": 64}, with_tokenizer=False)
    tensors = {f"language_model.{name}": tensor for name, tensor in stored(tmp_path).items()}
    for file in tmp_path.glob("model*"):
        file.unlink()
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    checkpoint.check()
    assert checkpoint.expert_weights(1, [0]).down.shape == (1, 64, 32)


@pytest.mark.parametrize("name", [EXPERT, BIAS, "lm_head.weight"])
def test_a_missing_tensor_is_named(broken: Path, name: str) -> None:
    rewrite(broken, name, lambda tensor: None)
    with pytest.raises(CheckpointError, match=name):
        Checkpoint(broken).check()


@pytest.mark.parametrize("name", [EXPERT, BIAS, "model.norm.weight"])
def test_a_wrong_dtype_is_named(broken: Path, name: str) -> None:
    rewrite(broken, name, lambda tensor: tensor.to(torch.int8))
    with pytest.raises(CheckpointError, match=f"{name} has dtype I8"):
        Checkpoint(broken).check()


def test_a_rounded_bias_is_refused(broken: Path) -> None:
    rewrite(broken, BIAS, lambda tensor: tensor.bfloat16())
    with pytest.raises(CheckpointError, match=f"{BIAS} has dtype BF16, wanted F32"):
        Checkpoint(broken).router_weights()


@pytest.mark.parametrize("name", [EXPERT, BIAS])
def test_a_wrong_shape_is_named(broken: Path, name: str) -> None:
    rewrite(broken, name, lambda tensor: tensor[:-1].clone())
    with pytest.raises(CheckpointError, match=f"{name} has shape"):
        Checkpoint(broken).check()


def test_a_truncated_tensor_is_named(broken: Path) -> None:
    shard = shard_of(broken, EXPERT)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"tensor model\.\S+ is truncated"):
        Checkpoint(broken).check()


def test_a_shard_cut_while_serving_is_an_error_not_a_crash(broken: Path) -> None:
    checkpoint = Checkpoint(broken)
    checkpoint.check()
    for shard in broken.glob("*.safetensors"):
        with shard.open("r+b") as file:
            file.truncate(shard.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="ends inside tensors"):
        for layer in checkpoint.config.moe_layers:
            checkpoint.expert_weights(layer, range(16))


@pytest.mark.parametrize(
    "content",
    [b"", b"123", b"\xff" * 8, (10).to_bytes(8, "little") + b"{}", b"\x02" + bytes(7) + b"[]"],
)
def test_a_broken_header_is_refused(broken: Path, content: bytes) -> None:
    shard_of(broken, EXPERT).write_bytes(content)
    with pytest.raises(CheckpointError, match="shard"):
        Checkpoint(broken).check()


@pytest.mark.parametrize(
    "entry",
    [
        {},
        None,
        {"dtype": "I32", "shape": [32, 8], "data_offsets": [0, 1]},
        {"dtype": "I32", "shape": [32, -8], "data_offsets": [0, 1024]},
        {"dtype": "X9", "shape": [32, 8], "data_offsets": [0, 1024]},
        {"dtype": "I32", "shape": [32, 8], "data_offsets": [-1024, 0]},
    ],
)
def test_a_malformed_entry_is_named(broken: Path, entry: Any) -> None:
    shard = shard_of(broken, EXPERT)
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[EXPERT] = entry
    raw = json.dumps(header).encode()
    shard.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])
    with pytest.raises(CheckpointError, match=EXPERT):
        Checkpoint(broken).check()


def test_a_missing_shard_is_named(broken: Path) -> None:
    shard = shard_of(broken, EXPERT)
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        Checkpoint(broken).check()


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": {"a": 1}}']
)
def test_a_broken_index_is_refused(broken: Path, index: str) -> None:
    (broken / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        Checkpoint(broken).check()


def test_no_weights(tmp_path: Path, int4_dir: Path) -> None:
    shutil.copy(int4_dir / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="the weights are missing"):
        Checkpoint(tmp_path).check()


@pytest.mark.parametrize(("layer", "expert"), [(0, 0), (3, 0), (1, 16), (1, -1)])
def test_an_expert_that_is_not_there(int4_dir: Path, layer: int, expert: int) -> None:
    with pytest.raises(CheckpointError, match=f"no expert {expert} in layer {layer}"):
        Checkpoint(int4_dir).expert_weights(layer, [expert])


def test_fp8_is_refused_by_name(broken: Path) -> None:
    raw = json.loads((broken / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (broken / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UnsupportedFormatError, match="fp8-block"):
        Checkpoint(broken)


def test_group_size_must_fit(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, with_tokenizer=False, expert_format="int4")
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["hidden_size"] = 72
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UnsupportedFormatError, match="multiples"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("load", [load_router_model, load_local_experts])
def test_loading_from_nowhere_is_a_model_error(
    load: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no model directory") as error:
        load(tmp_path / "nowhere")
    assert isinstance(error.value, ModelError)
