"""The model card: a bundle's `README.md`, written from what its `bundle.json` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_LABELS = 20
FOLDER = "path/to/this/folder"


def render_card(manifest: Mapping[str, Any]) -> str:
    """Return the card as Markdown, with the header that model hubs read."""
    model, labels = manifest["model"], manifest["labels"]
    provider, name = model.get("provider", "linne"), model.get("name", "unnamed")
    title = name if provider == "linne" else f"{provider}/{name}"
    header = ["---", f"library_name: {'timm' if provider == 'timm' else 'linne'}"]
    header += ["pipeline_tag: image-classification", "tags: [image-classification, linne]", "---"]
    sections = [
        "\n".join(header),
        f"# {title}, {len(labels)} labels",
        f"An image classifier written by linne {manifest['linne']}: an image in, one of {len(labels)} labels out, "
        "with probabilities.",
        "## Labels\n\n" + _labels(labels),
        "## Scores\n\n" + _scores(manifest["metrics"]),
        *_verified(manifest["metrics"].get("verified")),
        "## Use\n\n" + _use(provider),
        "## Input\n\n" + _input(manifest["input"]),
        "## Training\n\n" + _training(manifest["provenance"]),
        "## Limits\n\n" + _limits(len(labels)),
    ]
    return "\n\n".join(sections) + "\n"


def _labels(labels: list[str]) -> str:
    shown = ", ".join(_code(label) for label in labels[:MAX_LABELS])
    more = len(labels) - MAX_LABELS
    return f"{shown} and {more:,} more; all are in `config.json`." if more > 0 else f"{shown}."


def _scores(metrics: Mapping[str, Any]) -> str:
    scores = {name: value for name, value in metrics.items() if name != "verified"}
    rows = [f"| {name} | {value} |" for name, value in _flat(scores)]
    return "\n".join(["| measure | value |", "|---|---|", *rows]) if rows else "None were recorded."


def _verified(found: Any) -> list[str]:
    """Return the section on other ways to run it, as `linne verify` found them; none where nothing was verified."""
    if not isinstance(found, Mapping) or not found:
        return []
    head = ["| run by | verdict | same label | points lost | worst gap of logits | on |", "|---|---|--:|--:|--:|---|"]
    rows = []
    for name, values in found.items():
        told = values if isinstance(values, Mapping) else {}
        before, after = told.get("reference_accuracy"), told.get("accuracy")
        cells = [
            _code(str(name)),
            "passed" if told.get("passed") is True else "**failed**",
            f"{100 * told['agreement']:.2f} %" if isinstance(told.get("agreement"), float) else "-",
            f"{100 * (before - after):+.2f}" if isinstance(before, float) and isinstance(after, float) else "-",
            _text(told.get("worst_gap", "-")),
            " ".join(str(told.get("on", "-")).split()).replace("|", "/"),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    what = (
        "The same images through other runtimes and precisions, beside the network as it was trained (`linne verify`):"
    )
    return ["## Verified\n\n" + what + "\n\n" + "\n".join([*head, *rows])]


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield single values and pairs by dotted name; longer lists belong in a report."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and len(value) == 2:
            yield f"{prefix}{name}", " to ".join(_text(item) for item in value)
        elif isinstance(value, (str, int, float)):
            yield f"{prefix}{name}", _text(value)


def _use(provider: str) -> str:
    parts = [
        f"```sh\nlinne predict {FOLDER} image.jpg\n```",
        f'```python\nimport linne\n\nfor answer in linne.predict("{FOLDER}", ["image.jpg"]):\n'
        "    print(answer.labels[0], answer.probabilities[0])\n```",
    ]
    if provider == "timm":
        parts += [
            "The folder is also in the layout of timm and transformers, which read its weights, labels and input "
            "settings, and check none of them:",
            "```python\nimport timm\n\n"
            f'model = timm.create_model("local-dir:{FOLDER}", pretrained=True).eval()\n'
            "settings = timm.data.resolve_model_data_config(model)\n"
            "transform = timm.data.create_transform(**settings, is_training=False)\n```",
            "```python\nfrom transformers import pipeline\n\n"
            f'classify = pipeline("image-classification", model="{FOLDER}")\nclassify("image.jpg")\n```',
        ]
    return "\n\n".join(parts)


def _input(spec: Mapping[str, Any]) -> str:
    colour = "grey" if spec["channels"] == 1 else "RGB"
    stretched, share = spec["crop_mode"] == "squash", spec["crop_pct"]
    how, to = ("stretched", "to") if stretched else ("resized", "to cover")
    cut = "" if stretched and share == 1 else f" / {share:g} and cut to its centre"
    fit = f"{how} ({spec['interpolation']}) {to} that size{cut}"
    return (
        f"{spec['height']} x {spec['width']} pixels (height x width), {colour}, {fit}. "
        f"Pixels are scaled to 0-1, then mean {_numbers(spec['mean'])} is taken off and the rest divided by "
        f"{_numbers(spec['std'])}."
    )


def _training(provenance: Mapping[str, Any]) -> str:
    imported, started_from = provenance.get("imported"), provenance.get("started_from")
    if isinstance(imported, Mapping):
        return f"The weights were not trained by linne: they were imported from {_weights(imported)}."
    source = provenance.get("source")
    facts = dict(source) if isinstance(source, Mapping) else {}
    lines = [
        ("source", facts.get("name")),
        ("fingerprint of the data", facts.get("fingerprint")),
        ("training images", facts.get("num_train")),
        ("date", provenance.get("created")),
        ("device", provenance.get("device")),
        ("seed", provenance.get("seed")),
    ]
    known = [f"- {name}: {_code(_text(value))}" for name, value in lines if isinstance(value, (str, int, float))]
    if isinstance(started_from, Mapping):
        known.append(f"- started from the pretrained weights {_weights(started_from)}")
    if provenance.get("finished") is False:
        known.append("- training was stopped before its last epoch")
    return "\n".join([*known, "", "`bundle.json` holds the whole recipe, the command and the versions."]).lstrip("\n")


def _weights(origin: Mapping[str, Any]) -> str:
    """Return whose weights they were, which file, and under which licence."""
    name, sha256, licence = (str(origin.get(key) or "not stated") for key in ("weights", "sha256", "licence"))
    return f"{_code(name)}, sha256 {_code(sha256)}, licence {_code(licence)}"


def _limits(num_labels: int) -> str:
    return (
        f"Whatever the image shows, the answer is one of the {num_labels} labels: an image of something else gets "
        "one too, sometimes with a high probability. The scores hold for images like those it was measured on. "
        "linne compares every file with its checksum and replays test images before the first answer; that finds "
        "damage and mix-ups, not a person who rewrote the folder on purpose."
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _code(text: str) -> str:
    """Return `text` as a Markdown code span on one line, also when it holds backticks or line breaks."""
    line = " ".join(text.split())
    fence = "``" if "`" in line else "`"
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"
