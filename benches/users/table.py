"""A row of a table of what people had of a server, by what users.py wrote: of the time from 15 to 95 % of the run.

    python3 table.py requests.json

Answers that ended, these and tokens a second; milliseconds to the first token, and between tokens, half and 95 % of them below; and those between
tokens while a prompt of another was read.
"""
import json
import sys


def part(numbers, share):
    numbers = sorted(numbers)
    return numbers[min(len(numbers) - 1, int(share * len(numbers)))] if numbers else float("nan")


with open(sys.argv[1]) as file:
    answers = [found for found in json.load(file) if found.get("times")]
assert answers, "no answers"
begin, end = min(a["begin"] for a in answers), max(a["times"][-1] for a in answers)
low, high = begin + (end - begin) * 0.15, begin + (end - begin) * 0.95
inside = lambda time: low <= time < high
reads = [(a["begin"], a["times"][0], a["user"]) for a in answers]
gaps = [(x, y, a["user"]) for a in answers for x, y in zip(a["times"], a["times"][1:]) if inside(y)]
beside = [y - x for x, y, me in gaps if any(start < y and first > x and who != me for start, first, who in reads)]
first = [a["times"][0] - a["begin"] for a in answers if inside(a["times"][0])]
rates = [sum(inside(a["times"][-1]) for a in answers), sum(inside(t) for a in answers for t in a["times"])]
times = [part(x, share) for x in [first, [y - x for x, y, _ in gaps], beside] for share in [0.5, 0.95]]
cells = [str(rates[0])] + [f"{n / (high - low):.1f}" for n in rates] + [f"{1000 * t:.0f}" if t == t else "" for t in times]
print(" | ".join(cells))
