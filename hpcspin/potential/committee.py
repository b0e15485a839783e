"""Committees: force fields of one architecture whose disagreement estimates their error.

Members differ in the seed of their initial weights and in the order of their batches. They agree where the training
data determine the field, and disagree where the data contain nothing similar.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpcspin.errors import HpcspinError
from hpcspin.lattice import perpendicular
from hpcspin.potential.equations import Prediction
from hpcspin.potential.files import load_model
from hpcspin.potential.model import ForceField, Part
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.prediction import Predictor
from hpcspin.potential.window import Block
from hpcspin.storage import (
    Electrons,
    describe_differences,
    kinds_of_learned,
    sha256,
    stored_electrons,
    unseen_differences,
)

MEMBER = "member-{:02d}"
"""Directory of a member within the directory of its committee."""
SHIPPED = Path(__file__).parent.parent / "models"
"""Directory of the models that are shipped with the program."""


class Committee(Predictor):
    """The mean of several force fields, used like a single one.

    Parameters
    ----------
    members
        At least two, all of the same architecture.

    Raises
    ------
    HpcspinError
        If there are fewer, or their architectures differ.
    """

    def __init__(self, members: Sequence[ForceField]) -> None:
        if len(members) < 2:
            raise HpcspinError("a committee needs at least two force fields; give one model as a .safetensors file")
        super().__init__(members[0].architecture)
        self.reaches = members[0].reaches
        first = members[0].architecture.as_dict()
        for number, member in enumerate(members):
            differing = [key for key, value in member.architecture.as_dict().items() if value != first.get(key)]
            if differing:
                raise HpcspinError(
                    f"member {number} of the committee differs from the first in {', '.join(differing)}; "
                    "train all members with one config"
                )
        self.members, self._forces = nn.ModuleList(members), [*members]

    def __repr__(self) -> str:
        return f"<committee of {len(self._forces)}: {self._forces[0]!r}>"

    @property
    def energy_of_a_site(self) -> float | None:
        """Mean over the members; see `Predictor`."""
        energies = [member.energy_of_a_site for member in self._forces]
        stated = [energy for energy in energies if energy is not None]
        return sum(stated) / len(stated) if len(stated) == len(energies) else None

    def window(self, block: Block) -> Neighbourhood:
        """See `ForceField`."""
        return self._forces[0].window(block)

    def forward(
        self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor, interior: Sequence[Sequence[Any]] = ()
    ) -> Prediction:
        """Mean over the members, which exchange border terms one after the other; see `ForceField.forward`."""
        parts = interior or [()] * len(self._forces)
        predictions = [m(spins, neighbourhood, bias, part) for m, part in zip(self._forces, parts, strict=True)]
        # Added one after the other, so that a site's sum does not depend on the shape of its block.
        return Prediction(*(sum(parts[1:], parts[0]) / len(parts) for parts in zip(*predictions, strict=True)))

    def terms(self, spins: Tensor, neighbourhood: Neighbourhood) -> tuple[Tensor, Sequence[Sequence[Any]]]:
        """Mean over the members, and the forward pass of each; see `Predictor`."""
        parts, forward_pass = zip(*(member.terms(spins, neighbourhood) for member in self._forces), strict=True)
        return sum(parts[1:], parts[0]) / len(parts), forward_pass

    def interior(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> list[list[Part]]:
        """See `ForceField.interior`; one list for each member."""
        return [member.interior(spins, neighbourhood, bias) for member in self._forces]

    def spread(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """Disagreement: standard deviation over the members of a perpendicular component, in t, (batch, outputs)."""
        fields = torch.stack([member(spins, neighbourhood, bias).field for member in self._forces])
        deviations = fields - fields.mean(0)
        placed = self._forces[0].placed(spins, neighbourhood, bias)
        axes = placed[:, neighbourhood.outputs_of(1, spins.device)[0]].to(fields.dtype)
        deviations = perpendicular(axes, deviations)
        # The square is a sum over two perpendicular components.
        return (deviations.square().sum((0, -1)) / (2 * (len(fields) - 1))).sqrt()

    @property
    def has_envelope(self) -> bool:
        """Whether all members have stored the range of their training data."""
        return all(member.envelope is not None for member in self._forces)

    def outside(self, spins: Tensor, neighbourhood: Neighbourhood, bias: Tensor) -> Tensor:
        """Mean over the members, each judged by its own features; see `ForceField.outside`."""
        return torch.stack([member.outside(spins, neighbourhood, bias) for member in self._forces]).mean(0)


def model_files(path: str | Path) -> list[Path]:
    """Weight files of a model: one file, or one for each member of a committee.

    ``path`` is the name of a shipped model, a ``.safetensors`` file, or a directory with ``model.safetensors`` or with
    the ``member-NN/model.safetensors`` of a committee. Raises HpcspinError if there is no such model, or a directory
    holds neither a model nor two finished members, or both.
    """
    path = Path(path)
    if not path.exists() and path.name in shipped_models() and path == Path(path.name):
        return [SHIPPED / f"{path}.safetensors"]
    if not path.exists() and not path.suffix:
        names = ", ".join(shipped_models())
        raise HpcspinError(f"{path}: no such model; give a .safetensors file, a directory with one, or one of {names}")
    if not path.is_dir():
        return [path]
    one, members = path / "model.safetensors", sorted(path.glob("member-[0-9][0-9]"))
    if one.exists() and members:
        raise HpcspinError(
            f"{path}: holds the members of a committee and {one.name} from another training; give {one}, or move it "
            "away"
        )
    if one.exists():
        return [one]
    files = [member / one.name for member in members]
    if len(files) < 2 or not all(map(Path.exists, files)):
        shipped = str(path) in shipped_models()
        hidden = f", or rename {path}, which hides the shipped model of this name" if shipped else ""
        raise HpcspinError(
            f"{path}: holds neither model.safetensors nor the finished member-NN/model.safetensors of a committee; "
            f"give what `hpcspin train` has finished{hidden}"
        )
    return files


def model_file(path: str | Path) -> Path:
    """Weight file of a model that is not a committee; raises HpcspinError as `model_files`, and if it is one."""
    first, *others = model_files(path)
    if others:
        raise HpcspinError(f"{path}: is a committee, and one model is asked for; give one of its members, {first}")
    return first


def shipped_models() -> list[str]:
    """Names of the models that are shipped with the program."""
    return sorted(file.stem for file in SHIPPED.glob("*.safetensors"))


def weights_digest(path: str | Path) -> str:
    """SHA-256 of the weight file of a model, as in its card; for a committee, SHA-256 of its members' digests."""
    return sha256(*model_files(path))


