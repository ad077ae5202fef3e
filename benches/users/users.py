"""People who talk to a server, each asking again as soon as the answer is there: for locust.

A third of them have one system prompt. Prompts have some 300 tokens, answers 64. At the end a line of JSON says when each
request began, and when each piece of its answer came, in seconds.
"""
import json
import os
import random
import time

import requests
from locust import User, events, task

HOST = os.environ["SERVER"]
OUT = os.environ["REQUESTS_FILE"]
WORDS = "time way day man world life hand part child eye place work week case point home water room night book word side".split()
# As many words as tokens, but for a few.
SYSTEM = " ".join(WORDS[i * 7 % len(WORDS)] for i in range(200))
found = []


class Person(User):
    number = 0

    def on_start(self):
        self.me = Person.number
        Person.number += 1
        self.random = random.Random(self.me)
        self.session = requests.Session()

    @task
    def ask(self):
        words = lambda n: " ".join(self.random.choice(WORDS) for _ in range(n))
        messages = [{"role": "user", "content": words(255)}]
        if self.me % 3 == 2:
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": words(75)}]
        # The tokens that end an answer of SmolLM2.
        body = {"messages": messages, "max_tokens": 64, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}, "logit_bias": {"0": -100, "2": -100}}
        begin, times, usage, end = time.monotonic(), [], {}, None
        with self.session.post(f"{HOST}/v1/chat/completions", json=body, stream=True, timeout=600) as answer:
            if answer.status_code == 429 or answer.status_code == 503:
                found.append({"user": self.me, "refused": answer.status_code})
                time.sleep(1)
                return
            answer.raise_for_status()
            for line in answer.iter_lines(chunk_size=None):
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                for choice in event.get("choices", []):
                    end = choice["finish_reason"] or end
                    if choice["delta"].get("content"):
                        times.append(time.monotonic())
        found.append({"user": self.me, "begin": begin, "times": times, "usage": usage, "end": end})


@events.quitting.add_listener
def write(environment, **_):
    with open(OUT, "w") as out:
        json.dump(found, out)
