"""Params in safetensors files: loading gives the saved bits, and refuses damaged files and other params."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import fnnets as fn

KEY, X = jax.random.key(0), jnp.ones((4, 2))
NET = fn.serial(fn.dense(3, use_bias=False), fn.batch_norm(), fn.tanh(), fn.dense(2))
PARAMS = NET.init(KEY, X)


class Odd(NamedTuple):
    """Every dtype, and unusual shapes."""

    arrays: dict[str, Any]
    number: Any
    none: Any = None


ODD = Odd(
    {
        "a b/c.d": np.float64([np.pi, -0.0, np.nan]),
        "half": jnp.array([[1.5, -2.0]], jnp.bfloat16),
        "f16": jnp.ones((), jnp.float16),
        "f8": jnp.ones(3, jnp.float8_e4m3fn),
        "ints": [jnp.arange(4, dtype=d) for d in (jnp.int8, jnp.uint8, jnp.int16, jnp.uint32, jnp.int32)],
        "big": np.array([2**62, -1]),
        "scalar": np.float64(np.pi),
        "bool": jnp.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "complex": jnp.array(1 + 2j),
    },
    0.1,
)


def bits(tree):
    return [(str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.mark.quick
def test_load_gives_the_saved_bits(tmp_path):
    for name, tree in {"params": PARAMS, "odd": ODD, "leaf": X}.items():
        fn.save(tmp_path / name, tree)
        again = fn.load(str(tmp_path / name), tree)
        assert jax.tree.structure(again) == jax.tree.structure(tree)
        assert bits(again) == bits(jax.tree.map(lambda a: a if hasattr(a, "dtype") else jnp.asarray(a), tree))
    assert sorted(os.listdir(tmp_path)) == ["leaf", "odd", "params"], "nothing else is left"


def test_safetensors_reads_our_files_and_we_read_its_files(tmp_path):
    """The names are paths."""
    fn.save(tmp_path / "ours", PARAMS, {"trained on": "nothing"})
    theirs = safetensors.numpy.load_file(tmp_path / "ours")
    names = {"0.w", "1.scale", "1.b", "1.stats.mean", "1.stats.var", "1.stats.weight", "3.w", "3.b"}
    assert set(theirs) == names
    np.testing.assert_array_equal(theirs["0.w"], PARAMS[0].w)
    with safetensors.safe_open(tmp_path / "ours", "np") as opened:
        assert opened.metadata()["trained on"] == "nothing"
    safetensors.numpy.save_file(theirs, tmp_path / "theirs")
    again = fn.load(tmp_path / "theirs", jax.eval_shape(NET.init, KEY, X))
    chex.assert_trees_all_equal(again, PARAMS)


def test_the_same_params_make_the_same_file(tmp_path):
    """safetensors writes the metadata in another order in every process."""
    texts = {f"né {i}": '"\\' for i in range(9)}
    fn.save(tmp_path / "p", ODD, texts)
    content = (tmp_path / "p").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    header = json.loads(content[8 : 8 + size])
    assert list(header["__metadata__"]) == ["fnnets.format", "fnnets.sha256", *texts]
    assert bits(fn.load(tmp_path / "p", ODD)) == bits(fn.load(tmp_path / "p", ODD))


def test_other_params_are_refused_by_their_paths(tmp_path):
    fn.save(tmp_path / "p", PARAMS)
    other = fn.serial(fn.dense(3), fn.batch_norm(), fn.tanh(), fn.dense(5, use_bias=False))
    first, norm, *rest = jax.eval_shape(other.init, KEY, X)
    half = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    like = (first, norm._replace(stats=norm.stats._replace(mean=half)), *rest)
    with pytest.raises(ValueError, match="holds other params") as caught:
        fn.load(tmp_path / "p", like)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "0.b: missing there, float32 (3,) here",
        "1.stats.mean: float32 (3,) there, bfloat16 (3,) here",
        "3.w: float32 (3, 2) there, float32 (3, 5) here",
        "3.b: float32 (2,) there, missing here",
    ]


@pytest.mark.parametrize("place", ["whole", pytest.param("every byte", marks=pytest.mark.full)])
def test_a_damaged_file_is_refused(tmp_path, place):
    path = tmp_path / "p"
    fn.save(path, PARAMS, {"a": "b"})
    whole = path.read_bytes()
    step = 1 if place == "every byte" else 37
    for i in range(0, len(whole), step):
        for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"load: .*p (is|holds|has)"):
                fn.load(path, PARAMS)
    for damaged in (whole + b"x", b"x" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            fn.load(path, PARAMS)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p"
    fn.save(path, PARAMS)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fn.save(path, jax.tree.map(lambda a: a + 1, PARAMS))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["p"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "p")
    fn.save(tmp_path / "link", PARAMS)
    assert Path(tmp_path / "link").is_symlink()
    chex.assert_trees_all_equal(fn.load(tmp_path / "p", PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("params", "metadata", "error", "message"),
    [
        ({"k": KEY}, None, TypeError, r"cannot hold k of key<fry>; .* jax.random.key_data"),
        ({"k": "text"}, None, TypeError, "k must be an array of numbers, got str"),
        ({"k": np.array([None])}, None, TypeError, "k must be an array of numbers, got object"),
        ({"k": np.ones(1, np.complex128)}, None, TypeError, "cannot hold k of complex128"),
        ({"__metadata__": X}, None, TypeError, "rename"),
        ({"a.b": X, "a": {"b": X}}, None, ValueError, r"two leaves have the path a\.b"),
        (X, {"a": 1}, TypeError, "metadata must be texts"),
    ],
)
def test_save_names_the_mistake(tmp_path, params, metadata, error, message):
    with pytest.raises(error, match=message):
        fn.save(tmp_path / "p", params, metadata)
    assert os.listdir(tmp_path) == []


def test_errors_name_a_wrong_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        fn.save(tmp_path / "nowhere" / "p", PARAMS)
    with pytest.raises(FileNotFoundError, match="none"):
        fn.load(tmp_path / "none", PARAMS)
    with pytest.raises(IsADirectoryError):
        fn.load(tmp_path, PARAMS)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'fnnets\[save\]'"):
        fn.save(tmp_path / "p", PARAMS)