def load_force(path: str | Path, precision: str | None = None) -> ForceField | Committee:
    """Load a shipped or saved force field, or the result of `hpcspin train` in a directory.

    Parameters
    ----------
    path
        See `model_files`.
    precision
        ``"float32"`` or ``"float64"``, the precision of its arithmetic; None for the precision of its training.

    Returns
    -------
    ForceField or Committee
        In evaluation mode, with its card. The card of a committee is that of its first member, with the cards of all
        members as ``members`` and the ``electrons`` of all of them.

    Raises
    ------
    HpcspinError
        If a file is unreadable, the directory holds neither a model nor two members, the members were trained on
        labels of different electrons, or the precision is unknown.
    """
    files = model_files(path)
    members, cards = zip(*(load_model(file, precision) for file in files), strict=True)
    if len(members) == 1:
        members[0].card = cards[0]
        return members[0]
    committee = Committee(members).eval()
    committee.card = {**cards[0], "members": list(cards), "electrons": _common_electrons(files, cards)}
    return committee


def _common_electrons(files: Sequence[Path], cards: Sequence[dict[str, Any]]) -> list[Electrons] | None:
    """Electrons on whose labels the members were trained; None if the card of a member does not state them."""
    stated = [stored_electrons(card.get("electrons"), str(file)) for file, card in zip(files, cards, strict=True)]
    drive = cards[0]["architecture"].get("drive", "bias")
    learned = [electrons for member in stated for electrons in member or []]
    for file, member in zip(files, stated, strict=True):
        for electrons in member or []:
            first = next(filter(None, stated))
            if differences := unseen_differences(first, electrons, drive, joined=True):
                raise HpcspinError(
                    f"{file}: has learned from labels of other electrons than the members before it: "
                    f"{describe_differences(differences)}; train all members on the same labels"
                )
    return None if None in stated else kinds_of_learned(learned, drive)
