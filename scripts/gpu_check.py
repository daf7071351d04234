"""All that only a GPU can show, in one command: tests, benchmarks, a training, the inference of a whole CT.

    python scripts/gpu_check.py            # or: make gpu-check

It needs a Python with PyTorch that sees a CUDA device (and Triton, which comes with PyTorch's CUDA builds, for the
fused product), and nothing else. What else the parts import and this Python lacks is installed, as pinned in the
requirements files, into `.gpu_packages`, a folder that only this run sees: never PyTorch, and nothing of the system's
is changed. Without a network: `--wheels FOLDER` takes them from there (`pip download --no-deps` what
`--list-packages` prints).

Each part has a time limit and a result file of its own in `docs/results`; `gpu_check.json` there says what became of
each part, and is written after each. A part that fails costs no other one. The exit status is 0 only if all went well.
`--device cpu --quick` plays it with tiny sizes, which shows that all but the GPU works.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / ".gpu_packages"
SECONDS = 525.0  # for all: nine minutes, less what starting and writing take
_QUICK_SECONDS = 180.0  # for a part of tiny sizes, whatever else the machine does
TAIL = 3000  # characters of a part's output that are kept

# What the parts import, with what that imports: the module, and the packages that bring it. No torch among them.
NEEDED = {
    "einops": "einops",
    "filelock": "filelock",
    "ignite": "pytorch-ignite packaging",
    "jinja2": "jinja2 markupsafe",
    "matplotlib": "matplotlib contourpy cycler fonttools kiwisolver packaging pillow pyparsing python-dateutil six",
    "monai": "monai",
    "nibabel": "nibabel importlib-resources packaging typing-extensions",
    "numpy": "numpy",
    "psutil": "psutil",
    "pytest": "pytest iniconfig packaging pluggy pygments exceptiongroup tomli",
    "pytest_timeout": "pytest-timeout",
    "requests": "requests certifi charset-normalizer idna urllib3",
    "rich": "rich markdown-it-py mdurl pygments",
    "scipy": "scipy",
    "typer": "typer annotated-doc click shellingham typing-extensions",
}


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
        name: of it, and of its result file.
        command: what is run, after the interpreter.
        seconds: how long it may take.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


@dataclass
class Outcome:
    """What became of a part: ``"ok"``, ``"failed"``, ``"stopped"`` at its limit, or ``"not run"`` for want of time."""

    name: str
    command: str
    state: str
    seconds: float = 0.0
    output: str = ""


def parts(device: str, quick: bool, out: Path) -> list[Part]:
    """Return what is run, the most telling first."""

    def bench(script: str, name: str, seconds: float, *options: str, small: str = "") -> Part:
        sizes = small.split() if quick else list(options)
        where = ["--device", device, "--output", str(out / f"gpu_{name}.json")]
        return Part(name, (f"benchmarks/{script}.py", *where, *sizes), _QUICK_SECONDS if quick else seconds)

    shapes = "--batches 1 --shapes 2x8 --rounds 1 --seconds 1 --no-memory"
    networks = "--preset tiny --side 32 --classes 3 --networks segresnet --rounds 1 --seconds 1"
    convolution = ("--batches", "1", "--rounds", "10", "--seconds", "1.5")
    network = ("--rounds", "5", "--seconds", "2.5")
    alone = (*network, "--networks", "rep3d on F.conv3d", "--no-native-training")
    tests = ["tests/rep3d/nn/test_cuda.py", "tests/rep3d/nn/fastconv/test_triton.py"]
    found = [
        Part(
            "tests",
            ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests[: 1 if quick else 2]),
            _QUICK_SECONDS if quick else 75,
        ),
        bench(
            *("training", "training_base", 150, "--preset", "base", "--minutes", "2"),
            small="--preset tiny --side 32 --crops 1 --cases 1 --iterations 2 --minutes 1",
        ),
        bench(
            *("infer_time", "whole_ct", 100, "--preset", "base", "--spacing", "1.5", "--sizes", "512x512x400"),
            small="--preset tiny --spacing 8 --sizes 96x96x64 --rounds 1",
        ),
        bench("convolution", "convolution", 45, *convolution, small=shapes),
        bench(
            *("network", "network_bf16_tf32", 55, *network, "--precision", "bf16", "--tf32", "--no-native-training"),
            small=f"{networks} --precision bf16 --tf32",
        ),
    ]
    if quick:
        return found
    return [
        *found,
        bench("convolution", "convolution_not_fused", 30, *convolution, "--no-fused"),
        bench("network", "network_bf16_tf32_not_fused", 30, *alone, "--precision", "bf16", "--tf32", "--no-fused"),
        bench("convolution", "convolution_tf32", 30, *convolution, "--tf32"),
        bench("network", "network_tf32", 30, *alone, "--tf32"),
        bench("network", "network_float32", 30, *alone),
    ]


def pins(modules: Sequence[str]) -> list[str]:
    """Return the lines of the requirements files that bring some modules."""
    names = {name for module in modules for name in NEEDED[module].split()}
    lines = [
        line
        for file in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if re.split(r"[=;\s]", line.lower())[0].replace("_", "-") in names]


def environment() -> dict[str, str]:
    """Return the environment of a part: this tree, and the packages that were installed for it."""
    paths = [str(ROOT), str(PACKAGES), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def install(wheels: Path | None) -> str | None:
    """Install what is missing; return what went wrong, or None."""
    lacking = [module for module in NEEDED if find_spec(module) is None and not (PACKAGES / module).exists()]
    lacking = [module for module in lacking if not (PACKAGES / f"{module}.py").exists()]
    if not lacking:
        return None
    print(f"installing into {PACKAGES}: {', '.join(lacking)}", flush=True)
    source = ["--no-index", "--find-links", str(wheels)] if wheels else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PACKAGES), *source]
    packages = PACKAGES.with_name(f"{PACKAGES.name}.txt")
    packages.write_text("\n".join(pins(lacking)) + "\n", encoding="utf-8")
    done = subprocess.run([*command, "-r", str(packages)], capture_output=True, text=True, timeout=240)
    packages.unlink()
    return None if done.returncode == 0 else f"pip could not install what is missing: {done.stderr[-1500:]}"


def device_problem(device: str) -> str | None:
    """Return why the device cannot be used, or None."""
    if find_spec("torch") is None:
        return f"{sys.executable} has no PyTorch. Run this with the Python that has it."
    program = f"import torch; print(torch.zeros(1, device={device!r}).device, torch.__version__, flush=True)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        print(done.stdout.strip(), flush=True)
        return None
    return f"PyTorch cannot use {device}: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no reason given'}"


def run(part: Part, seconds: float) -> Outcome:
    """Run a part, with all that it starts, for some seconds at most."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *part.command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
    )
    state = "ok"
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        state = "stopped"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if state == "ok" and process.returncode:
        state = "failed"
    words = " ".join(("python", *part.command))
    return Outcome(part.name, words, state, round(time.monotonic() - started, 1), output[-TAIL:])


