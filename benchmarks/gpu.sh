#!/usr/bin/env bash
# What is worth knowing on a GPU that is there for minutes: the tests, what the models cost, and one recipe between pretrained parts.
set -uo pipefail

usage() {
    cat <<'TEXT'
bash benchmarks/gpu.sh FOLDER [options]

Runs, in this order, each for at most its time and each whether or not another failed:
  tests       those that are not slow; what they train with the Trainer trains on the GPU; 150 s
  benchmarks  the rows of training step, generate and bound, small and then base; 100 s each
  recipe      examples/train_paraphrase.py between pretrained parts, on --data; 120 s
FOLDER gets a log of each, the benchmarks' tables, the recipe's metrics.json and card, and summary.txt: part, exit status, seconds.
Ends with 1 if a part failed; 124 in the summary is a part that ran out of time.

  --parts "NAME ..."   some of the parts
  --recipe FILE        YAML of the recipe; without it, the arguments' defaults
  --encoder NAME       Hub id or folder; sentence-transformers/all-MiniLM-L6-v2
  --decoder NAME       Hub id or folder; HuggingFaceTB/SmolLM2-135M-Instruct
  --data DIR           train.jsonl, validation.jsonl and test.jsonl, a "source" and its "targets" in each line
  --steps N            of the recipe, with z; 250
  --workers N          processes of the tests; 12
  --python PROGRAM     python3
  --dry-run            on the CPU, at toy sizes: whether everything would run; the recipe is the embedded one, from scratch
TEXT
}

refuse() {
    echo "gpu.sh: $1" >&2
    exit 2
}

parts="tests benchmarks recipe" recipe="" data="" steps=250 workers=12 python=python3 dry_run="" folder=""
encoder=sentence-transformers/all-MiniLM-L6-v2 decoder=HuggingFaceTB/SmolLM2-135M-Instruct
while (($#)); do
    case $1 in
    --parts | --recipe | --encoder | --decoder | --data | --steps | --workers | --python)
        (($# > 1)) || refuse "$1 wants a value."
        declare "${1#--}=$2"
        shift 2
        ;;
    --dry-run) dry_run=yes && shift ;;
    --help) usage && exit ;;
    -*) refuse "there is no option $1; --help lists them." ;;
    *)
        [[ -z $folder ]] || refuse "one folder for the results, not both $folder and $1."
        folder=$1 && shift
        ;;
    esac
done
[[ -n $folder ]] || refuse "name a folder for the results; --help says more."
for part in $parts; do
    [[ " tests benchmarks recipe " == *" $part "* ]] || refuse "--parts names $part; choose of tests, benchmarks, recipe."
done
[[ -z $recipe || -f $recipe ]] || refuse "--recipe $recipe is no file."
if [[ -z $dry_run && " $parts " == *" recipe "* ]]; then
    [[ -n $data ]] || refuse "the recipe needs --data; leave it out with --parts \"tests benchmarks\"."
    for split in train validation test; do
        [[ -f $data/$split.jsonl ]] || refuse "--data $data holds no $split.jsonl."
    done
fi
if [[ -z $dry_run ]]; then
    "$python" -c "import torch, sys; sys.exit(not torch.cuda.is_available())" || refuse "torch sees no GPU here; --dry-run needs none."
fi

# Paths on the command line are the caller's, the rest is the repository's.
mkdir -p "$folder" || exit 2
folder=$(realpath "$folder")
for name in recipe data encoder decoder; do
    [[ ! -e ${!name} ]] || declare "$name=$(realpath "${!name}")"
done
# Not its real path: a virtual environment's interpreter is a link, and is known by where it lies.
[[ $python != */* || $python == /* ]] || python=$PWD/$python
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=PASSIVE
: >"$folder/summary.txt"
# What is tried dry may be tried on a busy machine.
failed=0 patience=${dry_run:+10} patience=${patience:-1}

# run NAME SECONDS COMMAND ...: pytest and the benchmarks keep what they have when they are interrupted.
run() {
    local name=$1 limit=$(($2 * patience)) start=$SECONDS status
    shift 2
    echo "== $name: $*"
    timeout --signal=INT --kill-after=10 "$limit" "$@" >"$folder/$name.log" 2>&1
    status=$?
    ((status == 0)) || failed=1
    tail -n 5 "$folder/$name.log"
    echo "$name: exit status $status, $((SECONDS - start)) s" | tee -a "$folder/summary.txt"
}

asked() { [[ " $parts " == *" $1 "* ]]; }

if asked tests; then
    which=(-n "$workers")
    [[ -z $dry_run ]] || which=(tests/models/test_gaussian.py)
    OMP_NUM_THREADS=1 run tests 150 "$python" -m pytest -q -m "not slow" --tb=short -rfE -p no:cacheprovider "${which[@]}"
fi

if asked benchmarks; then
    sizes=(small base) how=(--device cuda --repeats 7)
    [[ -z $dry_run ]] || sizes=(toy) how=(--device cpu --threads 1 --repeats 2)
    for size in "${sizes[@]}"; do
        run "benchmarks_$size" 100 "$python" -m benchmarks --cases training_step generation importance_bound --sizes "$size" --quick \
            "${how[@]}" --output "$folder/benchmarks_$size.json" --markdown "$folder/benchmarks_$size.md"
    done
fi

if asked recipe; then
    trained=$(mktemp -d)
    arguments=(${recipe:+"$recipe"} --output_dir "$trained" --report_to none --save_strategy no --logging_steps 20)
    if [[ -n $dry_run ]]; then
        arguments+=(--use_cpu --max_steps 2 --latent_free_steps 0 --grammar_pairs 200 --max_test_samples 4 --importance_samples 2)
    else
        arguments+=(--encoder_name_or_path "$encoder" --decoder_name_or_path "$decoder" --bf16 --max_steps "$steps"
            --train_file "$data/train.jsonl" --validation_file "$data/validation.jsonl" --test_file "$data/test.jsonl"
            --max_test_samples 200 --importance_samples 100)
    fi
    run recipe 120 "$python" examples/train_paraphrase.py "${arguments[@]}"
    for file in metrics.json README.md latent.png; do
        [[ ! -f $trained/$file ]] || cp "$trained/$file" "$folder/recipe_$file"
    done
    rm -rf "$trained"
fi
exit $failed
