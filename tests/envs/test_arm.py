"""The mechanics of the arm against Lagrange's equations and MuJoCo, its worlds, and its controllers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import Arm
from metatower.envs.arm import GRAVITY, bias, drag, integrated, mass_matrix, target_at, tip
from metatower.envs.references.arm import computed_torque, nominal, proportional
from metatower.evaluation.trials import judge_trials
from metatower.learners.informed import Oracle

KEY = jax.random.key(0)
TASK = jax.jit(Arm("composition").sample_task)(jax.random.key(3))
ANGLE, SPEED = jnp.array([0.4, 1.1]), jnp.array([-1.3, 2.1])


def energies(task, angle, speed):
    """Kinetic and potential energy from the places of the masses: nothing that the environment has derived."""

    def places(angle):
        along = jnp.cumsum(angle)
        unit = jnp.stack([jnp.cos(along), jnp.sin(along)], -1)
        elbow = task.lengths[0] * unit[0]
        return jnp.stack([elbow / 2, elbow + task.lengths[1] / 2 * unit[1], elbow + task.lengths[1] * unit[1]])

    place, velocity = jax.jvp(places, (angle,), (speed,))
    masses = jnp.append(task.masses, task.payload)
    kinetic = 0.5 * jnp.sum(masses[:, None] * velocity**2) + 0.5 * jnp.sum(task.inertias * jnp.cumsum(speed) ** 2)
    return kinetic, GRAVITY * jnp.sin(task.tilt) * jnp.sum(masses * place[:, 1])


def test_the_mechanics_are_lagranges():
    def derived(angle, speed):
        lagrangian = lambda q, v: jnp.subtract(*energies(TASK, q, v))  # noqa: E731
        mass = jax.hessian(lagrangian, 1)(angle, speed)
        turning = jax.jacfwd(jax.grad(lagrangian, 1), 0)(angle, speed) @ speed
        return mass, turning - jax.grad(lagrangian, 0)(angle, speed)

    mass, rest = jax.jit(derived)(ANGLE, SPEED)
    np.testing.assert_allclose(mass_matrix(TASK, ANGLE), mass, rtol=1e-5)
    np.testing.assert_allclose(bias(TASK, ANGLE, SPEED), rest, rtol=1e-4)


def test_without_friction_energy_is_kept():
    task = dataclasses.replace(TASK, viscous=jnp.zeros(2), coulomb=jnp.zeros(2))

    @jax.jit
    def swing(angle, speed):
        def step(carry, _):
            return integrated(task, *carry, jnp.zeros(2), 1e-4), None

        return jax.lax.scan(step, (angle, speed), None, length=5000)[0]

    start = jnp.array([0.4, 1.1]), jnp.array([-1.3, 2.1])
    before, after = sum(energies(task, *start)), sum(energies(task, *swing(*start)))
    np.testing.assert_allclose(after, before, rtol=2e-3)


def test_friction_only_brakes_and_never_turns_round():
    strong = dataclasses.replace(TASK, coulomb=jnp.array([50.0, 50.0]), tilt=jnp.zeros(()))
    _, speed = integrated(strong, ANGLE, jnp.array([0.05, 0.05]), jnp.zeros(2), 0.005)
    assert (jnp.abs(speed) < 0.05).all()
    np.testing.assert_allclose(drag(strong, jnp.array([3.0, -3.0])), strong.viscous + 50 / 3, rtol=1e-5)


def test_the_acceleration_is_mujocos():
    mujoco = pytest.importorskip("mujoco", reason="needs MuJoCo: pip install 'metatower[mujoco]'")
    random = np.random.default_rng(0)
    tasks = jax.jit(jax.vmap(Arm("extrapolation").sample_task))(jax.random.split(KEY, 4))
    for i in range(4):
        with jax.enable_x64(True):
            task = jax.tree.map(lambda x, i=i: jnp.asarray(np.asarray(x)[i], jnp.float64), tasks)
            task = dataclasses.replace(task, coulomb=jnp.zeros(2))  # MuJoCo's dry friction is a constraint, ours smooth
            model = mujoco.MjModel.from_xml_string(xml(task))
            data = mujoco.MjData(model)
            angle, speed, torque = (jnp.asarray(random.normal(0, s, 2)) for s in (1.0, 3.0, 4.0))
            data.qpos[:], data.qvel[:], data.qfrc_applied[:] = angle, speed, torque
            mujoco.mj_forward(model, data)
            forces = torque - bias(task, angle, speed) - drag(task, speed) * speed
            ours = jnp.linalg.solve(mass_matrix(task, angle), forces)
            np.testing.assert_allclose(ours, data.qacc, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(tip(task, angle), data.site("tip").xpos[:2], atol=1e-6)


def xml(task) -> str:
    """The same arm for MuJoCo: hinges about z, masses half way along the links, a payload at the tip."""
    (l1, l2), (m1, m2), (i1, i2) = task.lengths, task.masses, task.inertias

    def link(mass, inertia, length):
        # a body that turns about z only: the other moments of inertia play no part
        whole = f"{inertia} {inertia} {inertia}"
        return f'<inertial pos="{length / 2} 0 0" mass="{mass}" diaginertia="{whole}"/>'

    point = f'mass="{task.payload}" diaginertia="1e-12 1e-12 1e-12"'
    return f"""<mujoco><compiler angle="radian" balanceinertia="false" boundmass="0"/>
      <option gravity="0 {-GRAVITY * np.sin(task.tilt)} 0" timestep="0.001"/>
      <worldbody><body><joint name="shoulder" axis="0 0 1" damping="{task.viscous[0]}"/>{link(m1, i1, l1)}
        <body pos="{l1} 0 0"><joint name="elbow" axis="0 0 1" damping="{task.viscous[1]}"/>{link(m2, i2, l2)}
          <site name="tip" pos="{l2} 0 0"/>
          <body pos="{l2} 0 0"><inertial pos="0 0 0" {point}/></body>
        </body></body></worldbody></mujoco>"""


@functools.cache
def tasks(split):
    return jax.jit(jax.vmap(Arm(split).sample_task))(jax.random.split(KEY, 2000))


def within(x, *bands):
    return np.any([(low <= np.asarray(x)) & (np.asarray(x) <= high) for low, high in bands], axis=0)


def test_no_world_of_another_split_is_met_in_training():
    here, broken = tasks("training"), (tasks("training").fault != 1).any(-1)
    np.testing.assert_allclose(broken.mean(), 0.5, atol=0.04)
    assert within(here.payload[~broken], (0, 0.4), (0.6, 1.0)).all()
    assert within(here.payload[broken], (0, 0.15), (0.25, 0.4)).all()
    assert (here.viscous <= 0.4).all()
    assert within(tasks("interpolation").payload, (0.4, 0.6), (0.15, 0.25)).all()
    far = tasks("extrapolation")
    assert (far.viscous >= 0.4).all()
    assert (far.coulomb >= 0.3).all()
    assert within(far.payload[(far.fault == 1).all(-1)], (1.0, 1.5)).all()
    both = tasks("composition")
    assert (both.fault != 1).any(-1).all()
    assert within(both.payload, (0.6, 1.0)).all()


def test_hidden_numbers_stay_in_their_ranges():
    here = tasks("training")
    assert within(here.lengths, (0.35, 0.65)).all()
    assert within(here.masses, (0.5, 2.0)).all()
    assert within(here.inertias / (here.masses * here.lengths**2 / 12), (0.4999, 2.0001)).all()
    assert within(here.gain, (0.6, 1.2)).all()
    assert set(np.unique(here.fault).round(3)) == {-1.0, np.float32(0.4).round(3), 1.0}
    assert ((here.fault != 1).sum(-1) <= 1).all()
    place = jax.vmap(lambda task: target_at(task, jnp.array(7))[0])(here)
    assert within(jnp.hypot(*place.T), (0.34, 0.64)).all()  # where every arm can reach


def test_the_target_moves_as_its_velocity_says():
    place, velocity = target_at(TASK, jnp.array(10.0))
    ahead, _ = target_at(TASK, jnp.array(10.01))
    np.testing.assert_allclose((ahead - place) / 2e-4, velocity, rtol=0.02, atol=2e-3)


def test_gain_and_fault_are_of_the_torque_from_the_onset_on():
    clean = dataclasses.replace(TASK, fault=jnp.ones(2), gain=jnp.ones(2))
    weak = dataclasses.replace(clean, fault=jnp.array([-1.0, 1.0]), gain=jnp.array([0.5, 1.0]))
    action = jnp.array([0.4, -0.2])

    def after(task, action, environment, steps=1):
        state, _ = environment.reset(KEY, task)
        for _ in range(steps):
            state, step = environment.step(KEY, state, action, task)
        return step.observation

    now, later = Arm(), Arm(onset=1)
    np.testing.assert_allclose(after(weak, action, now), after(clean, action * jnp.array([-0.5, 1.0]), now), rtol=1e-5)
    np.testing.assert_allclose(after(weak, action, later), after(clean, action * jnp.array([0.5, 1.0]), now), rtol=1e-5)
    assert jnp.any(after(weak, action, later, 2) != after(clean, action * jnp.array([0.5, 1.0]), now, 2))
    np.testing.assert_allclose(after(clean, jnp.array([5.0, 0.0]), now), after(clean, jnp.array([1.0, 0.0]), now))


def test_who_knows_the_mechanics_follows_the_target_and_who_trusts_the_data_sheet_does_not():
    def returns(policy, plan=None):
        return judge_trials(Oracle(2, policy, plan), Arm(), episodes=1, trials=200, seed=0)["return"]

    oracle, sheet, spring = returns(computed_torque), returns(computed_torque, known), returns(proportional, known)
    assert oracle.mean() > -1.3  # 1 cm on average, the way to the target included
    assert (oracle > sheet).mean() > 0.9
    assert sheet.mean() < -10
    assert spring.mean() < -10


def known(task):
    return nominal()


def test_arms_that_cannot_be():
    with pytest.raises(ValueError, match="a split among training, interpolation"):
        Arm("test")
    with pytest.raises(ValueError, match="a kind of fault"):
        Arm(faults=())
