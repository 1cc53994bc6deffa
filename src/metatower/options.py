"""What the commands take, and what their help says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

Progress = Literal["auto", "rich", "plain", "silent"]

OVERVIEW = """\
usage: metatower COMMAND ...

Learning to learn, and learning how to learn to learn.

commands:
  train [RECIPE]   run a recipe: train, judge beside baselines, report
  resume DIR       continue a run that was stopped or killed
  evaluate DIR     judge a trained learner, on other data too
  adapt            learn classes from a few of your own pictures, name others
  diagnose DIR     does it learn to learn? steps, shots, memory, features, calibration
  health DIR       is the gradient of its top storey worth following? noise, chaos, other estimators
  report DIR       draw the plots and the page of a run again
  plan RECIPE      what a recipe costs: FLOPs, memory, compile time; nothing is run
  list             the recipes
  compare WHAT     ways to learn how to learn, beside their baselines at equal compute

examples:
  metatower train                          the main job, into runs/
  metatower train maml-sinusoid --seed 1   another recipe
  metatower evaluate runs/maml-sinusoid-0  the learner of that run, on fresh tasks
  metatower adapt --support known --predict new
  metatower COMMAND --help                 more on one command

A run is stopped with Ctrl-C and continued with `metatower resume DIR`, to the same result.
"""

TRAIN = """\
The run's folder gets config.json, metrics.jsonl, checkpoints, model/, summary.json, plots/ and report.html.

examples:
  metatower train {0}
  metatower train {0} --seed 1 --steps 500 --out runs/try
  metatower train {0} --processes 2

The recipe comes first; `metatower list` shows them all.
"""

PLAN = """\
What the recipe {0} costs, storey by storey, before anything is run.

FLOPs are counted, and memory is XLA's own figure; the programs are compiled, which at storey 2 takes a while.

examples:
  metatower plan {0}
  metatower plan {0} --steps 500
  metatower plan {0} --memory 2GB
"""


@dataclass(frozen=True, kw_only=True)
class Running:
    """What every command that runs a recipe takes."""

    checkpoint_every: float = 30.0
    """Seconds between checkpoints: at most so much work is lost when a run is killed."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""
    devices: int | None = None
    """Processor cores (or GPUs) of this machine that share the work of a step; 1 for none of it. All if not given."""
    processes: int | None = None
    """Processes that share the work: as many are started here, each with its part of the cores."""
    coordinator: str | None = None
    """On a cluster, where every process is started by you or by your launcher: `slurm`, `ompi`, or the HOST:PORT where
    the first process listens, the same for all; then --processes and --process too."""
    process: int | None = None
    """Which of the processes this is, from 0; with --coordinator HOST:PORT."""


@dataclass(frozen=True, kw_only=True)
class Training(Running):
    """A subclass is made for every recipe, with its options."""

    out: Path | None = None
    """The run's folder, to be made; runs/RECIPE-SEED if not given."""


@dataclass(frozen=True)
class Resume(Running):
    """Continue a run that was stopped or killed, to the same bits as if it had not been.

    examples:
      metatower resume runs/maml-sinusoid-0
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder."""


@dataclass(frozen=True)
class Evaluate:
    """Judge the trained learner of a run on fresh tasks.

    --tasks says on what. The images of `omniglot` and of your own folder are resized to what the model takes:
      held-out            what the recipe keeps back (the default)
      glyphs              letters of scripts that no recipe trains on
      omniglot            Omniglot's evaluation alphabets, or the test characters of the split that it was trained on;
                          omniglot.npz is looked for in METATOWER_DATA
      omniglot-one-shot   20 characters of one alphabet, drawn by one person, told apart in the drawings of another
      folder:PATH         your images, one sub-folder per class
      sinusoids           sine waves, for models of functions
      glyph-families      distributions of glyph tasks: a model that learns how to learn is run anew on each
      function-families   the same with distributions of functions (or `functions`)

    A model of storey 1 (an optimised MAML) is first run on one part of the classes, then judged on the others.

    examples:
      metatower evaluate runs/maml-glyphs-0 --tasks omniglot --episodes 1000
      metatower evaluate runs/maml-glyphs-0 --tasks folder:my/photos --shots 5
      metatower evaluate runs/optimised-maml-0 --tasks omniglot --json
      metatower evaluate rl2-bandit-10-5 --out judged       # a shipped agent; regret and entropy as plots
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder, a copy of its `model` folder, or the name of a model that comes with the package."""
    tasks: str = "held-out"
    """What to judge on; see above."""
    ways: int | None = None
    """Classes per task; as in training if not given, and at most that."""
    shots: int | None = None
    """Examples of each class to adapt to; as in training if not given."""
    queries: int | None = None
    """Examples of each class to be judged on; as in training, or as many as there are, if not given."""
    episodes: int | None = None
    """How many tasks (1000 if not given); whole runs (50) of a model of storey 1, trials (as many as its training was
    judged on) of an agent."""
    seed: int = 0
    """Chooses the tasks."""
    out: Path | None = None
    """A new folder for plots, and for every number behind them (`conclusion.json`)."""
    json: bool = False
    """Print JSON instead of a table."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""


@dataclass(frozen=True)
class Adapt:
    """Learn classes from a few of your own pictures, and say what others show.

    --support has one sub-folder per class, named after it, with one picture or more in each; numbers may differ.
    Pictures may be of any size, mode and format. Nothing is downloaded: the weights come with the package.

    The answers are printed with their probabilities, and written to --out with those of every class; beside it a
    picture sheet (.png) shows them. Doubtful ones, whose best class is not clearly ahead, are marked, and blank ones.

    examples:
      metatower adapt --support letters/known --predict letters/new
      metatower adapt --support known --predict a.png b.jpg --out answers.csv
      metatower adapt --support known --predict new --learner prototypical-glyphs
      metatower adapt --support known --predict new --learner runs/prototypical-0
    """

    support: Path
    """A folder with one sub-folder of pictures per class."""
    predict: tuple[Path, ...]
    """Pictures to name, or folders of them."""
    out: Path = Path("results.csv")
    """The table to write (.csv); the picture sheet gets the same name, with .png. Existing files are kept: choose
    another."""
    learner: str = "prototypical"
    """Who learns. Trained, and in the package: prototypical-omniglot (or prototypical), on handwritten characters;
    prototypical-glyphs, on printed letters. Plain, on pixels: nearest-centroid, nearest-neighbour,
    logistic-regression. Or the folder of a run."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""


