"""Minimum-energy paths between two states of the spins: geodesic nudged elastic bands with a climbing image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from hpcspin.analysis.minimise import Array, descend
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Results, perpendicular

Evaluate = Callable[[Array], tuple[Array, Array]]
"""Function from images of shape (m, Lx, Ly, 3) to their energies, shape (m,), and fields -dE/dS_i, of their shape."""
_EARLY = 20.0
"""Residual force, in units of the tolerance, at which the highest image begins to climb."""
_SAME = 1e-2
"""Angle between the spins of two states, in radians, below which they count as one minimum found twice."""


@dataclass(frozen=True, repr=False)
class Band(Results):
    """A band of images between two states, the first and the last one."""

    spins: Array
    """Images, shape (m, Lx, Ly, 3)."""
    energy: Array
    """Energy of each image, shape (m,)."""
    distance: Array
    """Distance of each image from the first one along the band in radians."""
    force: Array
    """Largest residual force on a spin of each image: the force perpendicular to the band, for the climbing image the
    whole force; 0 at both ends."""
    spring: float
    """Spring constant between images."""
    step: float
    """Length of the next step."""
    climbs: bool
    """Whether the highest image climbs to the saddle."""
    evaluations: int
    """Evaluations of an image's field."""

    @property
    def top(self) -> int:
        """Number of the highest image between the ends."""
        return 1 + int(np.argmax(self.energy[1:-1]))

    @property
    def barrier(self) -> float:
        """Energy of the highest state above the first one; 0 where the energy falls from there on."""
        return float(self.energy.max() - self.energy[0])

    @property
    def barrier_back(self) -> float:
        """Energy of the highest state above the last one."""
        return float(self.energy.max() - self.energy[-1])

    @property
    def has_saddle(self) -> bool:
        """Whether the highest image between the ends is above both; else the higher end need not be a minimum."""
        return bool(self.energy[self.top] > self.energy[[0, -1]].max())


def angles(first: Array, second: Array) -> Array:
    """Angles between unit vectors, accurate near 0 and pi too; shape (..., 3) to (...)."""
    sine = np.linalg.norm(np.cross(first, second), axis=-1)
    return np.asarray(np.arctan2(sine, (first * second).sum(axis=-1)))


def require_path(first: Array, last: Array, images: int) -> None:
    """Refuse ends that are the same, and paths without an image between them."""
    if images < 3:
        raise HpcspinError("a path needs an image between its ends; give more images")
    if angles(first, last).max() < _SAME:
        raise HpcspinError("both ends of the path are the same spins; give two different states")


def geodesic(first: Array, last: Array, images: int, tilt: float = 0.0, seed: int = 0) -> Array:
    """Images at equal distances on the geodesic from one state to another, ends included, shape (images, Lx, Ly, 3).

    Each spin turns about the axis perpendicular to its two directions; where they are opposite, about the part of z
    perpendicular to them, or of x close to the z axis. Random vectors of the standard deviation ``tilt`` are added to
    spins between the ends that turn at all, so that the band can find paths of lower symmetry.
    """
    turn = angles(first, last)
    axis = np.cross(first, last)
    along_z = np.abs(first[..., 2:]) > 0.9
    opposite = perpendicular(first, np.where(along_z, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]))
    axis = np.where((np.pi - turn < 1e-6)[..., None], opposite, axis)
    axis /= np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-300)
    angle = np.linspace(0.0, 1.0, images)[:, None, None, None] * turn[..., None]
    spins = np.cos(angle) * first + np.sin(angle) * np.cross(axis, first)
    noise = tilt * np.random.default_rng(seed).standard_normal(spins.shape) * (turn > 0)[..., None]
    noise[[0, -1]] = 0.0
    spins = (spins + noise) / np.linalg.norm(spins + noise, axis=-1, keepdims=True)
    spins[0], spins[-1] = first, last
    return np.asarray(spins)


