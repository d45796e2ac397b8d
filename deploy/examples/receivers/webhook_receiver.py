"""Receives Genfleet's webhooks, and takes only what is signed.

Verifies with the published Standard Webhooks library (pip install -r requirements.txt). Prints one JSON line for each
delivery it takes. Runs with GENFLEET_WEBHOOK_SECRET, or the secret in the file that GENFLEET_WEBHOOK_SECRET_FILE names;
listens on 127.0.0.1, on PORT (8080).

What makes a good receiver: it verifies the bytes as they came, before it parses them; it answers within 15 seconds and
does its work after that; and it takes a delivery whose webhook-id it knows already for the repeat that it is.
"""

import json
import os
import sys
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

LONGEST_BODY = 512 * 1024
REMEMBERED = 10_000


def secrets():
    """While secrets are exchanged there may be several; a delivery signed with any of them is taken."""
    path = os.environ.get("GENFLEET_WEBHOOK_SECRET_FILE")
    if path:
        with open(path, encoding="ascii") as file:
            text = file.read()
    else:
        text = os.environ.get("GENFLEET_WEBHOOK_SECRET", "")
    found = [Webhook(secret) for secret in text.split()]
    return found or sys.exit("set GENFLEET_WEBHOOK_SECRET to the secret the workers sign with (whsec_…)")


class Seen:
    """The ids of the last deliveries. A real receiver keeps them where it keeps its work, in one transaction."""

    def __init__(self):
        self.ids = OrderedDict()

    def is_new(self, delivery_id):
        if delivery_id in self.ids:
            return False
        self.ids[delivery_id] = True
        while len(self.ids) > REMEMBERED:
            self.ids.popitem(last=False)
        return True


def verified(webhooks, body, headers):
    """The event in `body`, where one of the secrets signed it; raises otherwise."""
    for webhook in webhooks[:-1]:
        try:
            return webhook.verify(body, headers)
        except WebhookVerificationError:
            continue
    return webhooks[-1].verify(body, headers)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    webhooks = []
    seen = Seen()

    def do_POST(self):
        length = int(self.headers.get("content-length") or -1)
        if not 0 <= length <= LONGEST_BODY:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            event = verified(self.webhooks, body, headers)
        except (WebhookVerificationError, ValueError) as error:  # ValueError: not even the form of a delivery
            self.log_message("refused: %s", error)
            return self.answer(401)
        if self.seen.is_new(headers["webhook-id"]):
            told = {"id": headers["webhook-id"], "type": event["type"], "job": event["subject"]}
            print(json.dumps(told), flush=True)
        return self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_request(self, code="-", size="-"):
        pass


def main():
    Receiver.webhooks = secrets()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}/", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
