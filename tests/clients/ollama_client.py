"""Drives `armlet serve` with the package ollama: OLLAMA_HOST and ARMLET_KEY say which. Prints what it did."""

import json
import os

import ollama

client = ollama.Client(headers={"Authorization": "Bearer " + os.environ["ARMLET_KEY"]}, timeout=600)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "num_predict": 32, "num_ctx": 8192}

model = client.list().models[0].model
shown = client.show(model)
print("models:", model, shown.details.parameter_size, shown.details.quantization_level, shown.capabilities)

whole = client.chat(model, QUESTION, options=GREEDY, think=False, keep_alive="5m")
text = whole.message.content
assert "Paris" in text and whole.done and whole.eval_count > 1 and whole.prompt_eval_count > 1
print("chat:", text)

chunks = list(client.chat(model, QUESTION, options=GREEDY, stream=True))
assert "".join(c.message.content for c in chunks) == text and chunks[-1].done_reason == whole.done_reason
print("chat, as a stream:", len(chunks), "lines")

answer = client.generate(model, "What is the capital of France?", system="Be brief.", options=GREEDY)
raw = client.generate(model, "Once upon a", raw=True, options={"temperature": 0, "num_predict": 4})
print("generate:", repr(answer.response), "raw:", repr(raw.response))
assert client.generate(model, "").done_reason == "load"

place = json.loads(client.chat(model, QUESTION, options=GREEDY, format="json").message.content)
assert isinstance(place, dict)
print("a document:", place)

def weather(place: str) -> str:
    """The weather of a place.

    Args:
        place: The name of the place.
    """
    return "sunny, 21 degrees in " + place


asked = [{"role": "user", "content": "Call the function weather for Paris. Answer only with <tool_call>."}]
said = client.chat(model, asked, tools=[weather], options={**GREEDY, "num_predict": 64}).message
streamed = list(client.chat(model, asked, tools=[weather], options={**GREEDY, "num_predict": 64}, stream=True))
calls = [call for chunk in streamed for call in chunk.message.tool_calls or []]
assert [c.function for c in calls] == [c.function for c in said.tool_calls or []]
print("tools:", [(c.function.name, c.function.arguments) for c in calls] or repr(said.content))

call = {"function": {"name": "weather", "arguments": {"place": "Paris"}}}
told = asked + [
    {"role": "assistant", "content": "", "tool_calls": [call]},
    {"role": "tool", "tool_name": "weather", "content": weather("Paris")},
]
print("with a result:", repr(client.chat(model, told, tools=[weather], options=GREEDY).message.content))

print("errors:")
for call in [
    lambda: client.chat("llama9", QUESTION),
    lambda: client.chat(model, QUESTION, options={"temperature": -1}),
    lambda: client.chat(model, QUESTION, options={"frobnicate": 1}),
    lambda: client.chat(model, QUESTION, format={"type": "strange"}),
    lambda: client.generate(model, "x", images=[b"no image"]),
]:
    try:
        call()
        raise AssertionError("it was answered")
    except ollama.ResponseError as e:
        print("  ", e.status_code, e.error)

stream = client.chat(model, QUESTION, options={"num_predict": 4000}, stream=True)
next(stream)
stream.close()
assert "Paris" in client.chat(model, QUESTION, options=GREEDY).message.content
print("a cancelled stream, and an answer after it")
