"""Dialogues as the model's inputs, batched, cut and saved."""

import copy

import pytest
import torch

from helpers import GREEDY, TALK, make_model
from hf_vae import DialogCVAEConfig, DialogCVAEModel, DialogCVAEProcessor, DialogSession, LatentAttribute
from hf_vae.cli.from_scratch import small_configs


@pytest.mark.parametrize("context_encoding", ["flat", "hierarchical"])
@pytest.mark.parametrize("source_conditioning", ["prompt", "cross_attention"])
def test_a_batch_of_dialogues_is_their_features_padded(dialog_tokenizers, context_encoding, source_conditioning):
    processor = DialogCVAEProcessor(*dialog_tokenizers, source_conditioning, context_encoding, acts=["x", "y"], meta_values=["age"])
    dialogues = [
        {"messages": TALK, "act": "y", "meta": {"age": 0.5}},
        {"messages": TALK[:1], "role": "ann", "meta": {"age": 1}},
    ]
    targets = ["yes , it was", "no"]
    batch = processor(dialogues, targets)
    alone = [processor(dialogue, [target]) for dialogue, target in zip(dialogues, targets)]
    for row, single in enumerate(alone):
        for name in ("input_ids", "posterior_input_ids", "prompt_input_ids", "labels"):
            if name in single:
                mask = f"{name.removesuffix('input_ids')}attention_mask"
                own = single[name][single[mask].bool()] if mask in single else single[name][single[name] != -100]
                padded = batch[name][row]
                assert padded[batch[mask][row].bool() if mask in batch else padded != -100].tolist() == own.tolist()
    assert batch["act_labels"].tolist() == [1, -100]
    assert batch["meta_values"].tolist() == [[0.5], [1.0]]
    if context_encoding == "hierarchical":
        # Ann speaks, so it is Bob's turn; in the second dialogue Ann goes on.
        assert batch["same_speaker"].tolist() == [[0, 1, 0], [1, 0, 0]]
    # Unpadded, as the Trainer's data is made, and collated.
    rows = processor(dialogues, targets, return_tensors=None)
    collated = processor.pad([dict(zip(rows, values)) for values in zip(*rows.values())])
    assert collated.keys() == batch.keys() and all(torch.equal(collated[name], batch[name]) for name in batch)


def test_who_replies_is_marked_in_the_text(dialog_tokenizers):
    processor = DialogCVAEProcessor(*dialog_tokenizers)
    decoded = processor.tokenizer.decode(processor(TALK)["prompt_input_ids"][0])
    assert decoded.split() == ["user:", "hello", "assistant:", "good", "morning", "user:", "was", "it", "noon", "?", "assistant:"]
    decoded = processor.tokenizer.decode(processor({"messages": TALK, "role": "ann"})["prompt_input_ids"][0])
    assert decoded.split() == [
        "assistant:",
        "hello",
        "user:",
        "good",
        "morning",
        "assistant:",
        "was",
        "it",
        "noon",
        "?",
        "assistant:",
    ]
    # Somebody who has not spoken yet.
    decoded = processor.tokenizer.decode(processor({"messages": TALK, "role": "zoe"})["prompt_input_ids"][0])
    assert decoded.count("assistant:") == 1


def test_q_reads_the_beginning_of_a_long_reply_and_the_end_of_a_long_context(dialog_tokenizers):
    processor = DialogCVAEProcessor(*dialog_tokenizers)
    talk = [{"role": "ann", "content": " ".join(f"{number} before" for number in range(30))}]
    reply = " ".join(f"after {number}" for number in range(30))
    row = processor(talk, reply, max_length=24, max_target_length=12, return_tensors=None)
    tokenizer = processor.encoder_tokenizer
    places = [place for place, part in enumerate(row["posterior_token_type_ids"]) if part]
    read = [row["posterior_input_ids"][place] for place in places][:-1]
    assert read == tokenizer(reply, add_special_tokens=False)["input_ids"][: len(read)] and len(read) >= 8
    assert row["posterior_input_ids"][: places[0]] == row["input_ids"]
    assert tokenizer.decode(row["input_ids"], skip_special_tokens=True).endswith("29 before")


