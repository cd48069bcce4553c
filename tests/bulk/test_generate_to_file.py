"""`generate_to_file`: what it writes, that it goes on where it stopped, and what it refuses."""

import json

import pytest
import torch
from datasets import Dataset, IterableDataset, load_dataset

from helpers import TARGETS, TEXTS, VARIANTS, listening, make_model, resized, write_rows
from hf_vae import DialogCVAEProcessor, ParaphraseVAEProcessor, VAEProcessor
from hf_vae.bulk import generate_to_file
from hf_vae.bulk.batch_writer import BatchWriter
from hf_vae.calls import call_with
from hf_vae.evaluation import generate_texts
from hf_vae.evaluation.distributed import spread_samples
from hf_vae.evaluation.generation import decode_tokens

SHORT = {"num": 3, "max_new_tokens": 6}
TALK = [{"role": "ann", "content": "a dog"}, {"role": "bob", "content": "the mat"}, {"role": "ann", "content": "a cat"}]
SOURCES = [*TEXTS, *TARGETS, "the dog", "a mat in the park"]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def generate(model, processor, rows, path, **options):
    done = generate_to_file(model, processor, rows, path, **{**SHORT, **options})
    return done, read(path)


@pytest.fixture
def pair(processor):
    """A paraphrase model whose decoder listens to z, and its processor."""
    return listening(resized(make_model("paraphrase-prompt"), processor)), processor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def processor_of(variant, tokenizers):
    if variant.startswith("vae"):
        return VAEProcessor(*tokenizers)
    conditioning = make_model(variant).config.source_conditioning
    if not variant.startswith("dialog"):
        return ParaphraseVAEProcessor(*tokenizers, source_conditioning=conditioning)
    options = {
        "dialog": {"meta_categories": {"place": ["x", "y", "z"], "time": ["a", "b"]}, "meta_values": ["age"]},
        "dialog-acts": {"acts": ["x", "y", "z"]},
        "dialog-lstm": {"acts": ["x", "y", "z"], "context_encoding": "hierarchical"},
    }[variant]
    return DialogCVAEProcessor(*tokenizers, source_conditioning=conditioning, **options)


def sources_of(variant):
    if not variant.startswith("dialog"):
        return TEXTS[:3]
    meta = {"meta": {"place": "y", "time": "a", "age": 2}} if variant == "dialog" else {}
    return [{"messages": [*TALK[:row], {"role": "ann", "content": TEXTS[row + 2]}], **meta} for row in range(3)]


def fitted(variant, processor):
    """A model whose decoder listens to z, with a vocabulary that is the processor's."""
    model = resized(make_model(variant), processor)
    if getattr(model.config, "tie_encoders", True) is False:
        model.source_encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
    return listening(model)


def by_hand(model, processor, source, number, num, origin, **options):
    """The outputs of one source and -log p of the tokens written, from the scores of `generate`, one source at a time."""
    inputs = processor([source])
    given = call_with(model.read_source, inputs)
    dist = call_with(model.encode, inputs, source=given).latent_dist if origin == "posterior" else model.prior(given, 1).latent_dist
    latents = dist.from_noise(spread_samples([number], num, dist.noise_size, 0, "independent"))[0]
    output = model.generate(
        **inputs, latents=latents, num_return_sequences=num, do_sample=False, output_logits=True, return_dict_in_generate=True,
        **options,
    )  # fmt: skip
    tokens = output.sequences[:, 1:]
    log_probs = torch.stack(output.logits, 1).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return tokens, log_probs, latents


