"""What AWS would make of a rule: moto's matcher for the pattern, jsonpath-ng for the paths of the transformer.

Reads {"rule": …, "events": […]} and writes {"matches": […], "made": …}: which events match, and what becomes of the first.
"""

import json
import sys

from jsonpath_ng import parse
from moto.events.models import EventPattern

asked = json.load(sys.stdin)
rule, events = asked["rule"], asked["events"]
pattern = EventPattern.load(json.dumps(rule["eventPattern"]))


def found(path, event):
    values = [match.value for match in parse(path).find(event)]
    return values if "[*]" in path else values[0]


def made(event):
    """A variable that stands outside of quotes becomes JSON."""
    transformer = rule["inputTransformer"]
    text = transformer["inputTemplate"]
    for variable, path in transformer["inputPathsMap"].items():
        text = text.replace(f"<{variable}>", json.dumps(found(path, event)))
    return json.loads(text)


json.dump({"matches": [pattern.matches_event(event) for event in events], "made": made(events[0])}, sys.stdout)
