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
from contextlib import closing, contextmanager
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


def locked(out):
    """A file that, while it is open, holds the folder against a second sweep. The kernel lets go if this process ends."""
    out.mkdir(parents=True, exist_ok=True)
    file = open(out / ".lock", "a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise InputError(f"{out}: another sweep writes there (process {holder}); wait, or give another --out") from None
    file.truncate(0)
    print(os.getpid(), file=file, flush=True)
    return file


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
    """Each of {name: bytes}, the old or the new one at every moment; what an earlier study left beside is removed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".part-{path.name}")
        part.write_bytes(content)
        part.replace(path)
    earlier = merging.OPTIONAL | {str(path.relative_to(folder)) for path in folder.glob("pcap/point-*.pcap")}
    for name in earlier - set(files):
        (folder / name).unlink(missing_ok=True)


def why(result):
    """One line about a runner that ended badly."""
    lines = [line for line in result["error"].splitlines() if line.strip()]
    said = lines[-1].removeprefix("split-llm-run: ") if lines else "it said nothing"
    status = result["status"]
    return said if status > 0 else f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")


class Sweep:
    """One study and the folder of its results, which it holds until it is closed."""

    def __init__(self, study, options, out):
        self.points = Points(study, options)
        self.out = Path(out).absolute()
        self.folder = self.out / "points"
        self.failed = {}  # why, by number
        self._lock = locked(self.out)
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.glob(".part-*"):  # of a sweep that was killed
            shutil.rmtree(left)
        there = {path.name for path in self.folder.iterdir()}
        first = {}  # the same point may be listed twice
        for number, name in enumerate(self.points.names):
            first.setdefault(name, number)
        self.todo = [number for name, number in first.items() if name not in there]
        self.total = len(first)
        self.stale = len(there - set(first))

    def close(self):
        self._lock.close()

    def title(self, number):
        return f"point {number} ({self.points.points[number]['title'] or self.points.title})"

    def keep(self, number, result):
        """Writes what a runner left. Why there is nothing to write, or None."""
        if result["status"] not in (0, 1):
            return why(result)
        if self.points.changed():
            raise InputError(f"{self.points.study} or the runner changed while the sweep ran; start it again")
        files = result["files"] | {"output.txt": result["output"].encode()}
        write_whole(self.folder / self.points.names[number], files)
        return None

    def finish(self):
        """Writes the results of all points that are finished. The expectations that failed, a line each"""
        bad = {self.points.names[number] for number in self.failed}
        finished = [self.folder / name for name in self.points.names if name not in bad]
        if finished:
            command = [str(cli.ROOT / "scripts" / sys.argv[0]), *sys.argv[1:]]
            write_files(self.out, merging.merge(str(self.points.study), command, finished))
        outputs = [(folder / "output.txt").read_text(encoding="utf-8") for folder in dict.fromkeys(finished)]
        return [line for output in outputs for line in output.splitlines() if line.startswith("FAILED  ")]


def run(client, local, sweeps, say=print):
    """Runs what is left of the sweeps, all points side by side, and writes their results. Whether all went well"""
    from distributed import as_completed

    total = sum(sweep.total for sweep in sweeps)
    left = sum(len(sweep.todo) for sweep in sweeps)
    if left < total:
        say(f"{total - left} of {total} points are finished, {left} to run")
    for sweep in sweeps:
        if sweep.stale:
            say(f"{sweep.folder}: {sweep.stale} results of another study, runner or option are not used")
    futures = {}
    for sweep in sweeps:
        expected = {} if local else sweep.points.digests
        scratch = str(sweep.folder) if local else None
        for number in sweep.todo:
            command = sweep.points.command_of(number)
            future = client.submit(point_task.run_point, command, expected, os.getcwd(), scratch, pure=False)
            futures[future] = (sweep, number)
    progress = Progress(total, total - left)
    try:
        for future in as_completed(list(futures)):
            sweep, number = futures.pop(future)
            lost = future.status != "finished"
            reason = f"its worker was lost: {future.exception()}" if lost else sweep.keep(number, future.result())
            if reason is not None:
                sweep.failed[number] = reason
                progress.clear()
                say(f"FAILED  {sweep.title(number)}: {reason}")
            future.release()
            progress.step()
    finally:
        progress.clear()
    missed = [line for sweep in sweeps for line in sweep.finish()]
    for line in missed:
        say(line)
    failed = [(sweep, number) for sweep in sweeps for number in sorted(sweep.failed)]
    if failed:
        say(f"{len(failed)} of {total} points failed; the same command runs them again:")
        for sweep, number in failed:
            say(f"    {sweep.title(number)}: {sweep.failed[number]}")
    return not failed and not missed


def parse(parser):
    """The arguments, with those that every command has which runs points; `options` are the runner's."""
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="overrides a key of the study")
    parser.add_argument("--out", metavar="DIR", help="where results go")
    parser.add_argument("--models", metavar="DIR", help="model folders (default: models/, or SPLITLLM_MODELS)")
    parser.add_argument("--workers", type=int, metavar="N", help="points at a time on this machine (default: its cores)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786, to run on")
    chosen, others = parser.parse_known_args()
    for other in others:
        if not other.startswith("--"):
            raise InputError(f"{other}: not understood; options of the runner are written --NAME=VALUE")
        if other.split("=")[0] in ("--study", "--points", "--point", "--record"):
            raise InputError(f"{other}: is about one run; scripts/run and the runner take it")
    if chosen.workers is not None and (chosen.workers < 1 or chosen.scheduler):
        raise InputError("--workers: at least 1, and not beside --scheduler, whose workers are there already")
    models = chosen.models or os.environ.get("SPLITLLM_MODELS") or str(cli.ROOT / "models")
    chosen.options = [f"--models={models}", *(f"--set={override}" for override in chosen.set), *others]
    return chosen


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/sweep",
        description="Runs the points of a study side by side, and goes on where an earlier sweep into the same folder "
        "ended. Options that are not listed go to the runner (split-llm-run --help).",
    )
    parser.add_argument("study", metavar="STUDY.json")
    chosen = parse(parser)
    out = chosen.out or cli.ROOT / "results" / Path(chosen.study).stem
    with closing(Sweep(chosen.study, chosen.options, out)) as sweep:
        with cluster(chosen.scheduler, chosen.workers) as (client, local):
            well = run(client, local, [sweep])
    print(f"Results: {out}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.argv[0] = "sweep"
    cli.run(main)
