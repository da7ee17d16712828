# SPDX-License-Identifier: GPL-2.0-only
"""Runs the points of a study on the workers of a Dask cluster, and keeps what is finished whatever happens.

DIR/points/NAME/ is the results folder of one point, written beside and renamed into place; NAME is a hash of all that
the result depends on. A sweep runs the points whose folder is not there, and makes one results folder of all.
"""

import argparse
import fcntl
import logging
import os
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from splitllm import cli, merging, point_task
from splitllm.cli import InputError
from splitllm.points import Points

WIDTH = 30
SILENCE = 10  # seconds between lines of progress where there is no terminal


class Progress:
    """A bar on standard error with the time left; a line now and then where that is no terminal."""

    def __init__(self, total, before):
        self.total, self.done, self.before = total, before, before
        self.began = self.said = time.monotonic()
        self.visible = sys.stderr.isatty()
        self.draw()

    def draw(self):
        now = time.monotonic()
        here = self.done - self.before
        left = f", {(now - self.began) / here * (self.total - self.done):.0f} s left" if here else ""
        text = f"{self.done} of {self.total} points{left}"
        if self.visible:
            filled = WIDTH * self.done // max(1, self.total)
            print(f"\r\033[K[{'#' * filled}{'.' * (WIDTH - filled)}] {text}", end="", file=sys.stderr, flush=True)
        elif now - self.said >= SILENCE:
            self.said = now
            print(text, file=sys.stderr, flush=True)

    def step(self):
        self.done += 1
        self.draw()

    def clear(self):
        if self.visible:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def cluster(scheduler=None, workers=None):
    """(client, whether its workers are this machine's): those of `scheduler`, or `workers` threads of this process."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there: {error}") from None
        import cloudpickle

        cloudpickle.register_pickle_by_value(point_task)
        with client:
            yield client, False
        return
    # Each thread does nothing but wait for a runner, so one process is enough.
    threads = workers or len(os.sched_getaffinity(0))
    with LocalCluster(n_workers=1, threads_per_worker=threads, processes=False, dashboard_address="127.0.0.1:0",
                      memory_limit=0, silence_logs=logging.ERROR) as local, Client(local) as client:  # fmt: skip
        yield client, True


@contextmanager
def locked(out):
    """Holds the folder against a second sweep, until the block or this process ends."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise InputError(f"{out}: another sweep writes there (process {file.read().strip() or '?'}); "
                             "wait for its end, or give another --out") from None  # fmt: skip
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(folder, files):
    """A new folder with {name: bytes} that is there with all of them or not at all, even if the machine stops."""
    part = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name, content in files.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        with open(part / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync(part)
    part.rename(folder)
    sync(folder.parent)


def write_files(folder, files):
    """Each of {name: bytes}, the old or the new one at every moment; tables that an earlier study left are removed."""
    for name, content in files.items():
        part = folder / f".part-{name}"
        part.write_bytes(content)
        part.replace(folder / name)
    for name in merging.OPTIONAL - set(files):
        (folder / name).unlink(missing_ok=True)


def why(result):
    """One line about a runner that ended badly."""
    lines = [line for line in result["error"].splitlines() if line.strip()]
    said = lines[-1].removeprefix("split-llm-run: ") if lines else "it said nothing"
    status = result["status"]
    return said if status > 0 else f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")


def run_points(client, local, points, folder, todo, step):
    """Runs the points with the numbers `todo`, writes each as it comes. {number: why it failed}"""
    from distributed import as_completed

    expected = {} if local else points.digests
    scratch = str(folder) if local else None
    futures = {}
    for number in todo:
        future = client.submit(
            point_task.run_point, points.command_of(number), expected, os.getcwd(), scratch,
            key=f"{points.names[number]}-{time.time_ns()}", retries=2, pure=False,
        )  # fmt: skip
        futures[future] = number
    failed = {}
    for future in as_completed(list(futures)):
        number = futures.pop(future)
        if future.status != "finished":
            failed[number] = f"its worker was lost: {future.exception()}"
        else:
            result = future.result()
            if result["status"] not in (0, 1):
                failed[number] = why(result)
            elif points.changed():
                raise InputError(f"{points.study} or the runner changed while the sweep ran; start it again")
            else:
                files = result["files"] | {"output.txt": result["output"].encode()}
                write_whole(folder / points.names[number], files)
        future.release()
        step(number, failed.get(number))
    return failed


def failed_expectations(folder):
    """The lines about expectations that a point's runner found wrong."""
    return [line for line in (folder / "output.txt").read_text(encoding="utf-8").splitlines() if line.startswith("FAILED  ")]


def sweep(client, local, study, options, out, say=print):
    """Runs what is left of a study, writes the results of all its points into `out`. Exit status: 0, or 1"""
    out = Path(out).absolute()
    points = Points(study, options)
    with locked(out):
        folder = out / "points"
        folder.mkdir(exist_ok=True)
        for left in folder.glob(".part-*"):  # of a sweep that was killed
            shutil.rmtree(left)
        there = {path.name for path in folder.iterdir()}
        first = {}  # the same point may be listed twice
        for number, name in enumerate(points.names):
            first.setdefault(name, number)
        todo = [number for name, number in first.items() if name not in there]
        total, before = len(first), len(first) - len(todo)
        if before:
            say(f"{before} of {total} points are finished, {total - before} to run")
        if there - set(points.names):
            say(f"{len(there - set(points.names))} results in {folder} are of another study, runner or option; not used")
        progress = Progress(total, before)

        def step(number, reason):
            if reason is not None:
                progress.clear()
                say(f"FAILED  point {number} ({points.points[number]['title']}): {reason}")
            progress.step()

        try:
            failed = run_points(client, local, points, folder, todo, step) if todo else {}
        finally:
            progress.clear()
        bad = {points.names[number] for number in failed}
        finished = [folder / name for name in points.names if name not in bad]
        if finished:
            write_files(out, merging.merge(str(study), finished))
        missed = [line for result in dict.fromkeys(finished) for line in failed_expectations(result)]
        for line in missed:
            say(line)
        if failed:
            say(f"{len(failed)} of {total} points failed; the same command runs them again:")
            for number, reason in sorted(failed.items()):
                say(f"    point {number} ({points.points[number]['title']}): {reason}")
        return 1 if failed or missed else 0


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/sweep",
        description="Runs the points of a study side by side, and goes on where an earlier sweep into the same folder "
        "ended. Options that are not listed go to the runner (split-llm-run --help).",
    )
    parser.add_argument("study", metavar="STUDY.json")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="overrides a key of the study")
    parser.add_argument("--out", metavar="DIR", help="results (default: results/ and the study's file name)")
    parser.add_argument("--models", metavar="DIR", help="model folders (default: models/, or SPLITLLM_MODELS)")
    parser.add_argument("--workers", type=int, metavar="N", help="points at a time on this machine (default: its cores)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786, to run on")
    chosen, others = parser.parse_known_args()
    for other in others:
        if not other.startswith("--"):
            raise InputError(f"{other}: not understood; options of the runner are written --NAME=VALUE")
    if chosen.workers is not None and (chosen.workers < 1 or chosen.scheduler):
        raise InputError("--workers: at least 1, and not beside --scheduler, whose workers are there already")
    models = chosen.models or os.environ.get("SPLITLLM_MODELS") or str(cli.ROOT / "models")
    chosen.options = [f"--models={models}", *(f"--set={override}" for override in chosen.set), *others]
    chosen.out = chosen.out or str(cli.ROOT / "results" / Path(chosen.study).stem)
    return chosen


def main():
    chosen = arguments()
    with cluster(chosen.scheduler, chosen.workers) as (client, local):
        status = sweep(client, local, chosen.study, chosen.options, chosen.out)
    print(f"Results: {chosen.out}")
    return status


if __name__ == "__main__":
    sys.argv[0] = "sweep"
    cli.run(main)
