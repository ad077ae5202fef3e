#!/usr/bin/env python3
"""Renders chat templates as transformers does: golden data for src/bin/armlet/template/golden.rs.

    python templates.py FOLDER MORE [OUT]

FOLDER is models/templates of llama.cpp, as the package llama-cpp-python has it in vendor/llama.cpp. MORE has those that are not
there, from tokenizer_config.json of their models: microsoft-Phi-4-mini-instruct.jinja, google-gemma-3-4b-it.jinja. OUT gets what is
rendered. Needs jinja2. Writes
templates.json: for each template the hash of its text, and of each conversation that it renders, length and SHA-256 of the
result, or null where Python raises an exception. Writes templates.zip: those templates whose licence allows that, each with
its own below LICENCES; the others are only checked where ARMLET_TEMPLATES names the folder.
"""

import hashlib, json, sys, zipfile
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
NOW = datetime(2026, 7, 6, 5, 4, 3, 2001)


class Generation(jinja2.ext.Extension):
    """transformers' AssistantTracker, as far as the text goes."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _body(self, context, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def say(role, content):
    return {"role": role, "content": content}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a place, it's <b>\"bold\"</b> & é.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Name"},
                    "days": {"type": "integer", "minimum": 1},
                },
                "required": ["place"],
            },
        },
    }
]
USER = say("user", "Hello, it's \"me\" <b> & é!\n\n  Two lines. ")
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich <b>", "days": 2}}}
CALLED = [
    USER,
    say("assistant", "") | {"tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": '{"sky": "clear"}'},
]
SECOND = {"id": "klmnopqrs", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Bern"}}}
PARALLEL = [
    USER,
    say("assistant", "") | {"tool_calls": [CALL, SECOND]},
    CALLED[2],
    {"role": "tool", "tool_call_id": "klmnopqrs", "name": "get_weather", "content": '{"sky": "grey"}'},
]
CONVERSATIONS = {
    "plain": ([USER], {}),
    "system": ([say("system", "Be brief, please."), USER], {}),
    "turns": ([USER, say("assistant", "<think>\nHm.\n</think>\n\nHi! [1]"), say("user", "What is 2 + 2?")], {}),
    "tools": ([say("system", "Be brief, please."), USER], {"tools": TOOLS}),
    "no thinking": ([USER], {"enable_thinking": False}),
    "called": (CALLED, {"tools": TOOLS}),
    "parallel": (PARALLEL, {"tools": TOOLS}),
}

# Below these licences a copy may be given away with this notice. Models of others (Llama, Gemma 2 and 3, LFM, Command R, Nemotron,
# Solar, Hunyuan …) have licences of their own: their templates are not here.
LICENCES = {
    "Apache-2.0": """Apertus-8B-Instruct ByteDance-Seed-OSS HuggingFaceTB-SmolLM3-3B MiniMax-M1
        Mistral-Small-3.2-24B-Instruct-2506 Qwen-QwQ-32B Qwen-Qwen2.5-7B-Instruct Qwen-Qwen3-0.6B Qwen3-Coder Qwen3.5-4B
        google-gemma-4-31B-it ibm-granite-granite-3.3-2B-Instruct ibm-granite-granite-4.0 ibm-granite-granite-4.1
        mistralai-Ministral-3-14B-Reasoning-2512 mistralai-Mistral-Nemo-Instruct-2407 openai-gpt-oss-120b
        unsloth-Apriel-1.5 unsloth-mistral-Devstral-Small-2507""",
    "MIT": """GLM-4.6 GLM-4.7-Flash MiMo-VL deepseek-ai-DeepSeek-R1-Distill-Qwen-32B
        deepseek-ai-DeepSeek-V3.1 deepseek-ai-DeepSeek-V3.2 llama-cpp-deepseek-r1
        llama-cpp-rwkv-world microsoft-Phi-3.5-mini-instruct microsoft-Phi-4-mini-instruct""",
}

NOTICE = """Chat templates of public models, unchanged, as llama.cpp has them in models/templates, or their models.

The folder names the licence below which each was published with its model:
Apache-2.0 (the text is LICENSE-APACHE of this repository): Alibaba Cloud (Qwen), ByteDance (Seed-OSS), Google (Gemma 4),
Hugging Face (SmolLM3), IBM (Granite), MiniMax, Mistral AI and All Hands AI (Mistral, Ministral, Devstral), OpenAI (gpt-oss),
Swiss AI Initiative (Apertus), the Unsloth team (Apriel-1.5, and its edits of SmolLM3 and Devstral).
MIT (the text is LICENSE-MIT of this repository, with these holders of copyright): DeepSeek, Microsoft Corporation (Phi-3.5, Phi-4-mini),
the ggml authors (llama-cpp-*), Xiaomi Corporation (MiMo-VL), Zhipu AI (GLM).
"""


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def main(folder, more, out=None):
    env, golden, errors = environment(), {}, {}
    paths = [path for given in (folder, more) for path in Path(given).glob("*.jinja")]
    sources = {path.stem: path.read_bytes().decode() for path in sorted(paths, key=lambda path: path.stem)}
    for name, source in sources.items():
        row = {"template": sha(source)}
        for conversation, (messages, variables) in CONVERSATIONS.items():
            given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
            given |= {"bos_token": "<bos>", "eos_token": "<eos>"} | variables
            try:
                text = env.from_string(source).render(**given)
                row[conversation] = [len(text.encode()), sha(text)[:16]]
                if out:
                    (Path(out) / f"{name}.{conversation}.txt").write_bytes(text.encode())
            except Exception as e:
                row[conversation] = None
                errors[name, conversation] = f"{type(e).__name__}: {e}"
        golden[name] = row
    conversations = {name: {"messages": m, "variables": v} for name, (m, v) in CONVERSATIONS.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in golden.items())
    table = f'{{"now": "{NOW.isoformat()}",\n"conversations": {json.dumps(conversations)},\n"templates": {{\n{lines}\n}}}}\n'
    (HERE / "templates.json").write_text(table)
    with zipfile.ZipFile(HERE / "templates.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        files = [("NOTICE", NOTICE)]
        files += [(f"{licence}/{name}.jinja", sources[name]) for licence, names in LICENCES.items() for name in names.split()]
        for name, text in files:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    for (name, conversation), why in errors.items():
        print(f"{name}, {conversation}: {why}")


main(*sys.argv[1:])
