"""Checkpoints: an interrupted training ends as an unbroken one, bit for bit; wrong checkpoints are refused."""

import json
import logging
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import fnnets as fn
from fnnets.saving import storage

pytestmark = pytest.mark.xdist_group("checkpoints")  # one process compiles for all

KEY, RNG = jax.random.key(7), np.random.default_rng(0)
X = RNG.standard_normal((11, 3)).astype(np.float32)
T = np.sin(X[:, :2])
NET = fn.serial(fn.dense(4, use_bias=False), fn.batch_norm(), fn.dropout(0.3), fn.tanh(), fn.dense(2))
ADAM, MSE, EARLY = fn.updaters.adam(0.05), fn.losses.mse(), fn.train.early_stopping(4)
EPOCHS = 20  # early stopping ends it earlier
Error = fn.train.CheckpointError


def run(folder=None, epochs=EPOCHS, *, every=1, keep=None, net=NET, examples=(X, T), updater=ADAM, **more):
    """A short training that stops early: its validation is another function and gets worse."""
    checkpoints = None if folder is None else fn.train.checkpoints(folder, every=every, keep=keep)
    start = {} if "state" in more else {"key": KEY}
    more = {"validation": (-X, T), "early_stopping": EARLY, "batch_size": 4, **start, **more}
    return fn.train.fit(net, MSE, updater, examples, epochs=epochs, checkpoints=checkpoints, **more)


def same(found, expected):
    chex.assert_trees_all_equal(found._replace(stopped=None), expected._replace(stopped=None))
    assert found.stopped == expected.stopped
    assert jax.tree.map(jnp.result_type, found.state) == jax.tree.map(jnp.result_type, expected.state)


@pytest.fixture(scope="module")
def unbroken():
    found = run()
    assert found.stopped == "early"
    return found


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A directory with the checkpoints of epochs 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("three")
    run(folder, 3)
    return folder


@pytest.fixture
def copied(three, tmp_path):
    return Path(shutil.copytree(three, tmp_path / "run"))


# ---------------------------------------------------------------- continuing


@pytest.mark.quick
def test_a_run_broken_after_every_epoch_is_the_unbroken_run(tmp_path, unbroken):
    for epochs in range(1, len(unbroken.history.loss)):
        found = run(tmp_path, epochs)
        assert (found.stopped, len(found.history.loss), int(found.state.epoch)) == ("epochs", epochs, epochs)
    same(run(tmp_path), unbroken)
    before = sorted(tmp_path.rglob("*"))
    same(run(tmp_path), unbroken)
    assert sorted(tmp_path.rglob("*")) == before, "a finished training saves nothing"


@pytest.mark.parametrize("lost", [1, 2])
def test_a_run_continues_from_the_newest_checkpoint(tmp_path, unbroken, lost):
    """As after a run that was killed between two checkpoints."""
    run(tmp_path, 3, every=2)
    steps = fn.train.checkpoints(tmp_path).steps()
    assert steps == [6, 9]
    for step in steps[-lost:]:
        shutil.rmtree(tmp_path / str(step))
    same(run(tmp_path, every=2, keep=1), unbroken)
    assert len(fn.train.checkpoints(tmp_path).steps()) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"early_stopping": None, "validation": None, "remainder": "keep", "gradient": "autodiff"},
        {"early_stopping": None, "replace": True, "penalty": fn.l2(0.1), "clip": 0.1},
    ],
    ids=["keep, autodiff", "replace, penalty, clip"],
)
def test_other_settings_continue_too(tmp_path, more):
    expected = run(epochs=2, **more)
    for epochs in (1, 2):
        found = run(tmp_path, epochs, **more)
    same(found, expected)


def test_continuing_from_a_state(tmp_path, unbroken):
    """With checkpoints, epochs counts those of the state too."""
    first = run(epochs=2)
    expected = run(epochs=2, state=first.state)
    for epochs in (3, 4):
        found = run(tmp_path, epochs, state=first.state)
    same(found, expected)
    with pytest.raises(ValueError, match="epochs counts all epochs, got 2 with a state after 2"):
        run(tmp_path / "new", 2, state=first.state)
    with pytest.raises(Error, match="begun: at epoch 2, step 6 there, at epoch 0, step 0 here"):
        run(tmp_path, 4)


