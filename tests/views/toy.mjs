// Answers the questions of test_toy.py with views/page/toy.js: trains on given batches, and on batches of its own.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , file, questions] = process.argv;
const toy = await import(pathToFileURL(file));
const { delta, batches, runs } = JSON.parse(readFileSync(questions, "utf8"));
const start = toy.begin(0);
const training = new toy.Training(start.slice(), delta);
const losses = batches.map((batch) => training.step(batch));
const ends = runs.map(({ delta, seed, steps }) => {
  const weights = toy.begin(seed);
  const run = new toy.Training(weights, delta, seed + 1);
  const before = toy.meanLength(weights);
  for (let n = 0; n < steps; n++) run.step();
  return { before, after: toy.meanLength(weights), right: toy.rightShare(weights) };
});
const own = new toy.Training(start, 0, 3);
const examples = Array.from({ length: 100 }, () => own.batch()).flat();
const out = { start: [...start], weights: [...training.weights], losses, ends, goal: toy.GOAL, alphaBar: [...toy.ALPHA_BAR] };
console.log(JSON.stringify({ ...out, examples: examples.map(({ u, v, t }) => [u, v, t]) }));
