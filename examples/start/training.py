"""A network trained by hand, and by `fn.train.fit`: `python examples/start/training.py`."""

import jax
import optax

import fnnets as fn

x = jax.random.normal(jax.random.key(0), (300, 2))
target = (x[:, 0] * x[:, 1] > 0).astype(int)  # XOR of the signs
net = fn.serial(fn.dense(16), fn.tanh(), fn.dense(2))
loss, updater = fn.losses.softmax_cross_entropy(), optax.adam(0.02)

# Your own training step: the gradient by hand, then any optax updater.
value_and_grad = fn.value_and_grad_by_hand(net, loss)


@jax.jit
def step(params, state):
    (value, _), grads = value_and_grad(params, x, target)
    updates, state = updater.update(grads, state)
    return optax.apply_updates(params, updates), state, value


params = net.init(jax.random.key(1), x)
state = updater.init(params)
for _ in range(200):
    params, state, value = step(params, state)
print(f"loss after 200 steps: {value:.3f}")

# The same with batches, a validation set and early stopping. The test set below is new: no choice depends on it.
split = fn.data.holdout(jax.random.key(2), 300, labels=target)
fitted = fn.train.fit(
    net,
    loss,
    updater,
    fn.data.take((x, target), split.train),
    epochs=60,
    key=jax.random.key(3),
    validation=fn.data.take((x, target), split.test),
    metrics={"accuracy": fn.train.accuracy},
    early_stopping=fn.train.early_stopping(20),
)
print(
    f"epochs: {len(fitted.history.loss)}, validation accuracy: {fitted.history.validation['accuracy'].max():.1%}"
)
new = jax.random.normal(jax.random.key(4), (1000, 2))
test = fn.train.evaluate(
    net,
    loss,
    fitted.params,
    (new, (new[:, 0] * new[:, 1] > 0).astype(int)),
    metrics={"accuracy": fn.train.accuracy},
)
print(f"test accuracy: {test['accuracy']:.1%}")
