// Gives every clone of a snapshot random state of its own. Loaded before any code of the function, in every worker too.
//
// Node.js has no restore hooks, so a restore is *noticed*: every sandbox has a `/dev/sysgenid` of its own with a number
// that no other has. What keeps randomness in JavaScript memory is put behind a look at that number:
//
//   Math.random                     a generator of ours, seeded from the kernel, seeded anew when the number changes
//   crypto.randomUUID (both)        always without Node's cache of random bytes, by its own documented option
//   crypto.randomInt                always from fresh bytes; Node's own values come from a cache of 6 KiB
//
// **The number is read once per turn of the event loop, and only in turns that ask for randomness**: a snapshot is taken
// while the loop is blocked, so within one turn it cannot change.
//
// Deliberately absent: OpenSSL (`randomBytes`, `getRandomValues`, keys), which the engine reseeds in every clone before
// any of this runs on; and environments that are not snapshotted, which are left exactly as Node.js makes them.
"use strict";

const GENERATION_FILE = "/dev/sysgenid";

if (process.env.AWS_LAMBDA_INITIALIZATION_TYPE === "snap-start") {
    install();
}

function install() {
    const crypto = require("node:crypto");
    const generation = watchGeneration();
    Object.defineProperty(Math, "random", hidden(mathRandom(crypto, generation)));
    crypto.randomUUID = uncachedUuid(crypto.randomUUID);
    const webCrypto = Object.getPrototypeOf(crypto.webcrypto);
    Object.defineProperty(webCrypto, "randomUUID", hidden(uncachedWebUuid(webCrypto.randomUUID, crypto)));
    crypto.randomInt = uncachedInt(crypto);
    // ES modules see their own copies of the exports.
    require("node:module").syncBuiltinESMExports();
}

/** What a built-in method's property looks like. */
function hidden(value) {
    return { value, writable: true, configurable: true, enumerable: false };
}

/** Returns a function that counts the restores it has noticed. */
function watchGeneration() {
    const fs = require("node:fs");
    const { readFileSync } = fs;
    const later = setImmediate;
    let looked = false;
    let last;
    let count = 0;
    const forget = () => {
        looked = false;
    };
    const read = () => {
        try {
            return readFileSync(GENERATION_FILE, "latin1");
        } catch {
            return "";
        }
    };
    return () => {
        if (!looked) {
            looked = true;
            later(forget);
            const now = read();
            if (now !== last) {
                last = now;
                count += 1;
            }
        }
        return count;
    };
}

/** `Math.random` on xoshiro128++ (Blackman and Vigna, 2019), 53 bits of two steps; not for secrets, as ever. */
function mathRandom(crypto, generation) {
    const state = new Uint32Array(4);
    const { randomFillSync } = crypto;
    let seeded = 0;
    const rotate = (value, by) => (value << by) | (value >>> (32 - by));
    const step = () => {
        const result = (rotate((state[0] + state[3]) | 0, 7) + state[0]) >>> 0;
        const shifted = state[1] << 9;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = rotate(state[3], 11);
        return result;
    };
    return {
        random() {
            const now = generation();
            if (now !== seeded) {
                seeded = now;
                randomFillSync(state);
            }
            return ((step() >>> 5) * 0x4000000 + (step() >>> 6)) / 0x20000000000000;
        },
    }.random;
}

function uncachedUuid(original) {
    return function randomUUID(options) {
        if (options === undefined || (typeof options === "object" && options !== null)) {
            return original({ ...options, disableEntropyCache: true });
        }
        return original(options);
    };
}

/** The method of `globalThis.crypto`, which must refuse other receivers as Node's own does. */
function uncachedWebUuid(original, crypto) {
    const { randomUUID } = crypto;
    return {
        randomUUID() {
            if (this !== crypto.webcrypto) {
                return original.call(this);
            }
            return randomUUID();
        },
    }.randomUUID;
}

/** `randomInt` from fresh bytes. Node's own is asked first: it checks the arguments, and its answer is thrown away. */
function uncachedInt(crypto) {
    const original = crypto.randomInt;
    const { randomBytes } = crypto;
    const BYTES = 6;
    const VALUES = 2 ** (8 * BYTES);
    const fresh = (low, high) => {
        const range = high - low;
        const limit = VALUES - (VALUES % range);
        let value;
        do {
            value = randomBytes(BYTES).readUIntBE(0, BYTES);
        } while (value >= limit);
        return low + (value % range);
    };
    return function randomInt(min, max, callback) {
        const one = max === undefined || typeof max === "function";
        const [low, high, done] = one ? [0, min, max] : [min, max, callback];
        if (done === undefined) {
            original(low, high);
            return fresh(low, high);
        }
        if (typeof done !== "function") {
            return original(min, max, callback);
        }
        return original(low, high, (error) => (error ? done(error) : done(undefined, fresh(low, high))));
    };
}
