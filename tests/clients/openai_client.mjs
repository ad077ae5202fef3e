// Drives `armlet serve` with the npm package openai: OPENAI_BASE_URL and OPENAI_API_KEY say which. Prints what it did.

import assert from "node:assert";
import { createRequire } from "node:module";

// From the folder that npm installed it to.
const OpenAI = createRequire(process.env.NODE_MODULES + "/")("openai");
const client = new OpenAI({ maxRetries: 0, timeout: 600_000 });
const messages = [{ role: "user", content: "What is the capital of France?" }];

const model = (await client.models.list()).data[0].id;
const greedy = { model, messages, temperature: 0, max_tokens: 32 };
console.log("models:", model);

const whole = await client.chat.completions.create(greedy);
const text = whole.choices[0].message.content;
assert(text.includes("Paris") && whole.usage.completion_tokens > 1);
console.log("chat:", text);

let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, text);
const helper = await client.chat.completions.stream(greedy).finalContent();
assert.equal(helper, text);
console.log("chat, as a stream: the same text");

const response = await client.responses.create({ model, input: messages, temperature: 0, max_output_tokens: 32 });
assert(response.output_text.includes("Paris"));
console.log("responses:", response.status);

const parameters = { type: "object", properties: { place: { type: "string", maxLength: 20 } }, required: ["place"] };
const weather = { type: "function", function: { name: "weather", description: "The weather of a place", parameters } };
const calling = { ...greedy, tools: [weather], tool_choice: "required", parallel_tool_calls: false, max_tokens: 100 };
const called = await client.chat.completions.create(calling);
const [call] = called.choices[0].message.tool_calls;
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["place"]);
const final = await client.chat.completions.stream(calling).finalMessage();
assert.deepEqual(final.tool_calls[0].function, call.function);
console.log("a call, and the same as a stream:", call.function.name, call.function.arguments);

console.log("errors:");
for (const [fields, status] of [
  [{ model: "gpt-5" }, 404],
  [{ temperature: "hot" }, 400],
  [{ tools: [weather, weather] }, 400],
]) {
  const error = await client.chat.completions.create({ ...greedy, ...fields }).then(() => null, (e) => e);
  assert.equal(error?.status, status);
  console.log("  ", error.status, error.code, error.param);
}
const wrong = await new OpenAI({ apiKey: "wrong", maxRetries: 0 }).models.list().then(() => null, (e) => e);
assert.equal(wrong?.status, 401);

const stream = await client.chat.completions.create({ ...greedy, max_tokens: 4000, temperature: 1, stream: true });
for await (const _ of stream) {
  stream.controller.abort();
}
assert.equal((await client.chat.completions.create(greedy)).choices[0].message.content, text);
console.log("a cancelled stream, and an answer after it");