@pytest.mark.parametrize("variant", [each for each in VARIANTS if each not in ("dialog-acts", "dialog-lstm")])
def test_rows_are_the_model_s_texts_with_their_nll(variant, tokenizers, path):
    processor = processor_of(variant, tokenizers)
    model = fitted(variant, processor)
    sources, ends = sources_of(variant), model.generation_config.eos_token_id
    done, rows = generate(model, processor, sources, path)
    assert (done.rows, done.generated) == (3, 3) and [list(row) for row in rows] == [["source", "outputs", "seed", "nats"]] * 3
    origin = "posterior" if variant.startswith("vae") else "prior"
    for number, (source, row) in enumerate(zip(sources, rows)):
        assert row["source"] == (source if isinstance(source, str) else source["messages"]) and row["seed"] == 0
        tokens, log_probs, _ = by_hand(model, processor, source, number, 3, origin, max_new_tokens=6)
        assert row["outputs"] == [decode_tokens(processor, each) for each in tokens]
        for ids, each, nats in zip(tokens.tolist(), log_probs, row["nats"]):
            length = ids.index(ends) + 1 if ends in ids else len(ids)
            assert nats == pytest.approx(-each[:length].sum().item(), abs=1e-3)
    if variant == "paraphrase-prompt":
        # Each output has a z of its own.
        assert len({text for row in rows for text in row["outputs"]}) > 3


def test_an_eos_that_was_written_counts_and_nothing_behind_it(pair, path):
    model, processor = pair
    tokens, log_probs, _ = by_hand(model, processor, TEXTS[0], 0, 3, "prior", max_new_tokens=6)
    # The third token of the first output ends the texts from now on.
    end = tokens[0, 2].item()
    lengths = [row.index(end) + 1 if end in row else 6 for row in tokens.tolist()]
    assert min(lengths) < 6
    _, [row] = generate(model, processor, TEXTS[:1], path, eos_token_id=[end, model.generation_config.eos_token_id])
    expected = [-each[:length].sum().item() for each, length in zip(log_probs, lengths)]
    assert row["nats"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("variant", ["dialog-acts", "dialog-lstm"])
def test_an_act_is_performed_if_it_is_asked_for_and_else_summed_over(variant, tokenizers, path):
    processor = processor_of(variant, tokenizers)
    model = fitted(variant, processor)
    talks = [{"messages": TALK, "act": "y"}, {"messages": TALK}]
    _, rows = generate(model, processor, talks, path, block_size=2)
    for number, (talk, row) in enumerate(zip(talks, rows)):
        tokens, _, latents = by_hand(model, processor, talk, number, 3, "prior", max_new_tokens=6)
        assert row["outputs"] == [decode_tokens(processor, each) for each in tokens]
        labels = BatchWriter(model, processor, 3, 0, "prior", 1.0, "independent").labels(tokens)
        given = model.condition(call_with(model.read_source, processor([{"messages": TALK}])))
        given = {name: each.repeat_interleave(3, 0) for name, each in given.items()}
        joint = []
        with torch.no_grad():
            log_acts = model.predict_acts(latents, given["context"])
            for act in range(3):
                nll = model.nll(latents, labels, **given, act_labels=torch.full((3,), act))
                joint.append(-nll + (log_acts[:, act] if number else 0))
        expected = -(torch.stack(joint).logsumexp(0) if number else joint[1])
        assert row["nats"] == pytest.approx(expected.tolist(), abs=1e-3)


def test_rows_of_turns_are_replied_to(tokenizers, path, tmp_path):
    processor = processor_of("dialog-acts", tokenizers)
    model = resized(make_model("dialog-acts"), processor)
    turns = [{"speaker": turn["role"], "text": turn["content"]} for turn in TALK]
    rows = [{"turns": turns}, {"turns": turns[:2], "response": "unread", "response_speaker": "ann", "act": "z"}]
    _, written = generate(model, processor, write_rows(tmp_path / "talks.jsonl", rows), path)
    assert [row["source"] for row in written] == [TALK, TALK[:2]]
    asked = [{"messages": TALK, "role": None}, {"messages": TALK[:2], "role": "ann", "act": "z"}]
    assert generate(model, processor, asked, tmp_path / "asked.jsonl")[1] == written
    # A model without acts is not asked for one.
    plain = DialogCVAEProcessor(*tokenizers)
    model = resized(make_model("dialog", meta_categories=None, num_meta_values=0), plain)
    assert len(generate(model, plain, str(tmp_path / "talks.jsonl"), tmp_path / "plain.jsonl")[1]) == 2
    with pytest.raises(ValueError, match=r"Dialogue 1 of .* has no turns"):
        generate_to_file(model, plain, [rows[0], {"turns": []}], tmp_path / "bad.jsonl", **SHORT)
    with pytest.raises(ValueError, match=r"has no column turns; it has text\. A dialogue model reads rows of `turns`"):
        generate_to_file(model, plain, [{"text": "a"}], tmp_path / "bad.jsonl", **SHORT)
    with pytest.raises(ValueError, match=r"Row 1 of `rows`, counted from 0: The act 'w' of dialogue 0 is not known"):
        generate_to_file(resized(make_model("dialog-acts"), processor), processor, [asked[0], {**asked[1], "act": "w"}],
                         tmp_path / "bad.jsonl", **SHORT)  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}, {"num_beams": 2}])
