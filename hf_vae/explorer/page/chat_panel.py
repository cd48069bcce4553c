"""A conversation with a model of dialogues: several replies to each turn, of which one counts as said."""

from __future__ import annotations

from typing import Any

import gradio as gr
import torch

from ..explored import Explored
from ..outputs import Output, draw_replies
from . import markup
from .fields import AS_IT_IS, asked_for, attribute_fields, drawing_fields, message_field
from .messages import told
from .outputs_panel import keep


def choices(replies: list[Output]) -> list[tuple[str, int]]:
    """What a field of choices shows of replies, with their acts."""
    return [
        ((reply.text or "(empty)") + (f"   [{reply.act}]" if reply.act else ""), number) for number, reply in enumerate(replies)
    ]


def build_chat(explored: Explored) -> None:
    """The panel, inside the tab that is open; of a model of dialogues."""
    gr.HTML('<p class="explorer-lead">How many replies does one turn have? The first counts as said, until you choose another.</p>')
    # Not Gradio's own, which reads the HTML of a turn.
    talk = gr.HTML(markup.talk([]), elem_id="chat-talk")
    turn = gr.Textbox("", label="Your turn", placeholder="Write a turn and press Enter", elem_id="chat-turn")
    with gr.Row():
        say = gr.Button("Say it", variant="primary", min_width=100, scale=0)
        anew = gr.Button("Other replies", min_width=140, scale=0)
        reset = gr.Button("New conversation", min_width=160, scale=0)
    note = message_field()
    replies = gr.Radio([], label="Replies", elem_id="chat-replies")
    options = drawing_fields(4, "Number of replies")
    acts = getattr(explored.processor, "acts", None)
    with gr.Row(visible=bool(acts)):
        act = gr.Dropdown([AS_IT_IS, *(acts or ())], value=AS_IT_IS, label="Act of the replies", min_width=160)
    fields = attribute_fields(explored)
    with gr.Row(visible=bool(fields)):
        attributes = list(fields.values())
    with gr.Row():
        keeper = gr.Button("Keep the z of the chosen reply", min_width=260, scale=0)
        apply = gr.Button("Reply with the kept z", min_width=220, scale=0)
    kept = gr.CheckboxGroup([], label="Kept z, each named by what it wrote; with none ticked all count", elem_id="chat-kept")
    applied = gr.HTML("", elem_id="chat-applied")
    talk_state, replies_state, kept_state = gr.State([]), gr.State([]), gr.State([])

    def answered(
        messages: list[dict], count: float, temperature: float, spread: str, seed: int, wanted: str, *values: Any
    ) -> tuple:
        asked = asked_for(explored, list(fields), values)
        chosen = None if wanted == AS_IT_IS else wanted
        found = draw_replies(explored, messages, int(count), temperature, spread, seed, chosen, asked)
        # A reply may be empty, which is no turn.
        said = next((number for number, reply in enumerate(found) if reply.text), None)
        after = [*messages, {"role": "assistant", "content": found[said].text}] if said is not None else messages
        different = len({reply.text for reply in found})
        message = f"{different} different of {len(found)} replies. {explored.note_on(messages[-1]['content'])}"
        return message, after, markup.talk(after), found, gr.update(choices=choices(found), value=said)

    @told(6)
    def answer(text: str, messages: list[dict], count: float, temperature: float, spread: str, seed: float | None, *values: Any):
        if not text or not text.strip():
            raise ValueError("Your turn is empty: write something to reply to.")
        turns = [*messages, {"role": "user", "content": text.strip()}]
        return (*answered(turns, count, temperature, spread, int(seed or 0), *values), "", seed)

    @told(6)
    def answer_again(
        text: str, messages: list[dict], count: float, temperature: float, spread: str, seed: float | None, *values: Any
    ):
        turns = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
        other = int(seed or 0) + 1
        return (*answered(turns, count, temperature, spread, other, *values), text, other)

    given = [turn, talk_state, *options, act, *attributes]
    results = [note, talk_state, talk, replies_state, replies, turn, options[-1]]
    for trigger in (say.click, turn.submit):
        trigger(answer, given, results, show_progress="minimal")
    anew.click(answer_again, given, results, show_progress="minimal")
    reset.click(lambda: ("", [], markup.talk([]), [], gr.update(choices=[], value=None), ""), None,
                [note, talk_state, talk, replies_state, replies, applied])  # fmt: skip

    @told(2)
    def choose(found: list[Output], chosen: int | None, messages: list[dict]):
        if chosen is None or not found or not found[chosen].text:
            raise ValueError("This reply is empty, which is no turn: choose another.")
        turns = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
        after = [*turns, {"role": "assistant", "content": found[chosen].text}]
        return "", after, markup.talk(after)

    replies.input(choose, [replies_state, replies, talk_state], [note, talk_state, talk], show_progress="hidden")

    @told(2)
    def keep_chosen(found: list[Output], chosen: int | None, before: list[Output]):
        now = keep(found, [] if chosen is None else [chosen], before)
        return f"Kept: {len(now)} z.", now, gr.update(choices=choices(now), value=[])

    keeper.click(keep_chosen, [replies_state, replies, kept_state], [note, kept_state, kept], show_progress="hidden")

    @told(1)
    def reply_with(held: list[Output], ticked: list[int], messages: list[dict]):
        used = [held[number] for number in ticked] if ticked else held
        if not used:
            raise ValueError("No z is kept: choose a reply and keep its z first.")
        turns = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
        if not turns:
            raise ValueError("Nothing has been said yet: write a turn.")
        source = {"messages": turns, "role": "assistant", "meta": explored.meta}
        texts = explored.decode(torch.stack([each.latents for each in used]), source)
        return "", markup.table(("z that wrote", "replies here"), [(each.text, new) for each, new in zip(used, texts, strict=True)])

    apply.click(reply_with, [kept_state, kept, talk_state], [note, applied], show_progress="minimal")
