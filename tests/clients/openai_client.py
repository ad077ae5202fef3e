"""Drives `armlet serve` with the package openai: OPENAI_BASE_URL and OPENAI_API_KEY say which. Prints what it did."""

import json
import os
import time
import urllib.request

import openai

client = openai.OpenAI(max_retries=0, timeout=600)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def running():
    base = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
    request = urllib.request.Request(base + "/metrics", headers={"Authorization": "Bearer " + client.api_key})
    text = urllib.request.urlopen(request).read().decode()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("armlet_requests_running ")))


def refused(kind, **fields):
    try:
        client.chat.completions.create(**{"model": model, "messages": QUESTION, **fields})
    except kind as e:
        return e
    raise AssertionError(f"{fields} was answered")


model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
print("models:", model)

whole = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=32)
text = whole.choices[0].message.content
assert "Paris" in text and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
print("chat:", text)

stream = client.chat.completions.create(
    model=model, messages=QUESTION, temperature=0, max_tokens=32, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens and chunks[-2].choices[0].finish_reason
print("chat, as a stream:", len(chunks), "chunks")

scored = client.chat.completions.create(
    model=model, messages=QUESTION, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3, seed=1, stop=["\n"],
    presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"0": -100}, n=1, user="somebody",
)
assert len(scored.choices[0].logprobs.content) == 4 and len(scored.choices[0].logprobs.content[0].top_logprobs) == 3
print("log probabilities:", [t.token for t in scored.choices[0].logprobs.content])

seeded = [
    client.chat.completions.create(model=model, messages=QUESTION, temperature=1, seed=7, max_tokens=16).choices[0].message.content
    for _ in range(2)
]
assert seeded[0] == seeded[1]
print("a seed twice:", json.dumps(seeded[0]))

text = client.completions.create(model=model, prompt="Once upon a", max_tokens=4, temperature=0).choices[0].text
pieces = client.completions.create(model=model, prompt="Once upon a", max_tokens=4, temperature=0, stream=True)
assert "".join(p.choices[0].text for p in pieces) == text
print("completion:", json.dumps(text))

response = client.responses.create(model=model, input="What is the capital of France?", temperature=0, max_output_tokens=32)
assert "Paris" in response.output_text
with client.responses.stream(model=model, input=QUESTION, temperature=0, max_output_tokens=32) as events:
    kinds = [event.type for event in events]
    final = events.get_final_response()
assert final.output_text == response.output_text and kinds[0] == "response.created", kinds
print("responses:", response.status, sorted(set(kinds)))

schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}
said = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, response_format=form).choices[0]
place = json.loads(said.message.content)
assert said.finish_reason == "stop" and set(place) == {"city", "people"} and 0 <= place["people"] <= 99
print("schema:", place)

weather = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string", "maxLength": 20}}, "required": ["place"]},
}}
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
calling = {"model": model, "messages": ASKED, "temperature": 0, "tools": [weather], "parallel_tool_calls": False, "max_tokens": 100}
called = client.chat.completions.create(tool_choice="required", **calling).choices[0]
[call] = called.message.tool_calls
assert called.finish_reason == "tool_calls" and called.message.content is None and call.type == "function"
assert call.function.name == "weather" and set(json.loads(call.function.arguments)) == {"place"}
print("a call:", call.function.name, call.function.arguments)

chosen = {"type": "function", "function": {"name": "weather"}}
parts = [c.choices[0] for c in client.chat.completions.create(tool_choice=chosen, stream=True, **calling) if c.choices]
deltas = [part for choice in parts for part in choice.delta.tool_calls or []]
assert deltas[0].id and deltas[0].function.name == "weather" and parts[-1].finish_reason == "tool_calls"
assert "".join(delta.function.arguments for delta in deltas) == call.function.arguments
with client.chat.completions.stream(**calling, tool_choice="required") as events:
    final = events.get_final_completion()
assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
print("the same, as a stream:", len(deltas), "pieces")

result = {"role": "tool", "tool_call_id": call.id, "content": "Paris: sunny, 21 degrees"}
said = client.chat.completions.create(**{**calling, "messages": ASKED + [called.message, result]}, tool_choice="none")
assert said.choices[0].finish_reason in ("stop", "length") and said.choices[0].message.content
print("with its result:", json.dumps(said.choices[0].message.content))

flat = [{"type": "function", **weather["function"]}]
response = client.responses.create(model=model, input=ASKED, tools=flat, tool_choice="required", parallel_tool_calls=False)
[item] = response.output
assert item.type == "function_call" and json.loads(item.arguments)
output = {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
with client.responses.stream(model=model, input=ASKED + [item, output], tools=flat, max_output_tokens=40) as events:
    kinds = [event.type for event in events]
assert kinds[-1] in ("response.completed", "response.incomplete"), kinds
print("a call of responses:", item.name, item.arguments)

print("errors:")
for kind, fields in [
    (openai.NotFoundError, {"model": "gpt-5"}),
    (openai.BadRequestError, {"temperature": 3}),
    (openai.BadRequestError, {"n": 2}),
    (openai.BadRequestError, {"messages": []}),
    (openai.BadRequestError, {"extra_body": {"frobnicate": 1}}),
    (openai.BadRequestError, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}}),
    (openai.BadRequestError, {"messages": [{"role": "user", "content": "word " * 20000}]}),
    (openai.BadRequestError, {"tools": [weather, weather]}),
    (openai.BadRequestError, {"tools": [weather], "tool_choice": {"type": "function", "function": {"name": "other"}}}),
    (openai.BadRequestError, {"messages": ASKED + [{"role": "tool", "tool_call_id": "none", "content": "x"}]}),
]:
    e = refused(kind, **fields)
    print("  ", e.status_code, e.code, e.param)
wrong = openai.OpenAI(api_key="wrong", max_retries=0)
try:
    wrong.models.list()
    raise AssertionError("a wrong key was taken")
except openai.AuthenticationError as e:
    print("  ", e.status_code, e.code)

def until_running(n):
    for _ in range(600):
        if running() == n:
            return
        time.sleep(0.1)
    raise AssertionError(f"{running()} requests run, and not {n}")


stream = client.chat.completions.create(model=model, messages=QUESTION, stream=True, max_tokens=4000, temperature=1)
next(iter(stream))
until_running(1)
stream.close()
until_running(0)
print("a cancelled stream: its slot is free")