def test_a_row_does_not_depend_on_its_batch_or_block(pair, path, tmp_path, options):
    # In float32 a random number may fall between two sums that other padding rounds otherwise.
    pair[0].double()
    _, rows = generate(*pair, SOURCES, path, batch_size=3, block_size=5, **options)
    for sizes in ({"batch_size": 1}, {"batch_size": 12, "block_size": 12}):
        _, others = generate(*pair, SOURCES, tmp_path / f"{sizes['batch_size']}.jsonl", **sizes, **options)
        for row, other in zip(rows, others, strict=True):
            assert {**row, "nats": None} == {**other, "nats": None}
            assert row["nats"] == pytest.approx(other["nats"], abs=1e-3)
    _, other_seed = generate(*pair, SOURCES, tmp_path / "seed.jsonl", seed=1, **options)
    assert [row["outputs"] for row in rows] != [row["outputs"] for row in other_seed]


@pytest.mark.parametrize("options", [{}, {"do_sample": True}])
def test_a_run_that_was_stopped_anywhere_ends_with_the_same_file(pair, path, options):
    shape = {"batch_size": 2, "block_size": 5, **options}
    generate(*pair, SOURCES, path, **shape)
    complete = path.read_bytes()
    # Within the first row, at the end of one, within a row in the middle of a block, and in the last block.
    ends = [place + 1 for place, byte in enumerate(complete) if byte == ord("\n")]
    for cut in (0, 10, ends[0], ends[4], ends[6] + 11, ends[9], len(complete) - 1):
        path.write_bytes(complete[:cut])
        done, _ = generate(*pair, SOURCES, path, **shape)
        assert path.read_bytes() == complete and done.generated == sum(end > cut for end in ends)


def test_outputs_are_those_of_generate_texts(pair, path):
    _, rows = generate(*pair, SOURCES, path, seed=4, block_size=5)
    expected = generate_texts(*pair, SOURCES, num_return_sequences=3, seed=4, max_new_tokens=6, do_sample=False)
    assert [row["outputs"] for row in rows] == expected


def test_what_is_there_is_not_generated_again(pair, path, monkeypatch):
    generate(*pair, SOURCES, path, block_size=4)
    before = {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.parent.iterdir()}
    monkeypatch.setattr(BatchWriter, "write", lambda *_: pytest.fail("generated"))
    done, _ = generate(*pair, SOURCES, path, block_size=4)
    assert (done.rows, done.generated) == (12, 0)
    assert str(done) == f"{path} is finished: it has the outputs of all 12 sources. Nothing was generated."
    assert {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.parent.iterdir()} == before


def test_a_file_may_grow_with_its_sources(pair, path, tmp_path):
    generate(*pair, SOURCES, path, max_rows=7, block_size=4)
    done, rows = generate(*pair, SOURCES, path, block_size=4)
    assert str(done) == f"{path} has the outputs of 12 sources. 7 of them were there before."
    assert rows == generate(*pair, SOURCES, tmp_path / "once.jsonl", block_size=4)[1]
    with pytest.raises(ValueError, match=r"has more rows than there are sources in `rows` \(5\)"):
        generate(*pair, SOURCES[:5], path)


