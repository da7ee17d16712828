# SPDX-License-Identifier: GPL-2.0-only
"""What an accuracy study found, and what activations look like."""

from pathlib import Path

from splitllm.cli import InputError
from splitllm.files import load_json
from splitllm.plots_base import LINES, MARKERS, STYLE


def figure(width, height, columns=1):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(STYLE)
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), squeeze=False)


def bytes_against_divergence(result, out):
    """KL to the unsplit model against payload: a panel a split layer, a colour a codec that has parameters."""
    rows = [row for row in result["rows"] if row.get("parameters") and row["kl_nats"] > 0]
    if not rows:
        raise InputError(f"{out.stem}: no row of a codec with parameters, which is what is drawn")
    splits = sorted({row["split"] for row in rows})
    names = list(dict.fromkeys(row["codec"] for row in rows))
    fig, axes = figure(3.2 * len(splits) + 1.6, 3.4, len(splits))
    for axis, split in zip(axes[0], splits):
        for number, name in enumerate(names):
            mine = [row for row in rows if (row["split"], row["codec"]) == (split, name)]
            x, y = [row["payload_bytes_per_token"] for row in mine], [row["kl_nats"] for row in mine]
            axis.plot(x, y, MARKERS[number % 7], color=LINES[number % 7], label=name)
        axis.set(yscale="log", title=f"split after layer {split}", xlabel="payload (bytes a token)")
    axes[0][0].set_ylabel("KL to the unsplit model (nats a token)")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    fig.savefig(out)


def magnitudes(statistics, out):
    """Quantiles of |x| of the state after each layer."""
    levels, layers = statistics["levels"], statistics["sites"]["hidden-state"]
    fig, axes = figure(6, 3.6)
    axis = axes[0][0]
    for number, level in enumerate(level for level in levels if level in (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)):
        values = [layer["quantiles"][levels.index(level)] for layer in layers]
        name = "largest" if level == 1 else f"{100 * level:g} %"
        axis.plot(range(1, len(layers) + 1), values, color=LINES[number], label=name)
    axis.set(yscale="log", xlabel="layer", ylabel="|x| that so many elements do not exceed")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    fig.savefig(out)


def plot(files, folder):
    """A PNG for every accuracy result or file of activation statistics."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        content = load_json(file)
        out = folder / f"{Path(file).stem}.png"
        if isinstance(content, dict) and "rows" in content:
            bytes_against_divergence(content, out)
        elif isinstance(content, dict) and "levels" in content:
            magnitudes(content, out)
        else:
            raise InputError(f"{file}: neither an accuracy result nor activation statistics")
        yield out