def test_the_last_turns_are_read(dialog_tokenizers):
    short = DialogCVAEProcessor(*dialog_tokenizers, max_turns=1)
    assert (
        short(TALK)["prompt_input_ids"].tolist()
        == DialogCVAEProcessor(*dialog_tokenizers)({"messages": TALK[2:], "role": "bob"})["prompt_input_ids"].tolist()
    )
    whole = DialogCVAEProcessor(*dialog_tokenizers)
    length = whole(TALK[1:])["input_ids"].shape[1]
    cut = whole(TALK, max_length=length)
    assert cut["input_ids"].tolist() == whole(TALK[1:])["input_ids"].tolist()
    # Of a turn that is too long by itself the end is read, which is what a reply answers.
    alone = whole(TALK[2:], max_length=4)
    assert alone["prompt_input_ids"].tolist()[0] == whole(TALK[2:])["prompt_input_ids"].tolist()[0][-4:]
    turns = DialogCVAEProcessor(*dialog_tokenizers, context_encoding="hierarchical", max_turn_length=3)(TALK)
    assert turns["input_ids"].shape[-1] == 3
    assert turns["input_ids"][0, 2, :2].tolist() == whole.encoder_tokenizer("was it")["input_ids"][:2]


def test_a_decoder_with_a_chat_template_writes_its_prompt(dialog_tokenizers):
    processor = DialogCVAEProcessor(*dialog_tokenizers)
    processor.tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }} said {{ message['content'] }} . {% endfor %}"
        "{% if add_generation_prompt %}assistant said{% endif %}"
    )
    try:
        messages = [{"role": "ann", "content": "hello"}, *TALK]
        decoded = processor.tokenizer.decode(processor(messages)["prompt_input_ids"][0])
    finally:
        processor.tokenizer.chat_template = None
    expected = "user said hello hello . assistant said good morning . user said was it noon ? . assistant said"
    assert decoded.split() == expected.split()


def test_a_processor_comes_back_with_all_that_it_knows(dialog_tokenizers, tmp_path):
    options = {
        "context_encoding": "hierarchical", "acts": ["x", "y"], "meta_categories": {"topic": ["a", "b"]}, "meta_values": ["age"],
        "max_turns": 2, "max_turn_length": 5, "speaker_marks": ["they:", "we:"],
    }  # fmt: skip
    DialogCVAEProcessor(*dialog_tokenizers, **options).save_pretrained(tmp_path)
    loaded = DialogCVAEProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in options} == options
    dialogue = {"messages": TALK, "act": "x", "meta": {"topic": "b", "age": 3}}
    original = DialogCVAEProcessor(*dialog_tokenizers, **options)(dialogue)
    assert all(torch.equal(original[name], tensor) for name, tensor in loaded(dialogue).items())


@pytest.mark.parametrize(
    "dialogue, message",
    [
        ([], "`text` is an empty list"),
        ({"messages": []}, "Dialogue 0 has no turns"),
        ([{"role": "ann", "content": "  "}], "Turn 0 of dialogue 0 is .* it needs a `role` and a `content`"),
        ([TALK, [*TALK, {"role": "bob"}]], "Turn 3 of dialogue 1"),
        ({"messages": TALK, "act": "dance"}, "The act 'dance' of dialogue 0 is not known; choose one of x, y"),
        ({"messages": TALK, "meta": {"topic": "c"}}, r"`meta\['topic'\]` of dialogue 0 is 'c'; choose one of a, b"),
        ({"messages": TALK}, r"`meta` of dialogue 0 has \[\]; the processor reads \['topic'\]"),
        ({"messages": TALK, "mood": "gay"}, "Dialogue 0 has mood"),
        ("hello", "`text` is 'hello', of type str; it should be a dialogue"),
        (["hello"], "`dialogue 0` is 'hello', of type str; it should be a list of messages"),
        ({"role": "ann", "content": "hello"}, "it should be a dialogue, which is a list of messages"),
        ({"messages": TALK, "role": "system"}, "The `role` of dialogue 0 is 'system', which never replies"),
    ],
)
def test_dialogues_that_cannot_be_read_are_named(dialog_tokenizers, dialogue, message):
    processor = DialogCVAEProcessor(*dialog_tokenizers, acts=["x", "y"], meta_categories={"topic": ["a", "b"]})
    if isinstance(dialogue, list) and dialogue and isinstance(dialogue[0], list):
        dialogue = [{"messages": each, "meta": {"topic": "a"}} for each in dialogue]
    with pytest.raises(ValueError, match=message):
        processor(dialogue)