def test_files_datasets_and_lists_are_sources(pair, path, tmp_path):
    expected = generate(*pair, TEXTS, path)[1]
    named = [{"source": text, "id": i} for i, text in enumerate(TEXTS)]
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    (tmp_path / "in.csv").write_text("n,text\n" + "".join(f"1,{text}\n" for text in TEXTS), encoding="utf-8")
    given = [
        str(tmp_path / "in.txt"),
        tmp_path / "in.txt",
        str(tmp_path / "in.csv"),
        write_rows(tmp_path / "in.jsonl", named),
        named,
        Dataset.from_list(named),
        IterableDataset.from_generator(lambda: iter(named)),
    ]
    for number, rows in enumerate(given):
        assert generate(*pair, rows, tmp_path / f"out{number}.jsonl")[1] == expected
    other = [{"x": text, "source": "a park"} for text in TEXTS]
    assert generate(*pair, other, tmp_path / "x.jsonl", source_column="x")[1] == expected
    out = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert out.column_names == ["source", "outputs", "seed", "nats"] and list(out) == expected


def test_rows_of_dialogues_have_one_form(tokenizers, path):
    processor = processor_of("dialog-acts", tokenizers)
    rows = [{"turns": [{"speaker": "ann", "text": "a dog"}]}, TALK]
    with pytest.raises(ValueError, match="Row 1 of `rows`, counted from 0, is a list, and the first has the column `turns`"):
        generate(fitted("dialog-acts", processor), processor, rows, path)


