// How long the page's model takes under node: node page.mjs model.js model.safetensors, JSON of milliseconds by name
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , source, weights] = process.argv;
const { Model, chooseTau, normal, top } = await import(pathToFileURL(source).href);
const model = new Model(new Uint8Array(readFileSync(weights)));
const history = [5, 77, 300, 12, 599, 42, 8];
const h = model.condition(history);
const noise = normal(0);

function list(S) {
  const again = model.condition(history);
  const chain = model.chain(model.predictor(again, history), noise(model.dim), chooseTau(model.timesteps, S));
  return top(model.scores(model.query(chain.beliefs.at(-1), again, history)), 10);
}

function draws(n, S) {
  const f = model.predictor(h, history);
  const tau = chooseTau(model.timesteps, S);
  const ends = Array.from({ length: n }, () => model.chain(f, noise(model.dim), tau).beliefs.at(-1));
  return model.shares(ends, h, history);
}

/** The median of `times` calls, after one that warms up. */
function milliseconds(work, times) {
  work();
  const found = Array.from({ length: times }, () => {
    const start = performance.now();
    work();
    return performance.now() - start;
  });
  return found.sort((a, b) => a - b)[Math.floor(times / 2)];
}

const found = { list: milliseconds(() => list(10), 51), draws: milliseconds(() => draws(200, 10), 5) };
process.stdout.write(JSON.stringify(found));