def test_a_run_continues_after_ctrl_c(tmp_path, unbroken, monkeypatch):
    @contextmanager
    def in_the_second_epoch():
        yield iter([False, True]).__next__

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["fnnets.train._fit"], "delayed_interrupt", in_the_second_epoch)
        found = run(tmp_path, every=10)
    assert (found.stopped, len(found.history.loss)) == ("interrupted", 2)
    same(run(tmp_path, every=10), unbroken)


def test_a_loss_that_is_not_finite_is_not_saved(tmp_path):
    explodes = fn.updaters.sgd(lambda step: jnp.where(step < 4, 0.1, 1e30))
    with pytest.raises(fn.train.NonFiniteError) as caught:
        run(tmp_path, net=fn.dense(2), updater=explodes)
    assert caught.value.step == 5
    assert fn.train.checkpoints(tmp_path).steps() == [3]


def test_one_compilation(tmp_path):
    traces, net = [], fn.dense(2)
    loss = MSE._replace(forward=lambda *args: traces.append(1) or MSE.forward(*args))
    for epochs in (2, 4):
        fn.train.fit(
            net, loss, ADAM, (X, T), epochs=epochs, key=KEY, batch_size=4,
            checkpoints=fn.train.checkpoints(tmp_path),
        )  # fmt: skip
    assert len(traces) == 1


# ---------------------------------------------------------------- your own loop


@jax.jit
def batch_of(state):
    """The batch as a pure function of the state."""
    plan = fn.data.batches(jax.random.fold_in(state.key, state.step // 2), 11, 5, remainder="drop")
    return fn.data.take(fn.data.Examples(jnp.asarray(X), jnp.asarray(T)), plan.rows[state.step % 2])


def test_your_own_loop_continues_within_an_epoch(tmp_path):
    step = fn.train.make_step(NET, MSE, ADAM)
    state, states = fn.train.start(NET, ADAM, X, KEY), []
    checkpoints = fn.train.checkpoints(tmp_path, keep=None)
    with checkpoints.saving() as save:
        for _ in range(5):
            state, _ = step(state, batch_of(state))
            states.append(jax.tree.map(jnp.copy, state))
            save(state)  # the next step donates its buffers
    assert checkpoints.steps() == [1, 2, 3, 4, 5]
    like = jax.eval_shape(lambda: fn.train.start(NET, ADAM, X, KEY))
    for at in (1, 4):
        again = checkpoints.restore(like, at)
        chex.assert_trees_all_equal(again, states[at - 1])
        while int(again.step) < 5:
            again, _ = step(again, batch_of(again))
        chex.assert_trees_all_equal(again, state)
    chex.assert_trees_all_equal(checkpoints.restore(like), state)
    with pytest.raises(Error, match=r"5 was not saved by fit; .* state=checkpoints.restore"):
        run(tmp_path)


def test_restore_reads_the_state_that_fit_saved(three):
    like = fn.train.start(NET, ADAM, X, KEY)
    chex.assert_trees_all_equal(fn.train.checkpoints(three).restore(like), run(epochs=3).state)


class Odd(NamedTuple):
    keys: Any
    arrays: Any
    none: Any = None


def test_restore_gives_every_leaf_unchanged(tmp_path):
    odd = Odd(
        (jax.random.key(1, impl="rbg"), jax.random.split(KEY, (2, 3)), jax.random.key_data(KEY)),
        {
            "a/b.. é": jnp.array([1.5, -0.0], jnp.bfloat16),
            "": np.array([np.pi, np.nan]),
            "f16": jnp.ones((2, 1), jnp.float16),
            "bool": jnp.array(True),
            "none": jnp.zeros((0, 3)),
            "ints": [jnp.arange(3, dtype=d) for d in (jnp.int8, jnp.uint8, jnp.int32)],
            "history": np.arange(4.0)[::2],
            "number": 3,
        },
    )
    checkpoints = fn.train.checkpoints(tmp_path)
    checkpoints.save(odd, 0)
    again = checkpoints.restore(odd)
    assert jax.tree.structure(again) == jax.tree.structure(odd)
    for new, old in zip(jax.tree.leaves(again), jax.tree.leaves(odd), strict=True):
        old = old if hasattr(old, "dtype") else jnp.asarray(old)
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        assert isinstance(new, np.ndarray) == isinstance(old, np.ndarray)
        data = [jax.random.key_data(a) if str(a.dtype).startswith("key") else a for a in (new, old)]
        assert np.asarray(data[0]).tobytes() == np.asarray(data[1]).tobytes()
    with pytest.raises(Error, match=r"state.keys.0: key<rbg> \(\) there, key<fry> \(\) here"):
        checkpoints.restore(odd._replace(keys=(KEY, *odd.keys[1:])))


# ---------------------------------------------------------------- another training


WIDE = fn.serial(fn.dense(5), fn.batch_norm(), fn.dropout(0.3), fn.tanh(), fn.dense(2))
OTHERS = {
    "width": ({"net": WIDE}, r"net: serial(.*\n)+.*state.params.0.w: float32 \(3, 4\) there, float32 \(3, 5\) here"),
    "bias": ({"net": WIDE}, r"state.params.0.b: missing there, float32 \(5,\) here"),
    "updater": ({"updater": fn.updaters.sgd(0.1)}, r"state.memory\.m\.0\.w: float32 \(3, 4\) there, missing here"),
    "rate": ({"updater": fn.updaters.adam(0.06)}, "program: .* such as a learning rate"),
    "dropout": ({"net": fn.serial(*NET.info.children[:2], fn.dropout(0.4), *NET.info.children[3:])}, "net: "),
    "key": ({"key": jax.random.key(8)}, r"key: key<fry> \(\) \[0, 7\] there, key<fry> \(\) \[0, 8\] here"),
    "implementation": ({"key": jax.random.key(7, impl="rbg")}, r"state.key: key<fry> \(\) there, key<rbg> \(\) here"),
    "batch_size": ({"batch_size": 5}, "batch_size: 4 there, 5 here"),
    "remainder": ({"remainder": "drop"}, r"history.steps: float32 \(3, 3\) there, float32 \(3, 2\) here"),
    "replace": ({"replace": True}, "replace: False there, True here"),
    "gradient": ({"gradient": "autodiff"}, "gradient: hand there, autodiff here"),
    "penalty": ({"penalty": fn.l2(0.1)}, r"penalty: None there, l2\(0.1\) here"),
    "clip": ({"clip": 1.0}, "clip: None there, 1.0 here"),
    "metrics": ({"metrics": {"m": lambda y, t: y[:, 0]}}, "metrics: None there, m here"),
    "patience": ({"early_stopping": fn.train.early_stopping(5)}, "program: .* early_stopping"),
    "no early stopping": ({"early_stopping": None}, "early_stopping: watches loss there, None here"),
    "fewer examples": ({"examples": (X[:9], T[:9])}, r"examples.x: float32 \(11, 3\) there, float32 \(9, 3\) here"),
    "other examples": ({"examples": (X[::-1], T[::-1])}, "examples.x: other values there than here"),
    "no validation": (
        {"validation": None, "early_stopping": None}, r"validation.x: float32 \(11, 3\) there, missing here",
    ),
    "fewer epochs": ({"epochs": 2}, "has 3 epochs already, got epochs=2; give at least as many"),
}  # fmt: skip


EVERYDAY = ("width", "updater", "rate", "key", "batch_size", "patience", "other examples", "fewer epochs")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EVERYDAY else [pytest.mark.full]) for name in OTHERS]
)
def test_another_training_is_refused(three, name):
    more, message = OTHERS[name]
    with pytest.raises(Error, match=message):
        run(three, **more)


