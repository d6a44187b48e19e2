// Node: an addon, and workers, each a thread with an engine of its own.
const fs = require('fs');
const { Worker, isMainThread, workerData } = require('worker_threads');

function addon(file) {
  const module = { exports: {} };
  process.dlopen(module, file);
  return module.exports;
}

// The two words that main thread and workers share: how many have used it; may they end?
const USED = 0, UNLOADED = 1;

if (!isMainThread) {
  const { file, seed, state } = workerData;
  try {
    addon(file).use(seed);
  } finally {
    Atomics.add(state, USED, 1);
    Atomics.notify(state, USED);
  }
  Atomics.wait(state, UNLOADED, 0);
  return;
}

const path = process.env.ALCOVE_TEST_MODULE;
const file = process.argv[2];
const host = addon(file);

function check(good, what) {
  if (!good) throw new Error(what);
}

function mapped() {
  return fs.readFileSync('/proc/self/maps', 'latin1').includes(path);
}

function start() {
  const state = new Int32Array(new SharedArrayBuffer(8));
  const ends = [1, 2].map((seed) => new Promise((resolve, reject) => {
    new Worker(__filename, { workerData: { file, seed, state } }).on('error', reject).on('exit', resolve);
  }));
  for (let used; (used = Atomics.load(state, USED)) < 2;) Atomics.wait(state, USED, used);
  return { state, ends };
}

async function end({ state, ends }) {
  Atomics.store(state, UNLOADED, 1);
  Atomics.notify(state, UNLOADED);
  for (const code of await Promise.all(ends)) check(code === 0, `a worker ended with ${code}`);
}

(async () => {
  for (let cycle = 0; cycle < 10; cycle++) {
    const library = host.load();
    check(mapped(), 'not mapped');
    const users = start();
    host.use(3);
    host.unload(library);
    check(!mapped(), 'still mapped');
    await end(users);
  }
  console.log('10 cycles');

  // Once more, and it is there until the process ends.
  host.load();
  await end(start());
})();
