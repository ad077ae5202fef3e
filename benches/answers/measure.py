"""What it costs to keep an answer to a schema, and what drafts gain: ratios of tokens a second of two commands that run in turn.

    python3 measure.py PROGRAM MODEL

Prints the rows of a table: the median of the rounds, the least and the most, and the tokens of an answer.
"""
import json
import statistics
import subprocess
import sys

ROUNDS = 9
PROGRAM, MODEL = sys.argv[1:]


def schema(properties):
    return json.dumps({"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties})


# So many tags that each answer is cut off, and none is shorter than the other.
PERSON = {"name": {"type": "string"}, "age": {"type": "integer"},
          "tags": {"type": "array", "items": {"type": "string"}, "minItems": 150}}
KINDS = [{"type": "string", "maxLength": 20}, {"type": "integer", "minimum": 0, "maximum": 1000}, {"type": "boolean"},
         {"enum": ["red", "green", "blue"]}, {"type": "array", "items": {"type": "number"}, "maxItems": 3}]
FIFTY = {f"field_{i}": KINDS[i % len(KINDS)] for i in range(50)}
FRUIT = ["apple", "pear", "plum", "fig", "kiwi", "melon", "grape", "lemon"]
ITEMS = [{"id": i, "name": name, "price": 1.25 + i, "stock": 10 + 3 * i} for i, name in enumerate(FRUIT)]
EDIT = ("Change the price of pear to 9.99 in this JSON, and write the whole JSON again, with no other change:\n"
        + json.dumps(ITEMS, indent=1))
PROSE = "Write a long story about a keeper of a lighthouse who finds a letter."


def masked(properties):
    common = ["complete", "-p", "Describe a person in JSON. ", "-n", "150", "--speculate", "off"]
    return common, ["--ignore-eos"], ["--json-schema", schema(properties)]


def drafted(text):
    return ["chat", "-p", text, "-n", "200"], ["--speculate", "off"], ["--speculate", "auto"]


def run(options):
    """The text, its tokens, and how many of them a second."""
    command = [PROGRAM, *options, "-m", MODEL, "-t", "2", "--temp", "0", "--json"]
    # Where a document is cut off, it ends with 1.
    end = json.loads(subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1])
    times = end["timings"]
    return end["text"], times["predicted_n"], times["predicted_n"] / times["predicted_ms"]


for name, asked, (common, *both), same in [
    ("with a schema of 3 fields", "≥ 0.95", masked(PERSON), False),
    ("with a schema of 50 fields", "≥ 0.85", masked(FIFTY), False),
    ("drafts: a JSON text with one change", "≥ 1.5", drafted(EDIT), True),
    ("drafts: prose", "≥ 0.98", drafted(PROSE), True),
]:
    ratios = []
    for i in range(ROUNDS):
        # The first is not always the first.
        answers = {j: run(common + both[j]) for j in ([0, 1] if i % 2 else [1, 0])}
        assert not same or answers[0][0] == answers[1][0], answers
        assert answers[0][1] == answers[1][1], answers
        ratios.append(answers[1][2] / answers[0][2])
    print(f"| {name} | {asked} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} | {answers[1][1]} |")
