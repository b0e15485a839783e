"""``hpcspin VERB ...``: parses the command line and hands it to one workflow."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from hpcspin.cli_run import read_config, reported, run, show_mistake, write_logs
from hpcspin.parallel.launcher import launched_rank

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Spin dynamics driven by electrons out of equilibrium: exact, learned, distributed.",
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the system.")]
TrainingData = Annotated[
    list[Path], typer.Option("--data", help="Directory of label files (*.h5), all of it; may be repeated.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Changed keys, as dynamics.seed=7.")
]
Directory = Annotated[Path, typer.Option("--output", "-o", help="Directory of the results.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output, which is refused otherwise.")]

_GRACE_SECONDS = 1.0


def _uses(sections: str, *, stops: bool = False) -> str:
    """The last paragraph of a verb's help."""
    code = " Exit code 75: stopped with a checkpoint, as by SIGTERM or Ctrl-C; run it again to go on."
    return f"Sections of the config: {sections}.{code if stops else ''}"


def _show_version(asked: bool) -> None:
    if not asked:
        return
    if launched_rank() == 0:
        from hpcspin.storage.provenance import code_version

        typer.echo(f"hpcspin {code_version()}")
    raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; allowed anywhere on the line.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", metavar="MODULE", help="Module or file with names that a model or a directory uses."),
    ] = None,
) -> None:
    """Set the options of all verbs."""
    write_logs(debug=debug)
    if plugin:
        with reported():
            from hpcspin.registry import load_plugins

            load_plugins(plugin, Path())


@app.command()
def init(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file to write.")],
    job: Annotated[
        Literal["wall", "quench", "label", "train", "learn", "reproduce", "classical", "torque"],
        typer.Option("--job", help="wall: driven, exact field; quench: closed; classical: no electrons; or a verb."),
    ] = "wall",
    lattice: Annotated[Literal["square", "triangular"], typer.Option("--lattice", help="Kind of lattice.")] = "square",
) -> None:
    """Write a commented config that runs as it is; an existing file is never overwritten."""
    from hpcspin.workflows.init import write_config

    run(lambda world: write_config(config, lattice, job, world))


