"""Results as HTML. Whatever comes from a text, a file or a model is escaped: it is shown as it is written, and never as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ...processing_dialog import Message
from ..latent_map import Region, Trait
from ..paths import Word, marked
from ..word_nats import Reconstruction

# Nats at which a word's colour is full: what a word of 150 equally likely ones costs.
FULL_HEAT = 5.0


def note(text: str, is_error: bool = False) -> str:
    """A message of a panel; nothing of an empty one."""
    if not text:
        return ""
    kind = "is-error" if is_error else "is-said"
    return f'<div class="explorer-note {kind}" role="{"alert" if is_error else "status"}">{escape(text)}</div>'


def text(words: str | Sequence[Word], label: str = "") -> str:
    """A text in large letters; of marked words the new ones are marked."""
    head = f'<div class="explorer-label">{escape(label)}</div>' if label else ""
    return f'{head}<div class="explorer-text">{_inline(words)}</div>'


def _inline(words: str | Sequence[Word]) -> str:
    if isinstance(words, str):
        return escape(words) if words.strip() else "<i>(empty)</i>"
    if not words:
        return "<i>(empty)</i>"
    tags = {"new": "mark", "gone": "del"}
    shown = [(tags.get(word.change), escape(word.text)) for word in words]
    return " ".join(f"<{tag}>{each}</{tag}>" if tag else each for tag, each in shown)


def steps(texts: Sequence[str], labels: Sequence[str], here: int | None = None, against: str | None = None) -> str:
    """
    Texts below each other, each with its label; the same text in succession stands once. Marked are the words that the text before
    did not have, or those that the text `against` does not have.
    """
    rows, first = [], 0
    for number, (label, each) in enumerate(zip(labels, texts, strict=True)):
        if number + 1 < len(texts) and texts[number + 1] == each:
            continue
        before = against if against is not None else (texts[first - 1] if first else each)
        kind = ' class="is-here"' if here is not None and first <= here <= number else ""
        shown = label if first == number else f"{labels[first]} to {label}"
        rows.append(f'<li{kind}><span class="at">{escape(shown)}</span><span>{_inline(marked(before, each))}</span></li>')
        first = number + 1
    return f'<ol class="explorer-list">{"".join(rows)}</ol>'


def listed(texts: Sequence[str]) -> str:
    """Texts below each other."""
    return f'<ul class="explorer-list">{"".join(f"<li>{_inline(each)}</li>" for each in texts)}</ul>'


def talk(messages: Sequence[Message]) -> str:
    """The turns of a conversation."""
    if not messages:
        return '<div class="explorer-label">Nothing has been said yet.</div>'
    turns = [
        f'<li class="is-{"own" if each["role"] == "assistant" else "other"}"><span>{escape(each["content"])}</span></li>'
        for each in messages
    ]
    return f'<ol class="explorer-talk" aria-label="Conversation" role="log">{"".join(turns)}</ol>'


def table(head: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """A table, in which numbers stand on the right."""
    rows = [list(row) for row in rows]
    numeric = [all(isinstance(row[place], float) for row in rows) for place in range(len(head))]

    def cell(tag: str, place: int, value: str | float) -> str:
        kind = ' class="number"' if numeric[place] else ""
        words = f"{value:.2f}" if isinstance(value, float) else _inline(value) if tag == "td" else escape(value)
        return f"<{tag}{kind}>{words}</{tag}>"

    body = "".join(f"<tr>{''.join(cell('td', place, value) for place, value in enumerate(row))}</tr>" for row in rows)
    first = "".join(cell("th", place, name) for place, name in enumerate(head))
    return f'<table class="explorer-table"><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>'


def region(found: Region) -> str:
    """What a region of the map has in common."""
    parts = [f'<div class="explorer-label">{found.count} point{"" if found.count == 1 else "s"} chosen. Commoner here:</div>']
    words = table(("word", "here", "elsewhere"), map(_shares, found.words))
    parts.append(words if found.words else "<div>No word is.</div>")
    for name, traits in found.columns.items():
        if traits:
            parts.append(table((name, "here", "elsewhere"), map(_shares, traits)))
    if found.means:
        parts.append(table(("mean of", "here", "elsewhere"), [(name, *means) for name, means in found.means.items()]))
    parts.append('<div class="explorer-label">Some of them:</div>')
    parts.append(listed(found.texts))
    return "".join(parts)


def _shares(trait: Trait) -> tuple[str, str, str]:
    return trait.what, f"{100 * trait.inside:.0f} %", f"{100 * trait.outside:.0f} %"


def heat(found: Reconstruction) -> str:
    """Each word with what it costs without z, coloured, and with its own z."""
    own, zero = sum(found.own), sum(found.zero)
    cells = [
        f'<div class="explorer-word" style="background: color-mix(in srgb, {_colour(z - o)}, transparent)" '
        f'title="{escape(word)}: {o:.2f} nats with its own z, {z:.2f} with z = 0">'
        f"<b>{escape(word)}</b><small>{o:.2f}</small><small>{z:.2f}</small></div>"
        for word, o, z in zip(found.words, found.own, found.zero, strict=True)
    ]
    kl = "" if found.kl is None else f" The code costs {found.kl:.2f} nats (KL)."
    return (
        '<div class="explorer-label">Below each word its nats: with its own z, and with z = 0. The darker, the more z says of it; '
        "red is a word that z = 0 says better.</div>"
        f'<div class="explorer-words">{"".join(cells)}</div>'
        f"<div>In all {own:.2f} nats with its own z, {zero:.2f} with z = 0: z says {zero - own:.2f} nats of these words.{kl}</div>"
    )


def _colour(nats: float) -> str:
    """Blue for what z says, red for what it gets wrong, with the strength of the colour."""
    return f"{'#4477aa' if nats >= 0 else '#cc3344'} {100 * min(abs(nats) / FULL_HEAT, 1) * 0.75:.0f}%"


def bars(rows: Sequence[tuple[str, float]], unit: str) -> str:
    """Numbers with bars."""
    most = max((value for _, value in rows), default=0.0) or 1.0
    cells = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{value:.2f} {escape(unit)}</td>'
        f'<td style="width: 55%"><span class="explorer-bar" style="width: {100 * max(value, 0) / most:.1f}%"></span></td></tr>'
        for name, value in rows
    )
    return f'<table class="explorer-table"><tbody>{cells}</tbody></table>'