def test_bad_processors_are_named(dialog_tokenizers):
    with pytest.raises(ValueError, match="`max_turns` is 0"):
        DialogCVAEProcessor(*dialog_tokenizers, max_turns=0)
    with pytest.raises(ValueError, match="give two marks"):
        DialogCVAEProcessor(*dialog_tokenizers, speaker_marks=["you:"])
    with pytest.raises(ValueError, match="`context_encoding` is 'tree'"):
        DialogCVAEProcessor(*dialog_tokenizers, context_encoding="tree")


def test_a_corpus_has_the_same_columns_whichever_turns_are_annotated(dialog_tokenizers):
    processor = DialogCVAEProcessor(*dialog_tokenizers, acts=["x", "y"])
    assert processor([TALK, TALK[:1]], ["yes", "no"])["act_labels"].tolist() == [-100, -100]
    assert "act_labels" not in processor([TALK, TALK[:1]])


def test_a_processor_may_know_how_much_of_a_context_it_reads(dialog_tokenizers, tmp_path):
    whole = DialogCVAEProcessor(*dialog_tokenizers)
    processor = DialogCVAEProcessor(*dialog_tokenizers, max_context_length=12)
    processor.save_pretrained(tmp_path)
    loaded = DialogCVAEProcessor.from_pretrained(tmp_path)
    for own in (processor, loaded):
        assert own(TALK)["prompt_input_ids"].tolist() == whole(TALK, max_length=12)["prompt_input_ids"].tolist()
        assert own(TALK, max_length=99)["input_ids"].tolist() == whole(TALK)["input_ids"].tolist()
    with pytest.raises(ValueError, match="`max_context_length` is 0"):
        DialogCVAEProcessor(*dialog_tokenizers, max_context_length=0)


@pytest.mark.parametrize("context_encoding", ["flat", "hierarchical"])
def test_paddings_of_dialogues(dialog_tokenizers, context_encoding):
    processor = DialogCVAEProcessor(*dialog_tokenizers, context_encoding=context_encoding, meta_values=["age"])
    dialogues = [{"messages": TALK, "meta": {"age": 0.5}}, {"messages": TALK[:1], "meta": {"age": 1}}]
    targets = ["yes , it was", "no"]
    expected, arrays = processor(dialogues, targets), processor(dialogues, targets, return_tensors="np")
    for name, tensor in expected.items():
        assert arrays[name].dtype == tensor.numpy().dtype and (arrays[name] == tensor.numpy()).all(), name
    rows = [dict(processor(dialogue, target, return_tensors=None)) for dialogue, target in zip(dialogues, targets)]
    wide = processor.pad(rows, pad_to_multiple_of=8)
    for name in ("input_ids", "prompt_input_ids", "posterior_input_ids", "labels"):
        assert wide[name].shape[-1] % 8 == 0, name
    lengths = {"padding": "max_length", "max_length": 40, "max_target_length": 16}
    if context_encoding == "hierarchical":
        with pytest.raises(ValueError, match="turns are padded to the longest one"):
            processor(dialogues, targets, **lengths)
    else:
        full = processor(dialogues, targets, **lengths)
        assert [full[name].shape[1] for name in ("input_ids", "prompt_input_ids", "posterior_input_ids", "labels")] == [
            40,
            40,
            56,
            16,
        ]
        assert full["prompt_input_ids"][0, -5:].tolist() == expected["prompt_input_ids"][0, -5:].tolist()


def test_the_tokenizers_that_are_given_stay_as_they_are(dialog_tokenizers):
    tokenizer, encoder_tokenizer = map(copy.deepcopy, dialog_tokenizers)
    for each in (tokenizer, encoder_tokenizer):
        each.truncation_side = "right"
    before = encoder_tokenizer(["was it noon ?"], truncation=True, max_length=4)["input_ids"]
    processor = DialogCVAEProcessor(tokenizer, encoder_tokenizer)
    processor(TALK, ["yes , it was"], max_length=9, max_target_length=4)
    assert encoder_tokenizer(["was it noon ?"], truncation=True, max_length=4)["input_ids"] == before
    assert (tokenizer.truncation_side, tokenizer.padding_side) == (
        dialog_tokenizers[0].truncation_side,
        dialog_tokenizers[0].padding_side,
    )
    assert processor.encoder_tokenizer.truncation_side == "left"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("much", r"`meta\['age'\]` of dialogue 0 is 'much'; it must be a finite number"),
        (None, "is None; it must be a finite number"),
        (10**400, "0; it must be a finite number"),
        (float("nan"), "is nan; it must be a finite number"),
        ([1], r"is \[1\]; it must be a finite number"),
    ],
)
def test_meta_values_are_finite_numbers(dialog_tokenizers, value, message):
    processor = DialogCVAEProcessor(*dialog_tokenizers, meta_values=["age"])
    with pytest.raises(ValueError, match=message):
        processor({"messages": TALK, "meta": {"age": value}})
    with pytest.raises(ValueError, match=r"`meta` of dialogue 0 has \['age'\]; the processor reads \['age'\]"):
        processor({"messages": TALK, "meta": ["age"]})
    categories = DialogCVAEProcessor(*dialog_tokenizers, meta_categories={"age": [1, 2]})
    with pytest.raises(ValueError, match=r"is '1'; choose one of 1, 2"):
        categories({"messages": TALK, "meta": {"age": "1"}})


