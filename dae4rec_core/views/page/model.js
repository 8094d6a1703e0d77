/**
 * The trained model in JavaScript: condition, denoiser, samplers, compensator, scores, draws (Eq. 3 to 16).
 *
 * Reads what `python -m dae4rec_core export` writes: a safetensors file with float16 weights. Plain ES, no dependency.
 * Names and shapes are those of dae4rec_core/method/, whose docstrings give the equations; tests/views/test_page.py
 * holds every number against torch. A vector is a Float64Array; a matrix is a Float32Array of rows, as torch keeps it.
 *
 * @typedef {Float32Array | Float64Array | number[]} Vector
 * @typedef {{data: Float32Array | Float64Array | Int32Array, shape: number[]}} Tensor
 * @typedef {(e: Vector, t: number) => Float64Array} Predictor  f(e^t, t, h) for one h
 * @typedef {{vector: Float64Array, gains: Map<number, number>}} Query  what the items are scored with
 * @typedef {object} Chain
 * @property {number[]} tau  the levels that are visited, tau_1 first
 * @property {Float64Array[]} points  e^{tau_S} .. e^{tau_1}
 * @property {Float64Array[]} beliefs  what f answers at each of them
 */

/* ---- the file ------------------------------------------------------------------------------------------------- */

/** All 65,536 half floats, so that reading one is a look into a table. */
const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
});

/**
 * The tensors of a safetensors file and the JSON that the checkpoint keeps in its header.
 * @param {Uint8Array} bytes
 * @returns {{tensors: Map<string, Tensor>, about: any}}
 */
export function parse(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [first, last] = entry.data_offsets;
    const raw = bytes.slice(8 + length + first, 8 + length + last).buffer; // a copy starts where numbers may
    tensors.set(name, { data: numbers(raw, entry.dtype, name), shape: entry.shape });
  }
  for (const [name, { data: scale }] of tensors) {
    if (!name.endsWith(".scale")) continue; // of the rows of a matrix of small whole numbers
    const { data, shape } = tensors.get(name.slice(0, -".scale".length));
    for (let n = 0; n < data.length; n++) data[n] *= scale[Math.floor(n / shape[1])];
  }
  return { tensors, about: JSON.parse(header.__metadata__.recommender) };
}

/**
 * @param {ArrayBuffer} raw
 * @param {string} dtype
 * @param {string} name
 */
function numbers(raw, dtype, name) {
  if (dtype === "F16") return Float32Array.from(new Uint16Array(raw), (bits) => HALVES[bits]);
  if (dtype === "I8") return Float32Array.from(new Int8Array(raw));
  if (dtype === "F32") return new Float32Array(raw);
  if (dtype === "F64") return new Float64Array(raw);
  if (dtype === "I32") return new Int32Array(raw);
  if (dtype === "I64") return Int32Array.from(new BigInt64Array(raw), Number);
  throw new Error(`${name} is of type ${dtype}, which the page cannot read.`);
}

/* ---- small mathematics ---------------------------------------------------------------------------------------- */

/** erf to 1.2e-7 of itself (Numerical Recipes, erfcc), for GELU. @param {number} x */
function erf(x) {
  const z = Math.abs(x);
  const t = 1 / (1 + z / 2);
  const c = [
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
  ];
  const tail = t * Math.exp(-z * z + c.reduce((sum, value) => sum * t + value, 0));
  return x >= 0 ? 1 - tail : tail - 1;
}

/** @param {number} x */
const gelu = (x) => (x / 2) * (1 + erf(x * Math.SQRT1_2));

/**
 * matrix @ x, plus a bias: rows of `width` numbers, of which those from `from` on meet x.
 * @param {Float32Array} matrix @param {Vector} x @param {number} rows
 * @param {Vector | null} [bias] @param {number} [from] @param {number} [width]
 */
function product(matrix, x, rows, bias = null, from = 0, width = x.length) {
  const found = new Float64Array(rows);
  const n = x.length;
  for (let row = 0; row < rows; row++) {
    let sum = bias ? bias[row] : 0;
    const start = row * width + from;
    for (let column = 0; column < n; column++) sum += matrix[start + column] * x[column];
    found[row] = sum;
  }
  return found;
}

/** In place, stable. @param {Float64Array} logits */
export function softmax(logits) {
  let most = -Infinity;
  for (const value of logits) most = Math.max(most, value);
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += logits[i] = Math.exp(logits[i] - most);
  for (let i = 0; i < logits.length; i++) logits[i] /= total;
  return logits;
}

/** @param {Vector} x */
const norm = (x) => Math.sqrt(dot(x, x));