def check(todo: Sequence[Part], out: Path, until: float, facts: dict[str, object]) -> list[Outcome]:
    """Run the parts, each until its limit or the end of all, and keep what became of them after each.

    Args:
        todo: the parts.
        out: folder of the result files.
        until: when all must be over, in ``time.monotonic()``'s seconds.
        facts: to be kept with the outcomes.
    """
    outcomes: list[Outcome] = []
    for part in todo:
        left = min(part.seconds, until - time.monotonic())
        outcome = run(part, left) if left > 5 else Outcome(part.name, " ".join(part.command), "not run")
        outcomes.append(outcome)
        print(f"{outcome.state:8} {outcome.seconds:6.1f} s  {outcome.name}", flush=True)
        if outcome.state != "ok":
            print(outcome.output, flush=True)
        content = {**facts, "parts": [asdict(each) for each in outcomes]}
        (out / "gpu_check.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all of it; return the exit status."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, where no network is")
    parser.add_argument("--list-packages", action="store_true", help="print the pinned packages that it needs, and end")
    options = parser.parse_args(arguments)
    if options.list_packages:
        print("\n".join(pins([*NEEDED])))
        return 0
    problem = device_problem(options.device) or install(options.wheels)
    if problem:
        print(f"gpu_check: {problem}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, object] = {
        "command": " ".join(("python", *sys.argv)),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    }
    outcomes = check(parts(options.device, options.quick, options.out.resolve()), options.out, began + SECONDS, facts)
    good = sum(outcome.state == "ok" for outcome in outcomes)
    print(f"{good} of {len(outcomes)} parts went well; results are in {options.out}")
    return 0 if good == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
