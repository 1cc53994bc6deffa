"""Features of one plainly trained network: what `benchmarks.leo_features` compares few-shot learners on.

A Conv-4 learns to tell the training classes of mini-ImageNet apart, 32 pixels a side, by ordinary mini-batches of
pictures that are mirrored, shifted and brightened at random. What it says before its head, brought to length 1, are
the features of a picture (Rusu et al. 2019, section 4.2.1, with a Conv-4 in place of the WRN-28-10). ImageNet's terms
allow research only: nothing that is made here may be shipped.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from metatower.core import Descend, Objective, Scored
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.learners.features import unit
from metatower.nets.conv import ConvNet
from metatower.nets.norm import Moments, with_norm, with_running
from metatower.nets.supervised import Examples, Supervised, cross_entropy
from metatower.rules import from_optax
from metatower.training import load_arrays, save_arrays, train
from metatower.training.progress import Progress

SPLITS = ("train", "val", "test")
SHIFT = 4
"""Pixels by which a picture is moved at most, each way."""
BATCH = 64
RATE, DECAY = 0.05, 5e-4
"""Of gradient descent with Nesterov's momentum of 0.9 (the usual ones, not tuned); the rate falls along a cosine."""
MEASURED_ON = 1280
"""Training pictures on which the statistics of the norms are measured, and pictures in a batch of features."""


def pictures(file: Path) -> dict[str, UInt8[np.ndarray, "classes pictures h w colour"]]:
    """The pictures of every split of `miniimagenet32.npz`.

    Raises:
        UserError: the file is not there, or is another one.
    """
    if not file.is_file():
        raise UserError(f"There is no file {file}. METATOWER_DATA names the folder with miniimagenet32.npz.")
    with np.load(file, allow_pickle=False) as content:
        if not {"images", "split"} <= set(content.files):
            raise UserError(f"{file} has {', '.join(content.files)}; expected `images` and `split`.")
        images, split = content["images"], content["split"].astype(str)
    missing = [name for name in SPLITS if not np.any(split == name)]
    if missing or images.ndim != 5:
        raise UserError(f"{file}: expected images [classes, pictures, h, w, 3] in splits {', '.join(SPLITS)}.")
    return {name: images[split == name] for name in SPLITS}


class Augmented(Objective):
    """A network on `BATCH` pictures that are drawn for every step, mirrored, shifted and brightened at random.

    Args:
        net: takes pictures as floats from 0 to 1.
    """

    net: ConvNet

    def loss(self, data: Examples, *, key: PRNGKeyArray) -> Scored:
        which, mirrored, *more = fork(key, 5)
        chosen = jax.random.randint(which, (BATCH,), 0, len(data.y))
        x = data.x[chosen].astype(jnp.float32) / 255
        x = jnp.where(jax.random.bernoulli(mirrored, 0.5, (BATCH, 1, 1, 1)), x[:, :, ::-1], x)
        x = shifted(x, jax.random.randint(more[0], (BATCH, 2), 0, 2 * SHIFT + 1))
        gain, offset = (jax.random.uniform(each, (BATCH, 1, 1, 3)) for each in more[1:])
        x = x * (0.8 + 0.4 * gain) + 0.2 * (offset - 0.5)
        return Supervised(self.net, cross_entropy).loss(Examples(x, data.y[chosen]), key=key)


def shifted(x: Float[Array, "n h w colour"], by: Int[Array, "n 2"]) -> Float[Array, "n h w colour"]:
    """Each picture moved by `SHIFT` − `by` pixels down and to the right; its edge is drawn out beyond it."""
    wide = jnp.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), x.shape[1:]))(wide, by)


def plain_network(
    images: UInt8[np.ndarray, "classes pictures h w colour"],
    *,
    steps: int,
    seed: int,
    channels: tuple[int, ...],
    folder: Path,
    show: Progress,
) -> ConvNet:
    """A network trained to tell these classes apart, with measured norms and without its head; resumes in `folder`."""
    classes, each, *shape = images.shape
    key, image = jax.random.key(seed), (shape[0], shape[1], shape[2])
    net = ConvNet(classes, key=key, image=image, channels=channels)
    rate = optax.cosine_decay_schedule(RATE, steps)
    rule = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(rate, momentum=0.9, nesterov=True))
    data = Examples(jnp.asarray(images.reshape(-1, *shape)), jnp.repeat(jnp.arange(classes), each))
    learner = Descend(Augmented(net), from_optax(rule), steps)
    how = {"steps": steps, "channels": list(channels), "rate": RATE, "decay": DECAY, "shift": SHIFT, "batch": BATCH}
    state = train(
        learner, data, steps=steps, seed=seed, folder=folder, config=how, title="plain network", show=show, devices=1
    )
    trained = learner.result(state).net
    return eqx.tree_at(lambda net: net.head, _measured(trained, data.x, seed), None)


def _measured(net: ConvNet, x: UInt8[Array, "n h w colour"], seed: int) -> ConvNet:
    chosen = jax.random.permutation(jax.random.key(seed), len(x))[:MEASURED_ON]
    _, moments = with_norm(net, "support").normalised(x[chosen].astype(jnp.float32) / 255)
    return with_running(net, [each for each in moments if isinstance(each, Moments)])


def features_of(
    net: ConvNet, images: UInt8[np.ndarray, "classes pictures h w colour"]
) -> Float[np.ndarray, "classes pictures feature"]:
    """What the network says of each picture, at length 1."""
    flat = images.reshape(-1, *images.shape[2:])
    say = eqx.filter_jit(lambda net, x: unit(net(x.astype(jnp.float32) / 255)))
    found = [np.asarray(say(net, flat[i : i + MEASURED_ON])) for i in range(0, len(flat), MEASURED_ON)]
    return np.concatenate(found).reshape(*images.shape[:2], -1)


def features(
    file: Path, *, steps: int, seed: int, channels: tuple[int, ...], folder: Path, show: Progress
) -> dict[str, Float[np.ndarray, "classes pictures feature"]]:
    """The features of every split; kept in `folder`, and made again only where they are of other settings."""
    images = pictures(file)
    how = {"steps": steps, "seed": seed, "channels": list(channels), "pictures": [len(images[s]) for s in SPLITS]}
    kept, each = folder / "features.safetensors", images["train"].shape[2:4]
    if kept.exists():
        size = int(np.prod([side // 2 ** len(channels) for side in each])) * channels[-1]
        like = {s: jax.ShapeDtypeStruct((*images[s].shape[:2], size), jnp.float32) for s in SPLITS}
        found, about = load_arrays(kept, like)
        if about.get("how") != how:
            raise UserError(f"{kept} holds features of other settings. Choose another --runs, or remove it.")
        return {s: np.asarray(found[s]) for s in SPLITS}
    net = plain_network(
        images["train"], steps=steps, seed=seed, channels=channels, folder=folder / "network", show=show
    )
    found = {s: features_of(net, images[s]) for s in SPLITS}
    save_arrays(kept, found, {"how": how})
    return found