@app.command(epilog=_uses("lattice and electrons", stops=True))
def label(
    config: ConfigFile,
    spins: Annotated[
        Path,
        typer.Option("--spins", help="HDF5 with /spins (n, Lx, Ly, 3), OVF 2.0, .npy, or a simulation's directory."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label file to write.")],
    overrides: Overrides = None,
) -> None:
    """Exact fields, densities and currents of given spins."""
    from hpcspin.workflows.label import label_file

    run(lambda world: label_file(read_config(config, overrides), spins, output, world), stops=True)


@app.command(
    epilog=_uses("lattice, initial and dynamics, and electrons unless dynamics.field is classical", stops=True)
)
def simulate(config: ConfigFile, output: Directory, overrides: Overrides = None) -> None:
    """Landau-Lifshitz-Gilbert dynamics under any field; resumes if run again."""
    from hpcspin.workflows.simulate import simulate_directory

    run(lambda world: simulate_directory(read_config(config, overrides), output, world), stops=True)


@app.command(epilog=_uses("lattice, initial, dynamics and minimise, and electrons of the exact field", stops=True))
def minimise(config: ConfigFile, output: Directory, overrides: Overrides = None) -> None:
    """Spins at rest under a field that derives from an energy, and the torque that remains."""
    from hpcspin.workflows.minimise import minimise_directory

    run(lambda world: minimise_directory(read_config(config, overrides), output, world), stops=True)


@app.command(epilog=_uses("lattice, dynamics and path, and electrons of the exact field", stops=True))
def path(
    config: ConfigFile,
    first: Annotated[Path, typer.Option("--from", help="Spins at one end: of minimise, or any file of spins.")],
    last: Annotated[Path, typer.Option("--to", help="Spins at the other end.")],
    output: Directory,
    overrides: Overrides = None,
) -> None:
    """Minimum-energy path between two states at rest, and its barrier; the ranks share the images."""
    from hpcspin.workflows.path import path_directory

    run(lambda world: path_directory(read_config(config, overrides), first, last, output, world), stops=True)


@app.command(
    "suggest-step", epilog=_uses("lattice, initial and dynamics, and electrons unless dynamics.field is classical")
)
def suggest_step(
    config: ConfigFile,
    overrides: Overrides = None,
    evaluations: Annotated[int, typer.Option("--evaluations", min=3, help="Number of evaluations of the field.")] = 20,
) -> None:
    """Longest time step that each integrator tolerates at the initial spins."""
    from hpcspin.workflows.suggest_step import suggest_step

    run(lambda world: world.log_result(suggest_step(read_config(config, overrides), world, evaluations)))


@app.command(epilog=_uses("lattice, potential and training", stops=True))
def train(config: ConfigFile, data: TrainingData, output: Directory, overrides: Overrides = None) -> None:
    r"""Fit the force field to directories of label files; resumes if run again.

    A data directory holds label files, as `hpcspin label` writes them, one
    trajectory in each; its manifest.json, which lists them, is written if
    there is none.

    Files named in training.validation, as with training.validation=\[b.h5],
    are left out of the fit: they decide which epoch is saved, and measure its
    error. Without any the last weights are saved, with an unknown error.
    """
    from hpcspin.workflows.train import train_directory

    run(lambda world: train_directory(read_config(config, overrides), data, output, world), stops=True)


@app.command(epilog=_uses("those of the verb", stops=True))
def sweep(
    config: ConfigFile,
    output: Directory,
    vary: Annotated[list[str], typer.Option("--vary", metavar="KEY=V1,V2,...", help="Key, and its values.")],
    verb: Annotated[
        str, typer.Option("--run", metavar="VERB", help="simulate, train, label, evaluate, path ...")
    ] = "train",
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="To train, evaluate: label files; may be repeated.")
    ] = None,
    spins: Annotated[Path | None, typer.Option("--spins", help="To label: spins, or such a sweep's output.")] = None,
    first: Annotated[Path | None, typer.Option("--from", help="Of a path: spins at one end, or such a sweep.")] = None,
    last: Annotated[Path | None, typer.Option("--to", help="Of a path: spins at the other end, likewise.")] = None,
    chain: Annotated[
        str | None, typer.Option("--chain", metavar="KEY", help="Varied key along which runs continue each other.")
    ] = None,
    task: Annotated[str, typer.Option("--task", metavar="i/n", help="Run share i of n, for batch arrays.")] = "1/1",
    show: Annotated[
        list[str] | None,
        typer.Option("--show", metavar="QUANTITY", help="Quantity to plot, a column of sweep.csv; may be repeated."),
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Horizontal axis: a key, voltage or time.")] = None,
    overrides: Overrides = None,
) -> None:
    r"""Run a verb for every combination of some keys' values: one table, one figure; resumes if run again.

    Keys joined by commas change together, as in --vary
    dynamics.field,dynamics.exact_interval=\[corrected,6],\[learned,null].
    Curves are means over the seeds among the keys, with standard errors.
    """
    from hpcspin.workflows.sweep import Sweep, sweep_directory

    asked = Sweep(
        config, vary, output, overrides or (), verb, data or (), spins, first, last, chain, task, show or (), against
    )
    run(lambda world: sweep_directory(asked, world), stops=True)


@app.command()
def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Name of a shipped model, saved force field, or its directory.")
    ],
    data: Annotated[Path, typer.Option("--data", help="Label file, or directory of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file of the numbers.")],
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="KEY", help="Key of the electrons that may differ; may be repeated."),
    ] = None,
    force: Force = False,
) -> None:
    """Error of a force field on exact labels."""
    from hpcspin.workflows.evaluate import evaluate_files

    run(
        lambda world: world.log_result(json.dumps(evaluate_files(model, data, output, world, allow or (), force=force)))
    )


@app.command(epilog=_uses("lattice, electrons, initial, dynamics, potential, training and reproduce", stops=True))
def reproduce(config: ConfigFile, output: Directory, overrides: Overrides = None) -> None:
    """Run all stages (label, train, simulate both fields, compare); resumes if run again."""
    from hpcspin.workflows.reproduce import reproduce_directory

    run(lambda world: reproduce_directory(read_config(config, overrides), output, world), stops=True)


@app.command(epilog=_uses("lattice, electrons, dynamics, potential, training and learning", stops=True))
def learn(config: ConfigFile, output: Directory, overrides: Overrides = None) -> None:
    """Active learning: simulate under the learned field, label a few frames, train, repeat; resumes if run again."""
    from hpcspin.workflows.learn import learn_directory

    run(lambda world: learn_directory(read_config(config, overrides), output, world), stops=True)


@app.command(epilog=_uses("lattice, electrons and torque; of torque.switching also dynamics", stops=True))
def torque(config: ConfigFile, output: Directory, overrides: Overrides = None) -> None:
    """Torque of a polarised current against angle and voltage, exact beside learned; resumes if run again."""
    from hpcspin.workflows.torque import torque_directory

    run(lambda world: torque_directory(read_config(config, overrides), output, world), stops=True)


