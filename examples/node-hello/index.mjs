// The smallest Node.js function: what is made at init, and what differs in every environment.

import { randomUUID } from "node:crypto";

// Made once, at init; with SnapStart it is part of the snapshot.
const INIT_ID = randomUUID();
let invocations = 0;

export const handler = async (event) => {
    invocations += 1;
    return {
        message: `hello ${event.name ?? "world"}`,
        initId: INIT_ID,
        requestId: randomUUID(),
        invocations,
        node: process.version,
    };
};
