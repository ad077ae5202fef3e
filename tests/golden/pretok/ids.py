#!/usr/bin/env python3
"""Makes ids.json: hashes of the token ids that llama.cpp gives, for each pre-tokeniser, and ../gemma4.gguf with them.

    pip install llama-cpp-python==0.3.36 gguf
    python3 ids.py             # uses ../bpe.gguf and ../gemma4.gguf
    python3 ids.py --train     # trains ../gemma4.gguf afresh

Where words.json has the words of a text, this has all that follows from a name: BOS, words taken whole, bytes or
characters. The texts are the first TEXTS of words.json. A hash (FNV-1a, 64 bits) is over the ids of all texts, first plain, then with
special tokens added and parsed; each id as four bytes, least first, and FF FF FF FF after a text.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import gguf

import make

HERE = Path(__file__).resolve().parent
TEXTS = 1723
sys.path.insert(0, str(HERE.parent))
import make_golden  # noqa: E402


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def train_gemma4(out, merges=1200, longest=10):
    """A small vocabulary as Gemma 4's: BPE of characters that crosses blanks, every split of a token among the merges."""
    lines = [line.replace(" ", "▁") for text in make.corpus()[:500] for line in text.split("\n")]
    counts = Counter(char for line in lines for char in line)
    letters = sorted(char for char, n in counts.items() if n > 20 and char != "\0")
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn|>", "<|tool_response>", "</s>", "<tool>"]
    special = set(tokens)
    words = [list(line) for line in lines]
    joined = []
    while len(joined) < merges:
        pairs = Counter()
        for word in words:
            known = (p for p in zip(word, word[1:]) if all(x[0] in letters for x in p) and len(p[0] + p[1]) <= longest)
            pairs.update(p for p in known if p[0] + p[1] not in special)
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        if left + right not in joined:
            joined.append(left + right)
        for w, word in enumerate(words):
            i, merged = 0, []
            while i < len(word):
                both = word[i:i + 2] == [left, right]
                merged.append(left + right if both else word[i])
                i += 2 if both else 1
            words[w] = merged
    kinds = gguf.TokenType
    types = [kinds.CONTROL] * 3 + [kinds.UNKNOWN] + [kinds.CONTROL] * 3 + [kinds.USER_DEFINED]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [kinds.BYTE] * 256
    # Of line feeds, two are merged and three are not.
    tokens += ["\n", "\n\n", "\n\n\n", *letters, *joined]
    types += [kinds.NORMAL] * (len(tokens) - len(types))
    assert len(set(tokens)) == len(tokens)
    known = set(tokens)
    rules = [f"{t[:i]} {t[i:]}" for t in joined for i in range(1, len(t)) if t[:i] in known and t[i:] in known]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["\n \n", *rules])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    finish(writer)


def ids(path, texts):
    """The ids of all texts, plain and with special tokens, each text's as a list of ids."""
    vocabulary = make_golden.Vocabulary(path)
    out = [vocabulary.tokenize(text, special, special) for special in (False, True) for text in texts]
    vocabulary.close()
    return out


def fnv(lists):
    h = 0xCBF29CE484222325
    for tokens in lists:
        for byte in b"".join(t.to_bytes(4, "little") for t in [*tokens, 0xFFFFFFFF]):
            h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def main():
    log = make_golden.quiet()
    gemma4, bpe = HERE.parent / "gemma4.gguf", HERE.parent / "bpe.gguf"
    if "--train" in sys.argv:
        train_gemma4(gemma4)
    texts = make.corpus()[:TEXTS]
    hashes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(json.loads((HERE / "names.json").read_text(encoding="ascii"))):
            # Not supported.
            if name == "whitespace":
                continue
            changed = Path(folder) / "vocabulary.gguf"
            make_golden.copy_vocabulary(bpe, changed, pre=name)
            hashes[name] = fnv(ids(changed, texts))
            print(name, hashes[name], file=sys.stderr)
    hashes["gemma4.gguf"] = fnv(ids(gemma4, texts))
    with open(HERE / "ids.json", "w", encoding="ascii", newline="\n") as file:
        file.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in hashes.items()) + "\n}\n")
    del log


if __name__ == "__main__":
    main()