@app.command()
def report(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output of a verb: label, simulate, train, path, ...")
    ],
    driven_states: Annotated[
        int,
        typer.Option(
            "--driven-states",
            min=0,
            help="Measure how far this many states of a reproduction's test run are from any energy function.",
        ),
    ] = 0,
    watch: Annotated[
        int | None,
        typer.Option(
            "--watch",
            min=1,
            metavar="SECONDS",
            help="Write the page again at this interval until the running job ends.",
        ),
    ] = None,
) -> None:
    """Write DIR/report.html, a page about any output; of a reproduction also its figures and numbers again."""
    from hpcspin.workflows.report import report_directory

    run(lambda world: report_directory(directory, world, driven_states, watch))


@app.command()
def plot(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Simulation, trajectory or path.")],
    other: Annotated[Path | None, typer.Argument(metavar="DIR2", help="Another one, to be compared.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture to write, PNG, PDF or SVG by its ending.")
    ] = Path("plot.png"),
    force: Force = False,
) -> None:
    """Bonds, chirality, magnetisation, wall and currents against time; of two runs also the difference."""
    from hpcspin.workflows.plot import plot

    run(lambda world: plot([directory, *([other] if other else [])], output, world, force=force))


@app.command()
def draw(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Simulation, minimum, path, or a file of frames.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Film (.gif, or .mp4 with ffmpeg) or picture (.png, .pdf, .svg).")
    ],
    quantity: Annotated[
        Literal["bonds", "chirality", "sz", "density", "error"],
        typer.Option("--quantity", help="Quantity that the colour of each site shows."),
    ] = "bonds",
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of a film at most.")] = 200,
    force: Force = False,
) -> None:
    """Film of a simulation, or a picture of five frames; each site is drawn at its Cartesian place."""
    from hpcspin.workflows.draw import draw

    run(lambda world: draw(directory, quantity, output, frames, world, force=force))


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="DIR_OR_FILE", help="Simulation, or file of frames.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.xdmf, or directory of the OVF files.")],
    target: Annotated[
        Literal["ovf", "ovf-binary4", "ovf-text", "xdmf"],
        typer.Option("--format", help="OVF 2.0 (numbers of 8 or 4 bytes, or text) or XDMF."),
    ] = "xdmf",
    force: Force = False,
) -> None:
    """Trajectories for ParaView (XDMF), or for OOMMF, mumax3 and Ubermag (OVF)."""
    from hpcspin.workflows.export import export

    run(lambda world: export(source, target, output, world, force=force))


@app.command()
def analyse(
    source: Annotated[Path, typer.Argument(metavar="DIR_OR_FILE", help="Simulation, or its trajectory.")],
    quantity: Annotated[
        str, typer.Option("--quantity", help="structure_factor, dispersion, correlation or topological_charge.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 file of the arrays.")],
    force: Force = False,
) -> None:
    """Spectra, magnon dispersion, correlations or topological charge of a trajectory."""
    from hpcspin.workflows.analyse import analyse_trajectory

    run(lambda world: analyse_trajectory(source, quantity, output, world, force=force))


@app.command(epilog=_uses("lattice, and initial and dynamics or electrons"))
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results would go.")] = Path(),
) -> None:
    """Try some steps of a simulation, or one label: halo, ranks, memory, time per step, size of the output."""
    from hpcspin.workflows.check import check_config

    run(lambda world: check_config(read_config(config, overrides), output, world))


@app.command()
def schema() -> None:
    """Print the JSON schema of a config, by which editors complete and check its keys."""
    from hpcspin.config_schema import json_schema

    run(lambda world: world.log_result(json.dumps(json_schema(), indent=1)))


@app.command()
def info() -> None:
    """Versions, MPI library, devices and backends in use."""
    from hpcspin.workflows.info import aligned, describe

    run(lambda world: world.log_result(aligned(describe(world))))  # Collective: they agree on what MPI can do.


@app.command(epilog="Exit code 1: something that hpcspin needs does not work here.")
def doctor(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where results will be written.")] = Path(),
) -> None:
    """Test what hpcspin needs: ranks, GPUs, messages, disk, locks, kernels; includes the output of `info`."""
    from hpcspin.workflows.doctor import examine

    run(lambda world: examine(directory, world))


def main() -> None:
    """Run the command line; a mistake in it is one line, of rank 0 alone."""
    words = sorted(sys.argv[1:], key=lambda word: word != "--debug")  # An option of all verbs: it must come first.
    # Shells replace the ~ of a word that begins with it, but not that of --output=~/runs.
    words = [re.sub("^(--[^=]+=)~/", rf"\1{os.path.expanduser('~/')}", word) for word in words]
    try:
        code = app(words, standalone_mode=False)
    except Exception as failure:
        code = getattr(failure, "exit_code", None)
        if code is None:
            raise
        if launched_rank() == 0:
            show_mistake(failure)
        else:
            # The launcher may end all ranks as soon as one exits: let rank 0 print its message first.
            time.sleep(_GRACE_SECONDS)
    sys.exit(code)
