"""How much of a driven field no pair of potentials can be, whatever its reach: a part of its Jacobian.

    python perf/study.py pair_form CONFIG LABELS:FRAME ... [--probes 4] [--output perf/results/pair_form.json]
        [KEY=VALUE ...]

Let K be the tangent Jacobian of the field and I the quarter turn S × of every spin. A field -dE/dS has a
symmetric K, and -S × dG/dS has K = I B with a symmetric B. So a pair (E, G) gives any symmetric part of K, but
of its antisymmetric part A only what commutes with I, (A - I A I)/2. What is left, (A + I A I)/2, no pair has:
the forms w·Av - Iw·A(Iv) of it vanish for each. Mean squares over random tangent vectors v and w estimate the
squared norms of these parts, and of the Jacobian of the perpendicular field. Their ratio is the share of the
variance that no pair explains if spins move by small, independent angles. Errors are those of the mean over the
pairs of vectors.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import RESULTS, config_of

from hpcspin.analysis.series import Estimate
from hpcspin.assembly.system import build_solver, build_system
from hpcspin.electrons import Solver
from hpcspin.electrons.nonconservativity import tangents
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.storage import provenance, read_labels, write_json

Array = NDArray[np.float64]


def slope(solver: Solver[Any, Any], spins: Array, tangent: Array, step: float) -> Array:
    """Change of the field per angle along tangent vectors of all spins, by a central difference, shape (Lx, Ly, 3)."""
    turned = np.stack([spins + step * tangent, spins - step * tangent])
    turned /= np.linalg.norm(turned, axis=-1, keepdims=True)
    ahead, behind = (solver.solve(one[None]).field[0] for one in turned)
    return (ahead - behind) / (2 * step)


def measure(solver: Solver[Any, Any], spins: Array, probes: int, seed: int = 1, step: float = 1e-2) -> dict[str, Any]:
    """Mean squares of parts of K v a site, for random tangent vectors v of two signs a site: see the script.

    Returns
    -------
    dict
        Estimates: ``perpendicular`` (of the field H - S (S·H)), ``antisymmetric``, ``beyond_pair``; and
        ``share``, the last over the first.
    """
    sites, frames = spins[..., 0].size, tangents(spins)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (probes, *spins.shape[:-1], 2))
    straight = np.einsum("kxya,xyac->kxyc", signs, frames)
    vectors = np.concatenate([straight, np.cross(spins, straight)])
    along = np.sum(solver.solve(spins[None]).field[0] * spins, axis=-1, keepdims=True)
    changes = []
    with progress(World(), "pair_form", len(vectors)) as bar:
        for vector in vectors:
            change = slope(solver, spins, vector, step)
            changes.append(change - spins * np.sum(change * spins, axis=-1, keepdims=True))
            bar.advance()
    products = np.einsum("wxyc,vxyc->wv", vectors, changes)
    forms = ((products - products.T) / 2).reshape(2, probes, 2, probes)
    later, earlier = np.tril_indices(probes, -1)
    both = (((0, 0), (1, 1), -1), ((0, 1), (1, 0), 1))
    # I is there as (v, Iv) -> (Iv, -v): Iw·A(Iv), and with Iv for v, -Iw·Av.
    beyond = [(forms[a, later, b, earlier] + sign * forms[c, later, d, earlier]) / 2 for (a, b), (c, d), sign in both]
    whole = [forms[0, later, part, earlier] for part in (0, 1)]
    perpendicular = [np.sum((change - along * vector) ** 2) for change, vector in zip(changes, vectors, strict=True)]
    found = {
        name: Estimate.of((np.ravel(values) / sites).tolist())
        for name, values in (
            ("perpendicular", perpendicular), ("antisymmetric", np.square(whole)), ("beyond_pair", np.square(beyond))
        )
    }  # fmt: skip
    estimates: dict[str, Any] = {name: dataclasses.asdict(one) for name, one in found.items()}
    return {**estimates, "share": found["beyond_pair"].mean / found["perpendicular"].mean}


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("frames", nargs="+", help="FILE:NUMBER of labelled spins, and keys of the config as KEY=VALUE")
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--output", type=Path, default=RESULTS / "pair_form.json")
    arguments = parser.parse_args()
    overrides = [given for given in arguments.frames if "=" in given]
    rows = {}
    for given in (given for given in arguments.frames if "=" not in given):
        path, _, number = given.rpartition(":")
        config = config_of(arguments.config, Path(path), overrides)
        solver = build_solver(config, build_system(config), World())
        spins = read_labels(path, config.lattice.size).spins[int(number)]
        rows[f"{Path(path).stem}:{number}"] = measure(solver, spins, arguments.probes)
        print(given, rows[f"{Path(path).stem}:{number}"], flush=True)
    write_json(
        arguments.output,
        {"provenance": provenance(), "probes": arguments.probes, "overrides": overrides, "frames": rows},
    )


if __name__ == "__main__":
    main()