/** x / |x|, as torch's normalize. @param {Vector} x @returns {Float64Array} */
function unit(x) {
  const length = Math.max(norm(x), 1e-12);
  return Float64Array.from(x, (value) => value / length);
}

/** Sines and cosines of t, with angles in single precision as torch has them. @param {number} t @param {number} dim */
function timeEmbedding(t, dim) {
  const half = dim / 2;
  const { fround } = Math;
  const exponent = (/** @type {number} */ i) => fround(fround(fround(-Math.log(10000)) * i) / half);
  const angle = (/** @type {number} */ i) => fround(t * fround(Math.exp(exponent(i))));
  return Float64Array.from({ length: dim }, (_, i) => (i < half ? Math.sin(angle(i)) : Math.cos(angle(i - half))));
}

/** Even numbers in [0, 1) that a seed decides: mulberry32. Not torch's stream, and it need not be. @param {number} seed */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

/** Normal numbers, by Box and Muller. @param {number} seed */
export function normal(seed) {
  const even = uniform(seed);
  return (/** @type {number} */ n) =>
    Float64Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(1 - even())) * Math.cos(2 * Math.PI * even()));
}

/* ---- where the steps stand, and how far they go ---------------------------------------------------------------- */

/** tau_i = round(i T / S), halves up. @param {number} timesteps @param {number} steps */
export function chooseTau(timesteps, steps) {
  checkSteps(timesteps, steps);
  return Array.from({ length: steps }, (_, i) => Math.floor((2 * (i + 1) * timesteps + steps) / (2 * steps)));
}

/** Even in log-SNR from T to 1. @param {Vector} alphaBar @param {number} steps */
export function chooseTauBySnr(alphaBar, steps) {
  const timesteps = alphaBar.length - 1;
  checkSteps(timesteps, steps);
  const snr = Array.from({ length: timesteps }, (_, i) => logSnr(alphaBar[i + 1]));
  const [first, last] = [snr[timesteps - 1], snr[0]];
  const tau = [];
  let room = timesteps;
  for (let left = steps; left > 0; left--) {
    const wanted = steps === 1 ? first : first + ((last - first) * (steps - left)) / (steps - 1);
    let nearest = 0;
    for (let i = 1; i < timesteps; i++) if (Math.abs(snr[i] - wanted) < Math.abs(snr[nearest] - wanted)) nearest = i;
    room = Math.max(left, Math.min(nearest + 1, room));
    tau.push(room);
    room -= 1;
  }
  return tau.reverse();
}

/** @param {number} timesteps @param {number} steps */
function checkSteps(timesteps, steps) {
  if (!(steps >= 1 && steps <= timesteps)) {
    throw new Error(`S is ${steps}, but the chain has T = ${timesteps} steps; give an S from 1 to ${timesteps}.`);
  }
}

/** @param {number} level */
const logSnr = (level) => Math.log(level) - Math.log1p(-level);

/** The rho of the Markov posterior. @param {number} now @param {number} before */
const posteriorStd = (now, before) => Math.sqrt(((1 - before) / (1 - now)) * (1 - now / before));

/* ---- the model -------------------------------------------------------------------------------------------------- */

export class Model {
  /** @param {Uint8Array} bytes of an exported file */
  constructor(bytes) {
    const { tensors, about } = parse(bytes);
    this.tensors = tensors;
    this.config = about.config;
    this.itemIds = about.item_ids;
    this.compensators = about.compensators;
    this.alphaBar = this.weights("alpha_bar");
    this.dim = this.config.model.dim;
    this.hidden = this.config.model.hidden;
    this.timesteps = this.config.diffusion.timesteps;
    this.nItems = this.itemIds.length;
    this.onSphere = this.config.beyond.geometry === "sphere";
    this.posterior = this.config.beyond.denoiser === "posterior";
    this.embedding = /** @type {Float32Array} */ (this.weights("model.embedding.weight"));
    this.items = this.onSphere ? this.unitRows(this.embedding) : this.embedding; // (|V|, d)
    /** @type {Map<number, Float64Array>} */
    this.times = new Map(); // what the first layer of f makes of t
    /** @type {Map<string, {weight: Float32Array, bias: Float32Array}[]>} */
    this.sequences = new Map();
  }