@dataclass(frozen=True)
class Diagnose:
    """Does the trained learner of a run learn to learn? Looks at it from several sides, into diagnosis.json and
    report.html.

    For learners of classes (storey 0): accuracy against steps and shots; with shuffled labels (has it memorised the
    classes?); with only its last layer moving (does it reuse features?) and how alike each layer is before and after
    (CKA); calibration; the gap between training classes, held-out classes and other pictures; its learned rates.

    examples:
      metatower diagnose runs/maml-glyphs-0
      metatower diagnose runs/prototypical-0 --episodes 500
      metatower diagnose prototypical-omniglot --out diagnosis    # a model that comes with the package
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder, a copy of its `model` folder, or the name of a model that comes with the package."""
    episodes: int = 200
    """Tasks for each question."""
    seed: int = 0
    """Chooses the tasks."""
    out: Path | None = None
    """A new folder for diagnosis.json and diagnosis.html, which a model that is no run needs; into the run's folder if
    not given."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""


@dataclass(frozen=True)
class Health:
    """Is the gradient of a run's top storey worth following, and which estimator is best? Into health.json and
    report.html.

    For learners of storeys 1 and 2 that are lifted (MAML and its kin, prototypes, the meta-meta-learners). Several
    estimators on the same fresh tasks, where training set out from and at what it learned: how long their gradients
    are, how much signal is in their noise, whether they point the same way, and how chaotic the runs below are (the
    largest Lyapunov exponent). Says in a sentence what each number means, and which estimator they advise.

    An estimator is chosen in Python with `lift(..., gradient=...)`, and `Switching` changes it by itself. Nothing is
    trained; at storey 2 programs are compiled and whole runs repeated, which takes some minutes.

    examples:
      metatower health runs/maml-sinusoid-0
      metatower health runs/optimised-maml-0 --samples 32
      metatower health runs/maml-sinusoid-0 --out health    # leaves the run's folder as it is
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder."""
    samples: int = 16
    """Gradients of each estimator, each of a batch of fresh tasks as in training."""
    seed: int = 0
    """Chooses the tasks."""
    out: Path | None = None
    """A new folder for health.json and health.html; those of the run if not given."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""


@dataclass(frozen=True)
class Report:
    """Draw the plots and write the page of a finished run again; nothing is computed anew.

    examples:
      metatower report runs/maml-sinusoid-0
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder."""


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What a plan may be held to."""

    devices: int | None = None
    """Processor cores (or GPUs) that share the work of a step; all if not given."""

    memory: str | None = None
    """Memory for one step, such as 512MB or 2GB: also say the cheapest exact setting that fits."""


@dataclass(frozen=True)
class List:
    """The recipes, with what each does.

    examples:
      metatower list
    """


@dataclass(frozen=True)
class Compare:
    """Train every family of meta-meta-learning and all baselines at equal compute, and judge them on held-out
    distributions: one table, comparison.json, and comparison.html with curves.

    Every training had the same number of floating-point operations, chosen so that all is done within --budget on two
    idle cores. After Ctrl-C, a crash or a power cut the same command goes on where it was.

    --families takes `functions`, the function zoo of this library; `glyphs`, the pictures of letters of the main job,
    where accuracy decides; or a Python file of yours that defines

      def family(split: str) -> metatower.Tasks     for "train", "validation" and "test"

    whose tasks are pairs of distributions of tasks: `Task(support=Tasks, query=Tasks)`, one to learn from, one to be
    judged on. Tasks hold `Examples(x, y)`; for classification `Examples(x, y, ways=mask)`, with integer labels from 0
    and a boolean mask with one entry per class. The file may have `hidden = (40, 40)`, and `def objective(seed)` for a
    network of your own. It is run. examples/06_your_own_family.py is one.

    examples:
      metatower compare meta-meta --families functions
      metatower compare meta-meta --families glyphs --budget 60
      metatower compare meta-meta --quick
      metatower compare meta-meta --families my_family.py --budget 10 --seeds 0 1
      metatower compare meta-meta --only meta-optimisation --out runs/one
    """

    what: tyro.conf.Positional[Literal["meta-meta"]]
    """What is compared."""
    families: str = "functions"
    """`functions`, `glyphs`, or a Python file."""
    budget: float | None = None
    """Minutes for everything, on two idle cores; 25 if not given, 5 with --quick."""
    quick: bool = False
    """Short trainings, judged on fewer distributions."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds; the time is split between them."""
    only: tuple[str, ...] = ()
    """Families to take part, all if not given."""
    out: Path | None = None
    """The folder, to be made; runs/compare-FAMILIES if not given (runs/compare-FAMILIES-quick with --quick)."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""
