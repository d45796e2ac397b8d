// Receives Genfleet's webhooks, and takes only what is signed.
//
// Verifies with the published Standard Webhooks library (npm install). Prints one JSON line for each delivery it takes.
// Runs with GENFLEET_WEBHOOK_SECRET, or the secret in the file that GENFLEET_WEBHOOK_SECRET_FILE names; listens on
// 127.0.0.1, on PORT (8080).
//
// What makes a good receiver: it verifies the bytes as they came, before it parses them; it answers within 15 seconds
// and does its work after that; and it takes a delivery whose webhook-id it knows already for the repeat that it is.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const LONGEST_BODY = 512 * 1024;
const REMEMBERED = 10_000;

// While secrets are exchanged there may be several; a delivery signed with any of them is taken.
function secrets() {
  const file = process.env.GENFLEET_WEBHOOK_SECRET_FILE;
  const text = file ? readFileSync(file, "ascii") : (process.env.GENFLEET_WEBHOOK_SECRET ?? "");
  const found = text.split(/\s+/).filter(Boolean);
  if (found.length === 0) {
    console.error("set GENFLEET_WEBHOOK_SECRET to the secret the workers sign with (whsec_…)");
    process.exit(1);
  }
  return found.map((secret) => new Webhook(secret));
}

// The ids of the last deliveries. A real receiver keeps them where it keeps its work, in one transaction.
const seen = new Set();
function isNew(id) {
  if (seen.has(id)) return false;
  seen.add(id);
  if (seen.size > REMEMBERED) seen.delete(seen.values().next().value);
  return true;
}

// The event in `body`, where one of the secrets signed it; throws otherwise.
function verified(webhooks, body, headers) {
  for (const webhook of webhooks.slice(0, -1)) {
    try {
      return webhook.verify(body, headers);
    } catch (error) {
      if (!(error instanceof WebhookVerificationError)) throw error;
    }
  }
  return webhooks.at(-1).verify(body, headers);
}

async function read(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > LONGEST_BODY) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const webhooks = secrets();

const server = createServer(async (request, response) => {
  const answer = (status) => response.writeHead(status).end();
  try {
    if (request.method !== "POST") return answer(405);
    const body = await read(request);
    if (body === null) return answer(413);
    const event = verified(webhooks, body, request.headers);
    const id = request.headers["webhook-id"];
    if (isNew(id)) console.log(JSON.stringify({ id, type: event.type, job: event.subject }));
    return answer(204);
  } catch (error) {
    console.error(`refused: ${error.message}`);
    return answer(401);
  }
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  console.error(`listening on http://127.0.0.1:${server.address().port}/`);
});
