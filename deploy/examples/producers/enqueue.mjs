#!/usr/bin/env node
// Puts one job on Genfleet's queue and waits for the event it ends in.
//
//   enqueue.mjs KIND PAYLOAD
//
// The job is published persistent, mandatory and with a publisher confirm, so that it is on the queue once the broker
// has answered. The event comes to a queue of this connection's own (replyTo), told apart by its correlation id.
//
// Exit code: 0 it succeeded, 2 it failed or expired, 1 no event came, or the job is not on the queue; 64 bad usage.

import { randomUUID } from 'node:crypto';
import amqp from 'amqplib';

const URL = process.env.GENFLEET_QUEUE_URL;
const EXCHANGE = `${process.env.GENFLEET_QUEUE_PREFIX || 'genfleet'}.jobs`;
const TIMEOUT_SECONDS = Number(process.env.GENFLEET_TIMEOUT_SECONDS || 60);

/** Rejects as soon as connection or channel is lost, with what the broker said. */
function loss(connection, channel) {
  return new Promise((_, reject) => {
    for (const emitter of [connection, channel]) {
      emitter.on('error', reject);
      emitter.on('close', () => reject(new Error('the connection to the broker is gone')));
    }
  });
}

/** Rejects when the time is over; `what` says then what is known. */
function overtime(what) {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(what())), TIMEOUT_SECONDS * 1000).unref();
  });
}

/** Publishes the job; resolves once the broker has it on a queue. */
function publish(channel, kind, body, properties) {
  return new Promise((resolve, reject) => {
    // Comes before the confirm.
    channel.once('return', () => reject(new Error(`the job came back: no queue takes ${kind} jobs from ${EXCHANGE}`)));
    channel.publish(EXCHANGE, kind, Buffer.from(JSON.stringify(body)), properties, (refused) =>
      refused ? reject(new Error('the broker refused the job: its queue may be full. Nothing was enqueued')) : resolve(),
    );
  });
}

/** Resolves with the event that answers `id`. */
function reply(channel, queue, id) {
  return new Promise((resolve, reject) => {
    const take = (message) => {
      if (message === null) reject(new Error('the queue for replies is gone'));
      else if (message.properties.correlationId === id) resolve(JSON.parse(message.content));
    };
    channel.consume(queue, take, { noAck: true }).catch(reject);
  });
}

async function run(kind, payload) {
  const connection = await amqp.connect(URL, { timeout: TIMEOUT_SECONDS * 1000 });
  try {
    const channel = await connection.createConfirmChannel();
    const lost = loss(connection, channel);
    const id = randomUUID();
    let enqueued = false;
    const late = overtime(() =>
      enqueued
        ? `no event within ${TIMEOUT_SECONDS} s: job ${id} is enqueued, and may still be worked`
        : `not confirmed within ${TIMEOUT_SECONDS} s: job ${id} may or may not be enqueued`,
    );
    const enqueue = async () => {
      const { queue } = await channel.assertQueue('', { exclusive: true });
      const event = reply(channel, queue, id);
      const now = Date.now();
      await publish(channel, kind, { id, kind, payload }, {
        contentType: 'application/json',
        persistent: true,
        mandatory: true,
        messageId: id,
        correlationId: id,
        replyTo: queue,
        timestamp: Math.floor(now / 1000),
        headers: { 'genfleet-enqueued-ms': now }, // waits are measured from here
      });
      enqueued = true;
      return event;
    };
    return await Promise.race([enqueue(), lost, late]);
  } finally {
    await connection.close().catch(() => {});
  }
}

let kind, payload;
try {
  [kind, payload] = [process.argv[2], JSON.parse(process.argv[3])];
  if (!URL) throw new Error('set GENFLEET_QUEUE_URL to amqp://user:password@host:5672/');
} catch (error) {
  console.error(`usage: enqueue.mjs KIND PAYLOAD, e.g. cdn.purge '{"paths": ["/a.js"]}' (${error.message})`);
  process.exit(64);
}
try {
  const event = await run(kind, payload);
  console.log(JSON.stringify(event));
  process.exitCode = event.data.outcome === 'succeeded' ? 0 : 2;
} catch (error) {
  console.error(`error: ${error.message || error.code || error}`);
  process.exitCode = 1;
}