@pytest.mark.parametrize(
    "options",
    [
        {"acts": "tell"},
        {"acts": ["tell", "tell"]},
        {"meta_values": ["a", "a"]},
        {"meta_categories": {"c": "xy"}},
        {"meta_categories": {"c": ["x", "x"]}},
        {"speaker_marks": ["-", "-"]},
    ],
)
def test_names_of_a_processor_can_be_told_apart(dialog_tokenizers, options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}.*give a list in which no two are equal"):
        DialogCVAEProcessor(*dialog_tokenizers, **options)


def test_a_session_refuses_what_cannot_be_meant(dialog_tokenizers):
    encoder, decoder = small_configs(dialog_tokenizers[0], decoder_type="gpt2", hidden_size=16, num_attention_heads=2)
    model = DialogCVAEModel(DialogCVAEConfig(encoder=encoder, decoder=decoder, latent_size=4))
    processor = DialogCVAEProcessor(*dialog_tokenizers)
    for arguments, message in (
        ((make_model("vae"), processor), "`model` is a VAEModel; a conversation needs a DialogCVAEModel"),
        ((model, dialog_tokenizers[0]), "`processor` is a .*; a conversation needs a DialogCVAEProcessor"),
        ((model, processor, "system"), "`role` is 'system', which never replies"),
    ):
        with pytest.raises(ValueError, match=message):
            DialogSession(*arguments)
    session = DialogSession(model, processor)
    with pytest.raises(ValueError, match="`content` is None; give a text that is not empty"):
        session.say(None)
    session.say("hello")
    for options, message in (
        ({"num_return_sequences": -1}, "`num_return_sequences` is -1"),
        ({"latent_temperature": -1.0}, "`latent_temperature` is -1.0"),
        ({"latent_temperature": float("nan")}, "`latent_temperature` is nan"),
        ({"max_length": 1}, "`max_length` is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            session.replies(**options)
    plain = session.replies(2, latent_temperature=0.0, **GREEDY)
    assert [reply.text for reply in session.replies(2, latent_temperature=0.0, return_dict_in_generate=True, **GREEDY)] == [
        reply.text for reply in plain
    ]


def test_replies_have_the_attributes_that_are_asked_for(dialog_tokenizers):
    encoder, decoder = small_configs(dialog_tokenizers[0], decoder_type="gpt2", hidden_size=16, num_attention_heads=2)
    model = DialogCVAEModel(DialogCVAEConfig(encoder=encoder, decoder=decoder, latent_size=4))
    tone = LatentAttribute(4, ["cold", "warm"])
    tone.weight.copy_(torch.tensor([[-2.0, 0, 0, 0], [2.0, 0, 0, 0]]))
    model.set_attribute("tone", tone)
    session = DialogSession(model, DialogCVAEProcessor(*dialog_tokenizers), generator=torch.Generator().manual_seed(0))
    session.say("hello")
    for label in ("cold", "warm"):
        replies = session.replies(4, attributes={"tone": label}, attribute_weight=20.0, **GREEDY)
        assert tone.predict(torch.stack([reply.latents for reply in replies])) == [label] * 4
    with pytest.raises(ValueError, match="`attributes` names 'mood', and this model has 'tone'"):
        session.replies(attributes={"mood": "warm"}, **GREEDY)
    with pytest.raises(ValueError, match="`attribute_weight` is given without `attributes`"):
        session.replies(attribute_weight=2.0, **GREEDY)
