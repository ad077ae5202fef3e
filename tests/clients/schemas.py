"""Random JSON schemas for `armlet serve`, whose documents the package jsonschema validates: OPENAI_BASE_URL and OPENAI_API_KEY say
which server. Prints what became of them.

    python3 schemas.py [NUMBER]

Each schema is strict: it is kept to whole, or refused. What is refused may be no more than what no grammar can say.
"""

import json
import os
import random
import sys
import urllib.error
import urllib.request
from collections import Counter

import jsonschema

URL = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
HEADERS = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
NUMBER = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
TEXTS = [
    {"type": "string", "maxLength": 9},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[a-c]{2,5}-[0-9]$"},
    {"type": "string", "pattern": "^(ab|c)*d{1,3}$", "maxLength": 12},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "enum": ["", "\u00fc", "a\"b", "\\", "\n"]},
]
NUMBERS = [
    {"type": "integer", "minimum": -20, "maximum": 1000},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 100},
    {"type": "number", "minimum": 0.5, "maximum": 2.25},
]
OTHERS = [
    {"type": "boolean"}, {"type": "null"}, {"const": {"a": [1, "x"]}}, {"enum": ["red", 7, None, [1]]},
    {"type": ["integer", "null"], "maximum": 9, "minimum": 0},
]


def schema(dice, depth):
    """A schema of moderate size."""
    simple = TEXTS + NUMBERS + OTHERS + [{"$ref": "#/$defs/point"}]
    if depth == 0 or dice.random() < 0.3:
        return dice.choice(simple)
    inner = lambda: schema(dice, depth - 1)
    match dice.randrange(6):
        case 0:
            return {"type": "array", "items": inner(), "minItems": dice.randrange(2), "maxItems": 1 + dice.randrange(3)}
        case 1:
            return {"type": "array", "prefixItems": [inner(), inner()], "items": False, "minItems": 2}
        case 2:
            return {"anyOf": [inner(), inner()]}
        case 3:
            # Of two kinds of value no more than one holds.
            return {"oneOf": [dice.choice(TEXTS), dice.choice(NUMBERS)]}
        case 4:
            more = dice.choice([False, {"type": "integer", "minimum": 0, "maximum": 9}])
            return {"type": "object", "properties": {"x": inner()}, "required": ["x"], "additionalProperties": more,
                    "maxProperties": 1} if more else {"type": "object", "properties": {"x": inner()}, "additionalProperties": False}
        case _:
            names = [dice.choice("abcdefgh") + str(i) for i in range(1 + dice.randrange(4))]
            return {"type": "object", "properties": {name: inner() for name in names}, "additionalProperties": False,
                    "required": dice.sample(names, dice.randrange(len(names) + 1))}


def ask(given, seed):
    """The document and why it ended, or the status of an error."""
    form = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": given}}
    body = {"messages": [{"role": "user", "content": "A"}], "response_format": form, "max_tokens": 600, "temperature": 1,
            "seed": seed}
    try:
        with urllib.request.urlopen(urllib.request.Request(URL, json.dumps(body).encode(), HEADERS), timeout=300) as answer:
            choice = json.load(answer)["choices"][0]
            return choice["message"]["content"], choice["finish_reason"]
    except urllib.error.HTTPError as error:
        return json.load(error)["error"]["message"], error.code


ends = Counter()
point = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "of": {"$ref": "#/$defs/point"}},
         "required": ["x"], "additionalProperties": False}
for i in range(NUMBER):
    dice = random.Random(i)
    given = {**schema(dice, 3), "$defs": {"point": point}}
    text, end = ask(given, i)
    ends[str(end)] += 1
    if end == "stop":
        document = json.loads(text)
        format = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.Draft202012Validator(given, format_checker=format).validate(document)
    elif end == 400:
        print("refused:", text.splitlines()[0][:160], json.dumps(given)[:200])
    else:
        assert end == "length", (end, text)
print(f"{NUMBER} schemas:", dict(ends))
assert ends["stop"] >= 0.8 * NUMBER, ends
