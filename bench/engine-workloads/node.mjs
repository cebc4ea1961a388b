// The line protocol of the engine's benchmark on Node.js; see guest.py.

import { createHash } from "node:crypto";
import { connect, createServer } from "node:net";

const WARM_UPS = 2;

const orders = Array.from({ length: 20_000 }, (_, index) => ({
  customer: `customer ${index % 500}`,
  amount: (index * 7919) % 1000,
}));

const kinds = {
  trivial: () => "pong",
  real: () => {
    const totals = new Map();
    for (const { customer, amount } of orders) {
      totals.set(customer, (totals.get(customer) ?? 0) + amount);
    }
    const sorted = [...totals].sort((one, other) => other[1] - one[1]);
    return createHash("sha256").update(JSON.stringify(sorted)).digest("hex");
  },
};

function answerLines(connection) {
  connection.setNoDelay(true);
  connection.on("data", (line) => connection.write(`${kinds[line.toString().trim()]()}\n`));
  connection.write("ready\n");
}

for (let index = 0; index < WARM_UPS; index++) {
  Object.values(kinds).forEach((handle) => handle());
}
if (process.env.BENCH_LISTEN) {
  createServer(answerLines).listen(Number(process.env.BENCH_LISTEN), "127.0.0.1");
} else {
  answerLines(connect(9001, "127.0.0.1"));
}