def test_a_vae_s_z_are_its_posterior_s_unless_another_source_is_named(vae_processor, tmp_path):
    model = listening(resized(make_model("vae"), vae_processor))
    still = generate(model, vae_processor, TEXTS, tmp_path / "still.jsonl", latent_temperature=0.0)[1]
    assert all(len(set(row["outputs"])) == 1 for row in still)
    prior = generate(model, vae_processor, TEXTS, tmp_path / "prior.jsonl", latent_source="prior", latent_temperature=0.0)[1]
    # The mean of N(0, I) knows no source.
    assert len({text for row in prior for text in row["outputs"]}) == 1
    spread = generate(model, vae_processor, TEXTS, tmp_path / "spread.jsonl", latent_spread="antithetic")[1]
    assert [row["outputs"] for row in spread] != [row["outputs"] for row in still]
    model.generation_config.latent_temperature = 0.0
    defaults = generate(model, vae_processor, TEXTS, tmp_path / "defaults.jsonl")[1]
    assert defaults == still


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num": 2}, "written with `num` 3, and now it is 2"),
        ({"seed": 1}, "written with `seed` 0, and now it is 1"),
        ({"max_new_tokens": 7}, "written with `max_new_tokens` 6, and now it is 7"),
        ({"do_sample": True}, "written with `do_sample` False, and now it is True"),
        ({"latent_temperature": 0.5}, "written with `latent_temperature` 1.0, and now it is 0.5"),
        ({"repetition_penalty": 1.5}, "written with `repetition_penalty` None, and now it is 1.5"),
        (
            {"rows": TEXTS[::-1]},
            "Row 0 of .*, counted from 0, was written for another source than that of `rows`: 'the cat",
        ),
    ],
)
def test_a_file_of_another_run_is_left_as_it_is(pair, path, options, message):
    generate(*pair, TEXTS, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        generate(*pair, options.pop("rows", TEXTS), path, **options)
    assert path.read_bytes() == before


def test_a_model_that_was_trained_on_is_another(pair, path):
    generate(*pair, TEXTS, path)
    with torch.no_grad():
        pair[0].decoder.get_input_embeddings().weight[5] += 1e-3
    with pytest.raises(ValueError, match="other weights than those of"):
        generate(*pair, TEXTS, path)


@pytest.mark.parametrize(
    "rows, options, message",
    [
        (TEXTS, {"num": 0}, "`num` is 0; it must be at least 1"),
        (TEXTS, {"seed": -1}, "`seed` is -1"),
        (TEXTS, {"block_size": 0}, "`block_size` is 0"),
        (TEXTS, {"max_rows": 0}, "`max_rows` is 0"),
        (TEXTS, {"max_length": 2}, "`max_length` is 2, and the encoder's tokenizer adds 2 special tokens"),
        (TEXTS, {"latent_spread": "wide"}, "`latent_spread` is 'wide'; choose one of"),
        (TEXTS, {"latent_source": "posterior"}, "reads the target, which is to be written"),
        (TEXTS, {"latent_source": "fitted_prior"}, "this model has none"),
        (TEXTS, {"attributes": {"voice": "active"}}, "`attributes` is no option"),
        (TEXTS, {"max_new_token": 3}, "`max_new_token` is no option"),
        (TEXTS, {"max_time": 3.0}, "what the clock ends cannot be generated again"),
        (TEXTS, {"stopping_criteria": [print]}, "`stopping_criteria` is a list, and a file's settings are numbers, texts"),
        (TEXTS, {"guidance_scale": 2.0}, "`guidance_scale` has no place"),
        (TEXTS, {"num_return_sequences": 3}, "`num_return_sequences` is 3, and `num` says how many texts each source gets"),
        (TEXTS, {"return_dict_in_generate": True}, "`return_dict_in_generate` is True, and texts are written"),
        (TEXTS, {"stop_strings": ["a"]}, r"`stop_strings` is \['a'\], and what is behind a text's EOS"),
        (TEXTS, {"prompt_lookup_num_tokens": 2}, "`prompt_lookup_num_tokens` is 2, and transformers speculates for one text"),
        (TEXTS, {"seed": 2**32}, "`seed` is 4294967296; it must be at most"),
        (TEXTS, {"max_new_tokens": 1000}, "`max_new_tokens` is 1000, and the decoder holds [0-9]+ tokens, those of a source among"),
        ("rotten_tomatoes", {}, "`rows` is 'rotten_tomatoes', which does not end as a file does .*: name a file, or give the rows"),
        (TEXTS, {"temperature": 0.5}, "`temperature` is 0.5, and without `do_sample` no token is drawn"),
        (TEXTS, {"do_sample": True, "temperature": 0}, "`temperature` is 0"),
        (TEXTS, {"do_sample": True, "num_beams": 2}, "beams are not drawn row by row"),
        (TEXTS, {"do_sample": True, "min_p": 0.1}, "`min_p` is 0.1; tokens are drawn by `temperature`, `top_k` and `top_p`"),
        # transformers refuses it, at the first block.
        (TEXTS, {"bad_words_ids": [[-1]]}, "`bad_words_ids` has to be a list of positive integers"),
        (iter(TEXTS), {}, "`rows` is a list_iterator, and they are read twice"),
        ([], {}, "`rows` has no rows"),
        ([*TEXTS, "  "], {}, "Row 5 of `rows`, counted from 0, has no text .found '  '.: correct or remove it. None is skipped"),
        ([{"a": "x", "b": "y"}], {}, "`rows` has no column source or text; it has a, b. Name the column with `source_column`"),
        ([{"text": "x"}], {"source_column": "y"}, "`rows` has no column y; it has text"),
        ([{"text": "x"}, {"source": "x"}], {}, "Row 1 of `rows`, counted from 0, has no text in `text` .found None."),
        (["a", "the cat " * 60], {}, r"1 of 2 rows of `rows` make more tokens than the encoder holds \(48\), up to .*: row\(s\) 1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_is_written(pair, path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        generate_to_file(*pair, rows, path, **{**SHORT, **options})
    assert not list(path.parent.iterdir())


def test_the_prompt_must_leave_room_for_the_output(pair, path):
    source = "the cat sat on the mat a dog ran in the park"
    with pytest.raises(ValueError, match=r"1 of 2 rows .* than the decoder holds \(\d+ beside `max_new_tokens` 38\).*row\(s\) 1,"):
        generate(*pair, ["the mat", source], path, max_new_tokens=38)
    assert len(generate(*pair, ["the mat", source], path, max_new_tokens=38, max_length=8)[1]) == 2


@pytest.mark.parametrize(
    "name, message",
    [
        ("out.csv", "does not end in .jsonl"),
        ("folder.jsonl", "folder.jsonl is a directory"),
        ("in.jsonl", "is the file of the sources"),
    ],
)
def test_the_file_of_outputs_must_be_one(pair, tmp_path, name, message):
    (tmp_path / "folder.jsonl").mkdir()
    rows = write_rows(tmp_path / "in.jsonl", [{"source": text} for text in TEXTS])
    with pytest.raises(ValueError, match=message):
        generate_to_file(*pair, rows, tmp_path / name, **SHORT)
