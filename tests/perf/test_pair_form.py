"""What the study of the pair's form measures: nothing for a pair, all of a field that is none."""

from types import SimpleNamespace

import numpy as np
import pytest

SIZE = (4, 3)


def solver_of(field):
    """A solver of a field given as a function of spins."""
    return SimpleNamespace(solve=lambda spins: SimpleNamespace(field=field(spins)))


def spins_of(rng: np.random.Generator) -> np.ndarray:
    """Random unit spins."""
    spins = rng.normal(size=(*SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def symmetric(rng: np.random.Generator) -> np.ndarray:
    """A random symmetric matrix on all components of all spins."""
    matrix = rng.normal(size=(36, 36))
    return matrix + matrix.T


def test_a_pair_of_potentials_has_nothing_beyond_it(study) -> None:
    """E and G of second order: the antisymmetric part of the Jacobian is there, its part beyond a pair is not."""
    rng = np.random.default_rng(5)
    of_e, of_g = symmetric(rng), symmetric(rng)

    def field(spins: np.ndarray) -> np.ndarray:
        flat = spins.reshape(-1)
        return -(of_e @ flat).reshape(spins.shape) - np.cross(spins, (of_g @ flat).reshape(spins.shape))

    found = study["measure"](solver_of(field), spins_of(rng), 4, step=1e-3)
    assert found["antisymmetric"]["mean"] > 1
    assert found["share"] < 1e-9


def test_the_part_beyond_a_pair_is_that_of_the_whole_jacobian(study) -> None:
    """A field that is linear in the spins, by any matrix: the estimate is the squared norm of A + IAI, halved."""
    rng = np.random.default_rng(6)
    matrix, spins = rng.normal(size=(36, 36)), spins_of(rng)
    frames = study["tangents"](spins).reshape(12, 2, 3)
    jacobian = np.einsum("iax,ixjy,jby->iajb", frames, matrix.reshape(12, 3, 12, 3), frames).reshape(24, 24)
    quarter = np.kron(np.eye(12), [[0.0, -1.0], [1.0, 0.0]])
    part = (jacobian - jacobian.T) / 2
    beyond = (part + quarter @ part @ quarter) / 2

    def field(spins: np.ndarray) -> np.ndarray:
        return (matrix @ spins.reshape(-1)).reshape(spins.shape)

    found = study["measure"](solver_of(field), spins, 40)
    for name, exact in (("antisymmetric", part), ("beyond_pair", beyond)):
        assert found[name]["mean"] == pytest.approx(np.sum(exact**2) / 12, abs=4 * found[name]["error"])
        assert found[name]["error"] < 0.1 * found[name]["mean"]