def test_rounding_in_the_data_is_not_another_training(copied):
    assert len(run(copied, 3, examples=(X * np.float32(1 + 1e-6), T)).history.loss) == 3


def test_a_checkpoint_of_another_fnnets_goes_on(copied, unbroken):
    """Its program may be written in another way. Older checkpoints do not say which fnnets saved them."""
    shutil.rmtree(copied / "9")
    folder = copied / "6"
    about = json.loads((folder / storage.ABOUT).read_bytes())["content"]
    program = about["setting"]["program"]
    program["sha256"] = "0" * 64
    (folder / storage.ABOUT).write_bytes(storage._with_digest(about))
    refused(copied, lambda: run(copied), "program: ")
    program["under"].pop()
    (folder / storage.ABOUT).write_bytes(storage._with_digest(about))
    same(run(copied), unbroken)


def test_two_trainings_in_turn(tmp_path, unbroken):
    for epochs in (1, 2, EPOCHS):
        found = run(tmp_path / "one", epochs)
        other = run(tmp_path / "other", min(epochs, 3), key=jax.random.key(8))
    same(found, unbroken)
    same(other, run(epochs=3, key=jax.random.key(8)))


# ---------------------------------------------------------------- damage


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def refused(folder, restore, *words):
    """Checks that restore raises an error with these words, and changes nothing in the folder."""
    before = {path: path.read_bytes() for path in files_of(folder)}
    with pytest.raises(Error) as caught:
        restore()
    assert {path: path.read_bytes() for path in files_of(folder)} == before
    for word in words:
        assert word in str(caught.value)