  /** @param {string} name */
  weights(name) {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`The exported file lacks ${name}; export it again.`);
    return found.data;
  }

  /** @param {string} name @returns {Float32Array} */
  matrix(name) {
    return /** @type {Float32Array} */ (this.weights(name));
  }

  /** @param {Float32Array} rows */
  unitRows(rows) {
    const found = new Float32Array(rows.length);
    for (let start = 0; start < rows.length; start += this.dim) {
      found.set(unit(rows.subarray(start, start + this.dim)), start);
    }
    return found;
  }

  /** The newest items that the model sees. @param {number[]} history item numbers, oldest first */
  newest(history) {
    if (!history.length) throw new Error("The history is empty; choose at least one item.");
    return history.slice(-this.config.data.max_len);
  }

  /**
   * h of Eq. 4: a mean of the history in which each item says how much it looks at each other one.
   * @param {number[]} history item numbers, oldest first
   */
  condition(history) {
    const seen = this.newest(history);
    const { dim } = this;
    const { aggregation, positions, layer_norm: layerNorm } = this.config.model;
    const places = positions ? this.matrix("model.attention.positions") : null;
    const offset = this.config.data.max_len - seen.length;
    const e = seen.map((item, place) =>
      Float64Array.from({ length: dim }, (_, c) => {
        const position = places ? places[(offset + place) * dim + c] : 0;
        return this.embedding[item * dim + c] + position;
      }),
    );
    const queries = e.map((x) => product(this.matrix("model.attention.w_q.weight"), x, dim));
    const keys = e.map((x) => product(this.matrix("model.attention.w_k.weight"), x, dim));
    const asking = aggregation === "last" ? queries.slice(-1) : queries;
    const summed = new Float64Array(dim);
    for (const query of asking) {
      const weight = softmax(Float64Array.from(keys, (key) => dot(query, key) / Math.sqrt(dim)));
      for (let place = 0; place < e.length; place++) {
        for (let c = 0; c < dim; c++) summed[c] += weight[place] * e[place][c];
      }
    }
    const h = product(this.matrix("model.attention.w_v.weight"), summed, dim);
    return layerNorm ? this.layerNorm(h) : h;
  }

  /** @param {Float64Array} h */
  layerNorm(h) {
    const mean = h.reduce((sum, value) => sum + value, 0) / h.length;
    const variance = h.reduce((sum, value) => sum + (value - mean) ** 2, 0) / h.length;
    const scale = this.weights("model.attention.norm.weight");
    const shift = this.weights("model.attention.norm.bias");
    return h.map((value, c) => ((value - mean) / Math.sqrt(variance + 1e-5)) * scale[c] + shift[c]);
  }

  /**
   * What follows the first layer of f and of c: GELU, then linear layers with GELUs between them.
   * @param {string} prefix @param {Float64Array} first
   */
  rest(prefix, first) {
    let x = first;
    for (const { weight, bias } of this.layers(prefix)) x = product(weight, x.map(gelu), bias.length, bias);
    return x;
  }

  /** The linear layers of a torch Sequential, in their order. @param {string} prefix */
  layers(prefix) {
    const known = this.sequences.get(prefix);
    if (known) return known;
    const places = [...this.tensors.keys()]
      .filter((name) => name.startsWith(prefix) && name.endsWith(".weight"))
      .map((name) => Number(name.slice(prefix.length).split(".")[0]))
      .sort((a, b) => a - b);
    const found = places.map((place) => ({
      weight: this.matrix(`${prefix}${place}.weight`),
      bias: this.matrix(`${prefix}${place}.bias`),
    }));
    this.sequences.set(prefix, found);
    return found;
  }

  /**
   * f(e^t, t, h) of Eq. 5 for a chain that visits many t with one h.
   * @param {Float64Array} h @returns {Predictor}
   */
  denoiser(h) {
    const { dim, hidden } = this;
    const first = this.matrix("model.denoiser.first.weight"); // (hidden, 3 d): of e^t, of t, of h
    const fromH = product(first, h, hidden, this.matrix("model.denoiser.first.bias"), 2 * dim, 3 * dim);
    const shortcut = this.config.model.shortcut
      ? product(this.matrix("model.denoiser.shortcut.weight"), h, dim, this.matrix("model.denoiser.shortcut.bias"))
      : new Float64Array(dim);
    return (e, t) => {
      if (!this.times.has(t)) {
        this.times.set(t, product(first, timeEmbedding(t, dim), hidden, null, dim, 3 * dim));
      }
      const time = /** @type {Float64Array} */ (this.times.get(t));
      const layer = product(first, e, hidden, null, 0, 3 * dim).map((value, row) => value + time[row] + fromH[row]);
      return this.rest("model.denoiser.rest.", layer).map((value, c) => value + shortcut[c]);
    };
  }

  /**
   * f for the sampler: with guidance, or as a mean over the catalogue, where the model has them.
   * @param {Float64Array} h @param {number[]} history @returns {Predictor}
   */
  predictor(h, history) {
    const f = this.denoiser(h);
    const { guidance, unconditional } = this.config.beyond;
    if (this.posterior) return this.catalogueMean(f, h, history);
    if (!guidance || !unconditional) return f;
    const blind = this.denoiser(Float64Array.from(this.weights("model.nothing")));
    return (e, t) => {
      const other = blind(e, t);
      return f(e, t).map((value, c) => (1 + guidance) * value - guidance * other[c]);
    };
  }

  /** @param {Predictor} g @param {Float64Array} h @param {number[]} history @returns {Predictor} */
  catalogueMean(g, h, history) {
    const gains = this.returns(h, history);
    const length = Math.sqrt(this.dim);
    return (e, t) => {
      const level = this.alphaBar[t];
      const says = Math.sqrt(this.dim * level) / (1 - level);
      const vector = this.direction(g(e, t)).map((value, c) => value + says * e[c]);
      const p = softmax(this.scores({ vector, gains }));
      const mean = new Float64Array(this.dim);
      for (let item = 0; item < this.nItems; item++) {
        const weight = length * p[item];
        if (weight < 1e-12) continue;
        for (let c = 0; c < this.dim; c++) mean[c] += weight * this.items[item * this.dim + c];
      }
      return mean;
    };
  }

  /**
   * Skip-step sampling, Eq. 15, from x_T down to e^{tau_1} and f's answer there.
   * @param {Predictor} f @param {Vector} xT @param {number[]} tau
   * @param {{order?: 1 | 2, eta?: number, noise?: (n: number) => Vector}} [options] eta: rho as a share of the Markov
   *   posterior's; order 2 is DPM-Solver++(2M), for eta = 0
   * @returns {Chain}
   */
  chain(f, xT, tau, { order = 1, eta = 0, noise = normal(0) } = {}) {
    if (order === 2 && eta > 0) throw new Error("The second order has no noise in its steps; set rho to 0.");
    let e = Float64Array.from(xT);
    const points = [e];
    const beliefs = [];
    let before = null;
    let jumpBefore = 0;
    for (let i = tau.length - 1; i > 0; i--) {
      const belief = f(e, tau[i]);
      const [now, target] = [this.alphaBar[tau[i]], this.alphaBar[tau[i - 1]]];
      const rho = eta * posteriorStd(now, target);
      const kappa = Math.sqrt(Math.max(0, 1 - target - rho ** 2) / (1 - now));
      const xi = Math.sqrt(target) - Math.sqrt(now) * kappa;
      const jump = (logSnr(target) - logSnr(now)) / 2;
      const old = order === 2 ? before : null;
      const ahead = jump / (2 * jumpBefore);
      const random = rho > 0 ? noise(e.length) : null;
      e = e.map((value, c) => {
        const middle = old ? belief[c] + ahead * (belief[c] - old[c]) : belief[c];
        return kappa * value + xi * middle + (random ? rho * random[c] : 0);
      });
      beliefs.push(belief);
      points.push(e);
      before = belief;
      jumpBefore = jump;
    }
    beliefs.push(f(e, tau[0]));
    return { tau, points, beliefs };
  }

  /**
   * The compensator's answer in place of f's last one (Eq. 16).
   * @param {Vector} e1 e^{tau_1} @param {Float64Array} h @param {number | "shared"} name
   */
  compensate(e1, h, name) {
    const prefix = `compensator.${name}.`;
    const { dim, hidden } = this;
    const first = this.matrix(`${prefix}first.weight`);
    const bias = this.matrix(`${prefix}first.bias`);
    if (name === "shared") {
      const start = this.predictor(h, [])(new Float64Array(dim), this.timesteps);
      return this.rest(`${prefix}rest.`, product(first, h, hidden, bias)).map((value, c) => value + start[c]);
    }
    const fromH = product(first, h, hidden, bias, dim, 2 * dim);
    const layer = product(first, e1, hidden, null, 0, 2 * dim).map((value, row) => value + fromH[row]);
    const answer = this.rest(`${prefix}rest.`, layer);
    if (!this.config.model.shortcut) return answer;
    const shortcut = product(this.matrix(`${prefix}shortcut.weight`), h, dim, this.matrix(`${prefix}shortcut.bias`));
    return answer.map((value, c) => value + shortcut[c]);
  }

  /** @param {Vector} e @returns {Float64Array} */
  direction(e) {
    if (!this.onSphere) return Float64Array.from(e);
    return unit(e).map((value) => value / this.config.beyond.temperature);
  }

  /** What a user's own items gain, by place. @param {Float64Array} h @param {number[]} history */
  returns(h, history) {
    /** @type {Map<number, number>} */
    const gains = new Map();
    if (!this.config.beyond.returns || !history.length) return gains;
    const seen = this.newest(history);
    const longest = this.config.data.max_len;
    const gate = product(this.matrix("model.returns.gate.weight"), h, longest);
    const place = this.weights("model.returns.place");
    seen.forEach((item, n) => {
      const at = longest - seen.length + n;
      gains.set(item, (gains.get(item) ?? 0) + place[at] + gate[at]);
    });
    return gains;
  }

  /** log(1 + c) of the counts of the newest three items. @param {number[]} history @param {Map<number, number>} gains */
  addNeighbours(history, gains) {
    const weight = this.config.beyond.neighbours;
    if (!weight) return gains;
    const [data, indices, starts] = ["data", "indices", "indptr"].map((part) => this.weights(`counts.${part}`));
    const total = new Map();
    this.newest(history)
      .slice(-3)
      .reverse()
      .forEach((item, n) => {
        for (let at = starts[item]; at < starts[item + 1]; at++) {
          total.set(indices[at], (total.get(indices[at]) ?? 0) + data[at] / (n + 1));
        }
      });
    for (const [item, count] of total) gains.set(item, (gains.get(item) ?? 0) + weight * Math.log1p(count));
    return gains;
  }

  /**
   * A generated e^0 as a query.
   * @param {Vector} e0 @param {Float64Array} h @param {number[]} history @returns {Query}
   */
  query(e0, h, history) {
    const own = this.posterior ? this.denoiser(h)(new Float64Array(this.dim), this.timesteps) : e0;
    return { vector: this.direction(own), gains: this.addNeighbours(history, this.returns(h, history)) };
  }

  /** Inner products with every item, plus gains: (|V|,). @param {Query} query */
  scores({ vector, gains }) {
    const found = product(this.items, vector, this.nItems);
    for (const [item, gain] of gains) found[item] += gain;
    return found;
  }

  /**
   * Which item each draw stands for: its nearest one. Shares of all items: (|V|,).
   * @param {Vector[]} ends e^0 of many chains @param {Float64Array} h @param {number[]} history
   */
  shares(ends, h, history) {
    const shares = new Float64Array(this.nItems);
    for (const e0 of ends) shares[this.nearest(e0, h, history)] += 1 / ends.length;
    return shares;
  }

  /** @param {Vector} e0 @param {Float64Array} h @param {number[]} history */
  nearest(e0, h, history) {
    const query = this.posterior
      ? { vector: Float64Array.from(e0, (x) => x / Math.sqrt(this.dim)), gains: new Map() }
      : this.query(e0, h, history);
    const found = this.scores(query);
    let best = 0;
    for (let item = 0; item < this.nItems; item++) {
      found[item] -= this.halfSquare(item);
      if (found[item] > found[best]) best = item;
    }
    return best;
  }

  /** |e_v|^2 / 2. @param {number} item */
  halfSquare(item) {
    if (!this.squares) {
      this.squares = Float64Array.from({ length: this.nItems }, (_, v) => {
        const row = this.items.subarray(v * this.dim, (v + 1) * this.dim);
        return dot(row, row) / 2;
      });
    }
    return this.squares[item];
  }
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/**
 * Item numbers, the best score first; of equal ones the smaller number. `without` are left out.
 * @param {Float64Array} scores @param {number} k @param {Set<number>} [without]
 */
