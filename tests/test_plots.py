"""The pictures of gradients and of training: their content, and that matplotlib is only needed to draw."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 3)), jnp.float32)


def flow_of(net, x=X):
    return fn.gradient_flow(net, net.init(jax.random.key(0), x), x)


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_every_field_has_a_panel(tmp_path):
    net = fn.serial(fn.gru(2), fn.dense(2))
    flow = flow_of(net)
    figure = fn.plots.gradient_flow(flow)
    assert titles(figure) == ["Gradient through time", "Each step", "Gradient through depth", "Saturated"]
    (image,) = figure.axes[0].images
    logs = np.log10(np.where(np.tri(5) == 1, flow.through_time, 1))
    np.testing.assert_allclose(np.where(np.tri(5) == 1, image.get_array(), 0), logs, atol=1e-6)
    assert np.ma.getmaskarray(image.get_array())[0, 1], "no gradient goes back to a later step"
    (line, _) = next(ax for ax in figure.axes if ax.get_title() == "Each step").lines
    np.testing.assert_allclose(line.get_ydata(), flow.singular)
    bars = next(ax for ax in figure.axes if ax.get_title() == "Saturated")
    assert [label.get_text() for label in bars.get_yticklabels()] == ["0.gru/z", "0.gru/r", "0.gru/n"]
    figure.savefig(tmp_path / "flow.png")


def test_feed_forward_networks_show_depth_alone():
    net = fn.stack(fn.serial(fn.dense(3), fn.tanh()), 2)
    figure = fn.plots.gradient_flow(flow_of(net))
    assert titles(figure) == ["Gradient through depth", "Saturated"]
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [f"0.serial{child} [{i}]" for child in ("/0.dense", "/1.tanh", "") for i in range(2)]
    assert titles(fn.plots.gradient_flow(flow_of(fn.dense(3)))) == ["Gradient through depth"]


def test_a_picture_is_drawn_on_the_users_axes():
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert fn.plots.gradient_flow(flow_of(fn.elman(2)), ax) is figure
    assert ax.get_title() == "Gradient through time"


def test_a_trace_has_a_row_for_each_quantity(tmp_path):
    net = fn.serial(fn.lstm(2), fn.elman(2, time_major=False), fn.dense(1))
    trace = fn.trace_backward(net, net.init(jax.random.key(0), X), X, jnp.ones((2, 5, 1)))
    figure = fn.plots.trace(trace)
    assert titles(figure) == ["1.elman", "0.lstm"]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["dy", "dh", "dz", "dh_before"]
    (image,) = figure.axes[0].images
    sizes = jnp.sqrt(jnp.square(trace["1.elman"]["dz"]).mean((0, 2)))
    np.testing.assert_allclose(image.get_array()[2], np.log10(sizes), atol=1e-6)
    figure.savefig(tmp_path / "trace.png")
    with pytest.raises(ValueError, match=r"plots.trace: the trace must hold the steps of a recurrent layer"):
        fn.plots.trace({"dense": {"dy": X}})


def test_without_matplotlib_the_error_says_what_to_install():
    program = """
import sys
sys.modules["matplotlib"] = None
import fnnets as fn, jax.numpy as jnp
flow = fn.GradientFlow(None, None, {"dense": jnp.ones(())}, {})
try:
    fn.plots.gradient_flow(flow)
except ModuleNotFoundError as error:
    assert 'pip install "fnnets[examples]"' in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_histories_of_one_and_of_several_models_are_drawn(tmp_path):
    validation = {"loss": np.array([0.9, 0.6, 0.7]), "accuracy": np.array([0.7, 0.8, 0.8])}
    one = fn.train.History(np.ones((3, 4)), np.array([0.8, 0.5, 0.4]), validation)
    figure = fn.plots.plot_history(one)
    assert titles(figure) == ["Loss", "accuracy"]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), validation["loss"])
    assert figure.axes[0].get_yscale() == "log"
    several = jax.tree.map(lambda leaf: np.stack([leaf, leaf + 1]), one)
    lines = fn.plots.plot_history(several).axes[0].lines
    np.testing.assert_allclose(lines[2].get_ydata(), one.loss + 0.5)
    fn.plots.plot_history(several).savefig(tmp_path / "history.png")


def test_a_heat_map_shows_the_best_over_the_other_hyperparameters():
    axes = {"units": (4, 8), "rate": (0.1, 1.0), "depth": (1, 2), "seed": (0, 1)}
    losses = np.random.default_rng(0).random((2, 2, 2, 2))
    losses[0, 1] = np.nan
    swept = fn.train.Swept(axes, {"loss": losses}, None)
    for x, y in (("rate", "units"), ("units", "rate")):
        (image,) = fn.plots.heat_map(swept, x, y).axes[0].images
        expected = losses.mean(-1).min(-1)
        shown = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_allclose(shown, expected if x == "rate" else expected.T)
    larger = fn.plots.heat_map(swept, "rate", "depth", larger_is_better=True).axes[0].images[0]
    np.testing.assert_allclose(
        larger.get_array()[0], [losses.mean(-1)[:, 0, 0].max(), losses[1, 1, 0].mean()]
    )
    for wrong in (("rate", "rate"), ("rate", "seed"), ("rate", "units", "accuracy")):
        with pytest.raises(ValueError, match="must be one of"):
            fn.plots.heat_map(swept, *wrong)