def test_restore_refuses_any_damage_to_any_file(copied):
    checkpoints, like = fn.train.checkpoints(copied), fn.train.start(NET, ADAM, X, KEY)
    restore = lambda: checkpoints.restore(like)
    newest = copied / str(checkpoints.steps()[-1])
    assert len(files_of(newest)) > 5
    for path in files_of(newest):
        whole = path.read_bytes()
        flipped = [
            whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :]
            for i, bit in [(0, 1), (len(whole) // 2, 16), (len(whole) - 1, 128)]
        ]
        for damaged in [*flipped, whole[: len(whole) // 2], whole[:-1], b"", whole + b"\0"]:
            path.write_bytes(damaged)
            refused(copied, restore, str(path), "step 6 is intact", "Nothing was changed")
        path.unlink()
        refused(copied, restore, str(path), "is missing", "step 6 is intact")
        path.write_bytes(whole)
    restore()


@pytest.mark.full
def test_restore_refuses_damage_to_any_byte(copied):
    checkpoints, like = fn.train.checkpoints(copied), fn.train.start(NET, ADAM, X, KEY)
    for step in checkpoints.steps()[:-1]:
        shutil.rmtree(copied / str(step))
    for path in files_of(copied / str(checkpoints.steps()[-1])):
        whole = path.read_bytes()
        for i in range(len(whole)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
            with pytest.raises(Error, match="no earlier checkpoint is intact"):
                checkpoints.restore(like)
        path.write_bytes(whole)
    checkpoints.restore(like)


def test_fit_refuses_damage_and_continues_from_an_intact_checkpoint(copied, unbroken):
    steps = fn.train.checkpoints(copied).steps()
    for step in steps[1:]:
        next((copied / str(step) / "arrays" / "d").iterdir()).write_bytes(b"")
    refused(copied, lambda: run(copied), str(copied / "9"), "step 3 is intact")
    for step in steps[1:]:
        shutil.rmtree(copied / str(step))
    same(run(copied), unbroken)


def test_restored_arrays_are_compared_with_their_digests(copied):
    """Also when every file has its digest."""
    folder = copied / "9"
    about = json.loads((folder / storage.ABOUT).read_bytes())["content"]
    about["arrays"]["state.params.4.w"][2] = "0" * 64
    (folder / storage.ABOUT).write_bytes(storage._with_digest(about))
    refused(copied, lambda: run(copied), "state.params.4.w is damaged", "step 6 is intact")
    (folder / storage.ABOUT).write_bytes(storage._with_digest(about | {"format": 2}))
    refused(copied, lambda: run(copied), "has format 2, of another version of fnnets")


def test_folders_of_others_are_refused(tmp_path):
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).save(
        tmp_path / "5", args=ocp.args.PyTreeSave({"a": np.ones(2)})
    )
    refused(tmp_path, lambda: run(tmp_path), "about.json is missing: fnnets did not save this folder")
    (tmp_path / "5" / "about.json").write_text("[]")
    refused(
        tmp_path,
        lambda: run(tmp_path),
        "about.json is damaged, or fnnets did not write it",
        "no earlier checkpoint is intact",
    )


# ---------------------------------------------------------------- saving


def test_unfinished_folders_are_ignored_and_removed(tmp_path, unbroken):
    for name in ("3.unfinished", "9.unfinished", "6.removed", "notes", "x.unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    assert fn.train.checkpoints(tmp_path).steps() == []
    same(run(tmp_path, keep=1), unbroken)
    (step,) = fn.train.checkpoints(tmp_path).steps()
    assert sorted(os.listdir(tmp_path)) == sorted([".lock", str(step), "notes", "x.unfinished"])


TREE = {"a": jnp.ones(2)}


def test_folders_of_others_are_never_removed(tmp_path):
    for name in ("1", "2", "007"):
        (tmp_path / name).mkdir()
    checkpoints = fn.train.checkpoints(tmp_path, keep=1)
    for step in (5, 7):
        checkpoints.save(TREE, step)
    assert checkpoints.steps() == [1, 2, 7]
    assert (tmp_path / "007").is_dir()


def test_one_training_at_a_time_saves_in_a_directory(tmp_path):
    checkpoints = fn.train.checkpoints(tmp_path)
    with checkpoints.saving() as save:
        (tmp_path / "1.unfinished").mkdir()  # the other training is writing it
        with pytest.raises(Error, match="another training is saving in"):
            checkpoints.save(TREE, 5)
        assert (tmp_path / "1.unfinished").exists()
        save(TREE, 2)
    checkpoints.save(TREE, 5)


def fail(folder, *steps, then=None):
    """Saves in a directory that no longer exists."""
    with fn.train.checkpoints(folder).saving() as save:
        shutil.rmtree(folder)
        for step in steps:
            save(TREE, step)
        if then:
            raise then


def test_a_failed_save_raises(tmp_path):
    folder = tmp_path / "run"
    for steps in ((2,), (2, 3)):  # at the end, and by the next save
        with pytest.raises(Error, match=r"step 2 could not be saved in .*run: FileNotFoundError"):
            fail(folder, *steps)
        assert not folder.exists()
    with pytest.raises(KeyError) as caught:
        fail(folder, 2, then=KeyError("an earlier error"))
    assert "step 2 could not be saved" in caught.value.__notes__[0]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Error, match=r"cannot be written to: Permission denied"):
        fn.train.checkpoints(tmp_path).save(TREE, 1)


def test_saving_prints_and_logs_nothing(tmp_path, capfd, caplog):
    """Not orbax either, even if other logs are on."""
    with caplog.at_level(logging.DEBUG):
        checkpoints = fn.train.checkpoints(tmp_path)
        checkpoints.save(TREE, 1)
        checkpoints.restore(TREE)
        with pytest.raises(Error, match="ValueError"):
            checkpoints.save({"a": jnp.ones(2, jnp.uint4)}, 2)  # orbax cannot write it
    assert [record.pathname for record in caplog.records if "orbax" in record.pathname] == []
    assert logging.getLogger("absl").filters == []
    assert capfd.readouterr() == ("", "")


def test_a_relative_path_keeps_its_meaning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = fn.train.checkpoints("runs/one")
    checkpoints.save(TREE, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert checkpoints.steps() == [1]
    assert (tmp_path / "runs" / "one" / "1").is_dir()


def test_checkpoints_print_as_a_table(three):
    *_, head, _, first, second, third = str(fn.train.checkpoints(three)).splitlines()
    assert head.split() == ["step", "epoch", "saved", "bytes"]
    assert [line.split()[:2] for line in (first, second, third)] == [["3", "1"], ["6", "2"], ["9", "3"]]
    assert str(fn.train.checkpoints("nowhere")).endswith("nowhere: no checkpoints")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: fn.train.checkpoints(p, every=0), "every must be a whole number of at least 1"),
        (lambda p: fn.train.checkpoints(p, keep=0), "keep must be a whole number of at least 1"),
        (lambda p: fn.train.checkpoints(p / "file"), "directory must be a folder, got the file"),
        (lambda p: fn.train.checkpoints("gs://bucket/run"), "a folder of this machine's file systems"),
        (lambda p: fn.train.fit(NET, MSE, ADAM, (X, T), epochs=1, key=KEY, checkpoints="runs"), "made by fn.train.ch"),
        (lambda p: fn.train.checkpoints(p / "new").restore(TREE), "new holds no checkpoint"),
        (lambda p: fn.train.checkpoints(p).restore(TREE, 7), "holds no step 7; it holds 1"),
        (lambda p: fn.train.checkpoints(p).save(TREE, 1), "step 1 is in .* already"),
        (lambda p: fn.train.checkpoints(p).save(TREE), "give a step too"),
        (lambda p: fn.train.checkpoints(p).save(TREE, -1), "step must be a whole number of at least 0"),
        (lambda p: fn.train.checkpoints(p).save({"a": "text"}, 2), "state.a must be an array of numbers, got str"),
        (lambda p: fn.train.checkpoints(p / "file" / "x").save(TREE, 1), "cannot be written to"),
        (
            lambda p: fn.train.checkpoints(p).restore({"b": jnp.ones(3, jnp.int8)}),
            r"state.b: missing there, int8 \(3,\) here\n  state.a: float32 \(2,\) there, missing here",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_mistake(tmp_path, call, message):
    (tmp_path / "file").touch()
    fn.train.checkpoints(tmp_path).save(TREE, 1)
    with pytest.raises((ValueError, TypeError), match=message):
        call(tmp_path)
    assert fn.train.checkpoints(tmp_path).steps() == [1]


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'fnnets\[save\]'"):
        run(tmp_path / "new")
    assert not (tmp_path / "new").exists()