def relax(
    evaluate: Evaluate,
    images: Array,
    tolerance: float,
    *,
    spring: float = 0.0,
    step: float = 1.0,
    climbs: bool = False,
    evaluations: int = 0,
) -> Iterator[Band]:
    """Relax a band to the minimum-energy path, step by step; the last band has residual forces below a tolerance.

    The geodesic nudged elastic band of P. F. Bessarab, V. M. Uzdin and H. Jónsson, Comput. Phys. Commun. 196, 335
    (2015): forces perpendicular to the band and springs along it, on the spheres; then the highest image climbs along
    the band to the saddle. The steps are those of `descend`. The ends of the ``images``, as from `geodesic`, should be
    at rest. The other arguments are those of a band to continue from; this band and those after it are then repeated
    bit for bit. Without a spring constant, one is chosen for which the springs pull as strongly as the field.
    """
    require_path(images[0], images[-1], len(images))
    ends = evaluate(images[[0, -1]])[0]
    evaluations = max(evaluations - len(images), 0) + 2
    found: list[Band] = []

    def slope(inner: Array) -> Array:
        spins = np.concatenate([images[:1], inner, images[-1:]])
        energies, fields = evaluate(inner)
        energy, uphill = np.concatenate([ends[:1], energies, ends[1:]]), -perpendicular(inner, fields)
        gaps = np.sqrt((angles(spins[1:], spins[:-1]) ** 2).sum(axis=(1, 2)))
        pull = spring or float(_norm(uphill).max() / gaps.mean())
        tangent = _tangents(spins, energy)
        along = (uphill * tangent).sum(axis=(1, 2, 3), keepdims=True) * tangent
        result = uphill - along
        if climbs:
            result[np.argmax(energies)] -= along[np.argmax(energies)]
        force = np.zeros(len(spins))
        force[1:-1] = np.linalg.norm(result, axis=-1).max(axis=(1, 2))
        stretch = pull * (gaps[1:] - gaps[:-1])
        if climbs:
            stretch[np.argmax(energies)] = 0.0
        distance = np.concatenate([[0.0], np.cumsum(gaps)])
        found[:] = [Band(spins, energy, distance, force, pull, 0.0, climbs, 0)]
        return np.asarray(result - stretch[:, None, None, None] * tangent)

    while True:
        for point in descend(slope, images[1:-1], step):
            (band,) = found
            spring, images = band.spring, band.spins
            evaluations += len(images) - 2
            yield replace(band, step=point.step, evaluations=evaluations)
            if band.force.max() <= (tolerance if climbs else _EARLY * tolerance):
                break
        if climbs:
            return
        climbs, step = True, point.step


def _norm(vectors: Array) -> Array:
    return np.asarray(np.sqrt((vectors**2).sum(axis=(1, 2, 3))))


def _tangents(spins: Array, energy: Array) -> Array:
    """Unit tangents of the band at its inner images, towards the higher neighbour (Henkelman and Jónsson 2000)."""
    ahead, behind = spins[2:] - spins[1:-1], spins[1:-1] - spins[:-2]
    up, down = energy[2:] - energy[1:-1], energy[1:-1] - energy[:-2]
    larger, smaller = np.maximum(abs(up), abs(down)), np.minimum(abs(up), abs(down))
    rising = energy[2:] > energy[:-2]
    at_extremum = up * down <= 0
    weight_ahead = np.where(at_extremum, np.where(rising, larger, smaller), np.where(up > 0, 1.0, 0.0))
    weight_behind = np.where(at_extremum, np.where(rising, smaller, larger), np.where(up > 0, 0.0, 1.0))
    tangent = perpendicular(spins[1:-1], _per_image(weight_ahead) * ahead + _per_image(weight_behind) * behind)
    return np.asarray(tangent / np.maximum(_per_image(_norm(tangent)), 1e-300))


def _per_image(values: Array) -> Array:
    return values[:, None, None, None]
