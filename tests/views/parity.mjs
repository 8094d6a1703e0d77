// Asks the page's model what tests/views/test_page.py wants to know: node parity.mjs model.js weights questions.json
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , source, weights, questions] = process.argv;
const { Model, chooseTau, chooseTauBySnr, entropy, samplingDistance, top, totalVariation } = await import(pathToFileURL(source).href);
const model = new Model(new Uint8Array(readFileSync(weights)));
const list = (x) => Array.from(x);

function answer({ history, xT, S, spacing, order, eta, noise, compensator }) {
  const h = model.condition(history);
  const tau = spacing === "t" ? chooseTau(model.timesteps, S) : chooseTauBySnr(model.alphaBar, S);
  let used = 0;
  const draw = (n) => noise[used++].slice(0, n);
  const chain = model.chain(model.predictor(h, history), xT, tau, { order, eta, noise: draw });
  const e1 = chain.points.at(-1);
  const e0 = compensator === null ? chain.beliefs.at(-1) : model.compensate(e1, h, compensator);
  const scores = model.scores(model.query(e0, h, history));
  return {
    h: list(h), tau, points: chain.points.map(list), beliefs: chain.beliefs.map(list), e0: list(e0),
    scores: list(scores), top: top(scores, 10), nearest: model.nearest(chain.beliefs.at(-1), h, history),
  };
}

const { asked, shares, laws } = JSON.parse(readFileSync(questions, "utf8"));
const found = { answers: asked.map(answer) };
if (shares) {
  const h = model.condition(shares.history);
  const p = model.shares(shares.draws, h, shares.history);
  found.shares = { p: list(p), entropy: entropy(p), far: totalVariation(p, shares.law) };
  found.floor = samplingDistance(shares.law, shares.draws.length);
}
if (laws) {
  const { Law } = await import(pathToFileURL(source.replace("model.js", "law.js")).href);
  const law = new Law(laws.parameters);
  found.laws = laws.asked.map(({ items, slots }) => list(law.next(items, slots)));
}
process.stdout.write(JSON.stringify(found));
