#!/usr/bin/env node
// One mail to each recipient, by the daemon; Node.js 16 or later is all it needs.
//
//     node client.js mx.example 25 sender@bar.de message.eml < recipients
//
// A line for each as soon as it is decided: recipient, verdict, the reply as JSON.
'use strict';

const { randomUUID } = require('crypto');
const { readFileSync } = require('fs');
const net = require('net');

// Mails under way.  Fewer than the daemon's --max-in-flight, at which it would
// stop reading; and it is all that is held here, however long the list.
const WINDOW = 100;
// Seconds for a mail, its waiting in the daemon included.  There is a reply by
// then, so a connection that is silent for longer is dead.  Less than --key-ttl,
// for which the daemon keeps a reply that was lost on the way.
const DEADLINE = 300;

const [host, port, sender, file] = process.argv.slice(2);
const [, daemon, daemonPort] = /^(.*):(\d+)$/.exec(process.env.DAEMON || 'localhost:7025');
const token = process.env.TOKEN_FILE && readFileSync(process.env.TOKEN_FILE, 'utf8').split('\n')[0].trim();
const message = readFileSync(file).toString('base64');

// A name for this run.  Where a second run is not to send twice either, keep it
// with the list.
const run = randomUUID();
const todo = readFileSync(0, 'utf8').split(/\r?\n/).filter(Boolean).map((recipient, id) => ({ id, recipient }));
const waiting = new Map(); // Sent and not answered.
let next = 0;
let failures = 0;

function line({ id, recipient }) {
  return JSON.stringify({
    id, key: `${run}-${id}`, deadline: DEADLINE, host, port: Number(port),
    sender, recipients: [recipient], message,
  }) + '\n';
}

function hear(reply) {
  if (reply.id === undefined) { // The token's.
    if (reply.status === 'ok') return;
    console.error(reply.message);
    process.exit(1);
  }
  const { recipient } = waiting.get(reply.id);
  waiting.delete(reply.id);
  failures = 0;
  let verdict, text;
  if (reply.status === 'ok') {
    ({ status: verdict, response: text } = reply.deliveryStatus[0]);
  } else {
    // What is in doubt may have been delivered.  What is temporary and not in
    // doubt may be sent again without a second thought.
    verdict = reply.error + (reply.indoubt ? ' (in doubt)' : reply.temporary ? ' (temporary)' : '');
    text = reply.message;
  }
  // As JSON, for a server may have put anything into it, line ends included.
  console.log(`${recipient}\t${verdict}\t${JSON.stringify(text)}`);
}

function converse() {
  const socket = net.connect(daemonPort, daemon).setEncoding('utf8');
  // What the last connection left unanswered, by the keys that it had.  Whether
  // it was sent, is being sent or never came: it is sent once.
  const again = [...waiting.values()];
  let rest = '';
  let reason = 'the connection was lost';

  function write() {
    // Not more than the socket can hold: it says when it has room ('drain').
    while (!socket.writableNeedDrain && (again.length || (next < todo.length && waiting.size < WINDOW))) {
      const entry = again.shift() || todo[next++];
      waiting.set(entry.id, entry);
      socket.write(line(entry));
    }
    if (next === todo.length && waiting.size === 0) socket.end();
  }

  socket.on('connect', () => {
    if (token) socket.write(JSON.stringify({ token }) + '\n');
    write();
  });
  socket.on('drain', write);
  socket.on('data', (octets) => {
    const lines = (rest + octets).split('\n');
    rest = lines.pop(); // The start of a reply is none.
    lines.forEach((each) => hear(JSON.parse(each)));
    write();
  });
  socket.setTimeout((DEADLINE + 30) * 1000, () => socket.destroy());
  socket.on('error', (error) => { reason = error.message; });
  socket.on('close', () => {
    if (next === todo.length && waiting.size === 0) return;
    // At once, then ever more slowly: a minute and a half in all.
    if (++failures > 20) {
      console.error(`${reason}: who is not in the output has no verdict`);
      process.exitCode = 1;
    } else {
      setTimeout(converse, Math.min(failures - 1, 5) * 1000);
    }
  });
}

if (todo.length) converse();
