#!/usr/bin/env python3
"""Makes names.json and words.json: the pre-tokenisers of llama.cpp, and hashes of the words they split texts into.

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36      # and unpack it
    python3 make.py llama_cpp_python-0.3.36/vendor/llama.cpp               # needs g++

Names, flags and regexes are read out of llama-vocab.cpp; the splitting is done by llama.cpp's unicode_regex_split, which
split.cpp calls. The texts are those of ../smollm.json (43 scripts and languages, code, markup, emoji, white space,
numbers) and TEXTS random ones, which the test makes anew from the recipe in words.json. A hash (FNV-1a, 64 bits) is over
BLOCK texts: each word's bytes, then FF; after a text, FE.

    python3 make.py LLAMA --words GROUP FIRST COUNT                        # prints words, to find a difference
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXTS, BLOCK, SEED = 6000, 500, 0x9E3779B97F4A7C15
ALPHABET = (
    "aZbQ'ssStTreRvEllLdDmMkK" "0123456789٣²½Ⅷ" "  \t\n\r\n\v\f\u00a0\u3000\u2028\u0085\u200b"
    "éÉßΩωЖжǅʰªµſא漢字かなカㄅ가ㄱไทยລកმ" "\u0301\u0300\u093f\u0e31\u20dd" "!#$%&()*+,-./:;<=>?@[\\]^_`{|}~"
    "“”‘—…、。，！：～।۔،¡€£±×÷©" "😀\u200d\ufe0f\u0378\ue000豈𠀀𐐀\x01\x1c\x1f\x7f"
)
CHUNKS = [
    "don't", "I'LL", " HELLOworld", "XMLHttp", "  ", "\n\n", " \n ", "12345", " 1234567", "ÉCOLE", "École", "aÉb", "AÉB", "AÉBc",
    "//\n/", "हिन्दी", "ﬁ", "it’s", "\r\n\r\n", ".Foo", " (bar)", "\t\tx", "   y", "1,234,567.89", "e\u0301E\u0301s'S", " a b c",
]


class Random:
    """Xorshift, as the test has it."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        s = self.state
        s ^= s << 13 & 0xFFFFFFFFFFFFFFFF
        s ^= s >> 7
        s ^= s << 17 & 0xFFFFFFFFFFFFFFFF
        self.state = s
        return (s >> 33) % n


def random_texts():
    rng = Random(SEED)

    def item():
        kind = rng.below(64)
        if kind < 16:
            return CHUNKS[rng.below(len(CHUNKS))]
        char = ALPHABET[rng.below(len(ALPHABET))]
        return char * (1 + rng.below(700)) if kind == 63 and rng.below(4) == 0 else char

    return ["".join(item() for _ in range(1 + rng.below(24))) for _ in range(TEXTS)]


def corpus():
    lines = (HERE.parent / "smollm.json").read_text(encoding="ascii").splitlines()
    return [text for line in lines if (text := json.loads(line)["text"])] + random_texts()  # none is empty


def unescape(literal):
    """The value of a C++ string literal, as far as llama.cpp's regexes use escapes."""
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1], m[1]), literal)


def regexes(source):
    """{LLAMA_VOCAB_PRE_TYPE_: [regex, ...]}"""
    body = source[source.index("struct llm_tokenizer_bpe : llm_tokenizer"):source.index("struct llm_tokenizer_bpe_session")]
    found, names, current = {}, [], None
    for line in map(str.strip, body.split("\n")):
        if case := re.match(r"case LLAMA_VOCAB_PRE_TYPE_(\w+):", line):
            names.append(case[1])
        elif line.startswith("default:"):
            names.append("DEFAULT")
        elif "regex_exprs = {" in line:
            current = []
        elif current is not None and line.startswith("}"):
            found |= {name: current for name in names}
            names, current = [], None
        elif current is not None and (literal := re.match(r'"((?:[^"\\]|\\.)*)"', line)):
            current.append(unescape(literal[1]))
    return found


def pre_types(source):
    """{name: (LLAMA_VOCAB_PRE_TYPE_, flags)}"""
    start = source.index('} else if (tokenizer_pre == "default") {')
    body = source[start:source.index('throw std::runtime_error(format("unknown pre-tokenizer type', start)]
    found = {}
    for condition, then in re.findall(r"if \(\s*(tokenizer_pre ==.*?)\)\s*\{(.*?)\}", body, re.S):
        group = re.search(r"pre_type = LLAMA_VOCAB_PRE_TYPE_(\w+);", then)[1]
        flags = {
            "ignore_merges": "ignore_merges = true" in then,
            # llama.cpp sets it later for Gemma 4's type.
            "add_bos": "add_bos = true" in then or group == "GEMMA4",
            "no_bos": "special_bos_id = LLAMA_TOKEN_NULL" in then,
        }
        for name in re.findall(r'"([^"]+)"', condition):
            found[name] = (group, flags)
    return found


def split(llama, groups, texts):
    """For each group its list of lists of words."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/split"
        sources = [HERE / "split.cpp", llama / "src/unicode.cpp", llama / "src/unicode-data.cpp"]
        subprocess.run(["g++", "-O1", "-o", program, f"-I{llama}/src", *sources], check=True)
        for group, expressions in groups:
            lines = ["C"] + ["R " + e.encode().hex() for e in expressions] + ["T " + t.encode().hex() for t in texts]
            run = subprocess.run([program], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, text=True, check=True)
            out = run.stdout.split("\n")[:-1]
            assert len(out) == len(texts), group
            yield group, [[bytes.fromhex(word) for word in line.split()] for line in out]


def fnv(texts):
    h = 0xCBF29CE484222325
    for words in texts:
        for byte in b"".join(word + b"\xff" for word in words) + b"\xfe":
            h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("llama", type=Path)
    args.add_argument("--words", nargs=3, metavar=("GROUP", "FIRST", "COUNT"))
    args = args.parse_args()
    source = (args.llama / "src/llama-vocab.cpp").read_text(encoding="utf-8")
    expressions, names, texts = regexes(source), pre_types(source), corpus()
    if args.words:
        group, first, count = args.words[0], int(args.words[1]), int(args.words[2])
        texts = texts[first:first + count]
        for text, words in zip(texts, next(split(args.llama, [(group, expressions[group])], texts))[1]):
            print(ascii(text), *(ascii(word.decode()) for word in words), sep="\n    ")
        return
    wanted = sorted({group for group, _ in names.values()})
    # Groups without a regex of their own have the default one. That of "whitespace" is split as well, though the library does
    # not support it.
    groups = [(group, expressions.get(group, expressions["DEFAULT"])) for group in wanted]
    hashes = {}
    for group, words in split(args.llama, groups, texts):
        assert all(b"".join(w) == t.encode() for w, t in zip(words, texts)), group
        hashes[group] = [fnv(words[i:i + BLOCK]) for i in range(0, len(texts), BLOCK)]
        print(group, file=sys.stderr)
    flat = {name: {"group": group, **flags} for name, (group, flags) in sorted(names.items())}
    with open(HERE / "names.json", "w", encoding="ascii", newline="\n") as file:
        file.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in flat.items()) + "\n}\n")
    recipe = {"seed": SEED, "texts": TEXTS, "block": BLOCK, "alphabet": ALPHABET, "chunks": CHUNKS, "hashes": hashes}
    with open(HERE / "words.json", "w", encoding="ascii", newline="\n") as file:
        file.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in recipe.items()) + "\n}\n")


if __name__ == "__main__":
    main()
