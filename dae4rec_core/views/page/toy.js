/**
 * A DAE4Rec of twelve places in the plane that trains in the page, so that one can watch what delta holds.
 *
 * Who is at a place of a district mostly goes to another one of it. The embeddings E (12, 2) are trained by
 *     L = |e_v - f(e^t, t, h)|^2 + delta * L_AIME(E),    f(e^t, t, h) = a_t e^t + W e_u,
 * of which the denoiser is the smallest that there is: a number for each t and a matrix for the newest place u. As in
 * the paper, E gives both the history and the goal, and nothing but delta keeps it from making both equal.
 * tests/views/test_toy.py holds the steps against torch's autograd and Adam.
 */

import { dot, normal, uniform } from "./model.js";

export const PLACES = 12;
export const DISTRICTS = 3;
export const T = 10;
const STAYS = 0.9; // chance that the next place is in the same district
const BATCH = 32;
const LR = 0.02;
const [BETA_1, BETA_2, EPSILON] = [0.9, 0.999, 1e-8];

/** alpha_bar_t, t = 0..T: from clean to noise. */
export const ALPHA_BAR = Float64Array.from({ length: T + 1 }, (_, t) => (1 - t / (T + 0.5)) ** 2);

/** @param {number} place */
export const district = (place) => Math.floor(place / (PLACES / DISTRICTS));

/** What the auto-encoder is taken to have found: places of a district beside one another. (12, 2) */
const Z_STAR = Array.from({ length: PLACES }, (_, place) => {
  const angle = (2 * Math.PI * (district(place) + 0.15 * ((place % 4) - 1.5))) / DISTRICTS;
  return [2 * Math.cos(angle), 2 * Math.sin(angle)];
});

const sigmoid = (/** @type {number} */ x) => 1 / (1 + Math.exp(-x));

/** S* = sigma(Z* Z*^T): (12, 12) */
export const GOAL = Z_STAR.map((a) => Z_STAR.map((b) => sigmoid(dot(a, b))));

/**
 * An example: from place u to place v, spoiled to level t by noise (2,).
 * @typedef {{u: number, v: number, t: number, noise: ArrayLike<number>}} Example
 * What is trained, in one row: E (12, 2), W (2, 2), a (T,)
 * @typedef {Float64Array} Weights
 */
const [W, A, SIZE] = [2 * PLACES, 2 * PLACES + 4, 2 * PLACES + 4 + T];

/** E of standard deviation 0.7, W and a small. @param {number} seed @returns {Weights} */
export function begin(seed) {
  return normal(seed)(SIZE).map((value, n) => (n < W ? 0.7 : 0.1) * value);
}

/**
 * Both losses and the gradient of L_Diff + delta L_AIME.
 * @param {Weights} weights @param {Example[]} batch @param {number} delta
 */
export function gradient(weights, batch, delta) {
  const found = new Float64Array(SIZE);
  let diffusion = 0;
  for (const { u, v, t, noise } of batch) {
    const [signal, spread] = [Math.sqrt(ALPHA_BAR[t]), Math.sqrt(1 - ALPHA_BAR[t])];
    const [goal, from] = [weights.subarray(2 * v, 2 * v + 2), weights.subarray(2 * u, 2 * u + 2)];
    const a = weights[A + t - 1];
    for (const c of [0, 1]) {
      const spoiled = signal * goal[c] + spread * noise[c];
      const miss = goal[c] - a * spoiled - weights[W + 2 * c] * from[0] - weights[W + 2 * c + 1] * from[1];
      const share = (2 * miss) / batch.length;
      diffusion += (miss * miss) / batch.length;
      found[2 * v + c] += share * (1 - a * signal);
      found[A + t - 1] -= share * spoiled;
      for (const k of [0, 1]) {
        found[2 * u + k] -= share * weights[W + 2 * c + k];
        found[W + 2 * c + k] -= share * from[k];
      }
    }
  }
  let aime = 0; // Eq. 10: a sum over columns, a mean over rows
  for (let i = 0; i < PLACES; i++) {
    for (let j = 0; j < PLACES; j++) {
      const [one, other] = [weights.subarray(2 * i, 2 * i + 2), weights.subarray(2 * j, 2 * j + 2)];
      const S = sigmoid(dot(one, other));
      aime += (S - GOAL[i][j]) ** 2 / PLACES;
      const slope = (4 * delta * (S - GOAL[i][j]) * S * (1 - S)) / PLACES; // pair (i, j) and pair (j, i)
      for (const c of [0, 1]) found[2 * i + c] += slope * other[c];
    }
  }
  return { gradient: found, diffusion, aime };
}

/** Steps of Adam (Kingma and Ba 2015). */
export class Training {
  /** @param {Weights} weights @param {number} delta @param {number} [seed] of the examples */
  constructor(weights, delta, seed = 1) {
    this.weights = weights;
    this.delta = delta;
    this.steps = 0;
    this.mean = new Float64Array(SIZE);
    this.square = new Float64Array(SIZE);
    this.even = uniform(seed);
    this.noise = normal(seed + 1);
  }

  /** @returns {Example[]} */
  batch() {
    const one = (/** @type {number} */ n) => Math.floor(n * this.even());
    return Array.from({ length: BATCH }, () => {
      const u = one(PLACES);
      const near = PLACES / DISTRICTS;
      let v = u;
      while (v === u) v = this.even() < STAYS ? near * district(u) + one(near) : one(PLACES);
      return { u, v, t: 1 + one(T), noise: this.noise(2) };
    });
  }

  /** One step. @param {Example[]} [batch] */
  step(batch = this.batch()) {
    const { gradient: g, diffusion, aime } = gradient(this.weights, batch, this.delta);
    this.steps += 1;
    for (let n = 0; n < SIZE; n++) {
      this.mean[n] = BETA_1 * this.mean[n] + (1 - BETA_1) * g[n];
      this.square[n] = BETA_2 * this.square[n] + (1 - BETA_2) * g[n] ** 2;
      const mean = this.mean[n] / (1 - BETA_1 ** this.steps);
      const square = this.square[n] / (1 - BETA_2 ** this.steps);
      this.weights[n] -= (LR * mean) / (Math.sqrt(square) + EPSILON);
    }
    return { diffusion, aime };
  }
}

/** The mean length of the embeddings. @param {Weights} weights */
export function meanLength(weights) {
  let sum = 0;
  for (let place = 0; place < PLACES; place++) sum += Math.hypot(weights[2 * place], weights[2 * place + 1]);
  return sum / PLACES;
}

/**
 * How many of the three places that are listed first lie in the district of the newest one, as a share. The list is of
 * the one-step answer at full noise, f(0, T, h) = W e_u, by inner products.
 * @param {Weights} weights
 */
export function rightShare(weights) {
  let right = 0;
  for (let u = 0; u < PLACES; u++) {
    const answer = [0, 1].map((c) => dot(weights.subarray(W + 2 * c, W + 2 * c + 2), weights.subarray(2 * u, 2 * u + 2)));
    const scores = Array.from({ length: PLACES }, (_, v) => dot(answer, weights.subarray(2 * v, 2 * v + 2)));
    const others = Array.from(scores.keys()).filter((v) => v !== u);
    others.sort((one, other) => scores[other] - scores[one]);
    right += others.slice(0, 3).filter((v) => district(v) === district(u)).length / 3;
  }
  return right / PLACES;
}