export function top(scores, k, without = new Set()) {
  const order = Array.from(scores.keys()).filter((item) => !without.has(item));
  return order.sort((a, b) => scores[b] - scores[a] || a - b).slice(0, k);
}

/** -sum p log2 p, in bits. @param {Vector} p */
export function entropy(p) {
  let bits = 0;
  for (const value of p) if (value > 0) bits -= value * Math.log2(value);
  return bits;
}

/** Half the sum of |p - q|. @param {Vector} p @param {Vector} q */
export function totalVariation(p, q) {
  let sum = 0;
  for (let item = 0; item < p.length; item++) sum += Math.abs(p[item] - q[item]);
  return sum / 2;
}

/**
 * The mean total variation between a law and the shares of n draws from it, exactly (de Moivre's mean deviation).
 * @param {Vector} law @param {number} n
 */
export function samplingDistance(law, n) {
  let sum = 0;
  for (const p of law) {
    if (p <= 0 || p >= 1) continue;
    const k = Math.floor(n * p) + 1;
    let log = Math.log(2 * k) + k * Math.log(p) + (n - k + 1) * Math.log1p(-p);
    for (let i = 1; i <= k; i++) log += Math.log((n - k + i) / i);
    sum += Math.exp(log) / n;
  }
  return sum / 2;
}
