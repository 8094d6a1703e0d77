/**
 * The delta explorer: whole models, trained with more and more of L_AIME, and what that does to E and to the lists.
 *
 * @typedef {object} About  what dae4rec_core.views.page.delta gathers
 * @property {{delta: number, held: number, plane: number[][], bytes: [number, number]}[]} models  by delta: the share of
 *   E's variance that its plane holds, the items in it (|V|, 2), and where its weights stand
 * @property {[number, number]} zStar  where Z* stands among the weights
 * @property {number} start  number of the first shown model
 * @property {number} usual  number of the default delta's model
 * @property {string[]} names  of each item
 * @property {{name: string, items: number[], next: number}[]} people
 * @property {boolean} seen  whether a list may hold what the person knows
 * @property {{kind: string, names: string[], of: number[], colours: string[]}} groups  of the items, districts or areas
 * @property {number[]} order  the items of the heatmaps, by group
 * @property {string[]} heat  colours from 0 to 1
 * @property {import("./parts.js").Line[]} spectra  share of E's variance in the first n directions, a line a delta
 * @property {import("./parts.js").Line[]} hits  validation HR@10 against the number of the model
 * @property {import("./parts.js").Asked} question
 * @property {[number, number][]} [xy]  of each item, in kilometres
 */

import { Model, chooseTau, dot, normal, parse, top } from "./model.js";
import { Dots, Player, askFirst, button, chart, choice, followAddress, h, mount, named, recall, remember, row, scaled, slider, tick } from "./parts.js";

const STEPS = [1, 2, 5, 10, 20, 50, 200];
const LISTED = 10;
const BOX = { width: 640, height: 480 };

export class DeltaExplorer {
  /** @type {Map<number, Model>} */ models = new Map();
  /** @type {any} */ slider;
  /** @type {any} */ sampling;
  /** @type {any} */ player;
  /** @type {any} */ dots;
  /** @type {any} */ who;
  /** @type {any} */ tick;
  /** @type {any} */ key;
  /** @type {any} */ facts;
  /** @type {any} */ status;
  /** @type {any} */ table;
  /** @type {any[]} */ heatmaps = [];
  /** @type {any[]} */ charts = [];
  /** @type {number[]} */ near = []; // the nearest items of the pointed one
  pointed = -1;
  drawn = -1; // the model whose heatmap is shown
  onMap = false;
  S = 10;
  person = 0;

  /** @param {HTMLElement} root @param {Uint8Array} bytes @param {About} about */
  constructor(root, bytes, about) {
    this.bytes = bytes;
    this.about = about;
    this.at = about.start;
    this.usual = this.list(about.usual, this.person, this.S);
    this.steps = STEPS.filter((S) => S <= this.model(this.at).timesteps);
    const everywhere = about.models.flatMap(({ plane }) => plane);
    const place = scaled(everywhere, BOX, 0); // one scale for all, so that a small cloud is seen to be small
    this.planes = about.models.map(({ plane }) => plane.map(place));
    this.map = about.xy?.map(scaled(about.xy, BOX, 0));
    this.build(root);
    this.restore();
    followAddress(root, "delta", () => this.restore());
  }

  /** The model number n, read when it is first asked for. @param {number} n */
  model(n) {
    const known = this.models.get(n);
    if (known) return known;
    const [first, last] = this.about.models[n].bytes;
    const found = new Model(this.bytes.subarray(first, last));
    this.models.set(n, found);
    return found;
  }

  /** All items for a person, best first: by model n, from its first noise, in S steps. @param {number} n @param {number} person @param {number} S */
  list(n, person, S) {
    const model = this.model(n);
    const { items } = this.about.people[person];
    const condition = model.condition(items);
    const f = model.predictor(condition, items);
    const { beliefs } = model.chain(f, normal(1)(model.dim), chooseTau(model.timesteps, S), {});
    const scores = model.scores(model.query(beliefs[beliefs.length - 1], condition, items));
    return top(scores, model.nItems, new Set(this.about.seen ? [] : items));
  }

  /* ---- building ------------------------------------------------------------------------------------------------ */

  /** @param {HTMLElement} root */
  build(root) {
    const { about } = this;
    this.dots = new Dots(BOX, about.names.length, (item) => this.point(item));
    this.slider = slider("δ, the weight of the item graph", about.models.length - 1, (n) => this.show({ at: n }));
    this.player = new Player(
      () => {
        this.show({ at: (this.at + 1) % about.models.length }, false);
        return this.at + 1 < about.models.length;
      },
      () => 1200,
    );
    this.who = choice("person", about.people.map(({ name }) => name), (person) => this.show({ person }));
    this.sampling = slider("S, sampling steps", this.steps.length - 1, (n) => this.show({ S: this.steps[n] }));
    this.tick = tick("on the map", (onMap) => this.show({ onMap }));
    this.facts = h("p", { class: "facts", role: "status" });
    this.status = h("p", { class: "status" });
    this.table = h("table", {});
    this.key = h("p", { class: "legend" });
    this.heatmaps = ["similarity of E", "its goal S*"].map((title) => {
      const size = about.order.length;
      const canvas = h("canvas", { width: size, height: size, role: "img" });
      return { canvas, said: h("h2", {}, title) };
    });
    this.charts = ["chart", "chart spoils"].map((kind) => h("div", { class: kind }));
    const settings = [
      row(named("δ", this.slider.input, " ", this.slider.said), this.player.button),
      row(named("person", this.who)),
      row(named("steps", this.sampling.input, " ", this.sampling.said), ...(this.map ? [this.tick.label] : [])),
    ];
    const side = h("div", { class: "side" }, ...settings, this.facts, this.status);
    const heat = this.heatmaps.map(({ said, canvas }) => h("div", { class: "heat" }, said, canvas));
    root.classList.add("dae4rec", "dae4rec-delta");
    root.replaceChildren(
      askFirst(root, about.question).box,
      h("div", { class: "map" }, this.dots.svg, this.key),
      side,
      h("div", { class: "charts" }, ...heat, ...this.charts),
      h("div", { class: "list", tabindex: 0, role: "group", "aria-label": "the list" }, this.table),
    );
    this.paintHeat(1, this.goal());
  }

  /** S* of the heatmap's items. */
  goal() {
    const [first, last] = this.about.zStar;
    const { data, shape } = /** @type {import("./model.js").Tensor} */ (parse(this.bytes.subarray(first, last)).tensors.get("z_star"));
    return this.similarity(/** @type {Float32Array} */ (data), shape[1]);
  }

  /** sigma(E E^T) of the heatmap's items, as numbers 0..255. @param {Float32Array} rows @param {number} dim */
  similarity(rows, dim) {
    const { order } = this.about;
    const vectors = order.map((item) => rows.subarray(item * dim, (item + 1) * dim));
    const found = new Uint8Array(order.length ** 2);
    for (let i = 0; i < order.length; i++) {
      for (let j = 0; j <= i; j++) {
        const S = Math.round(255 / (1 + Math.exp(-dot(vectors[i], vectors[j]))));
        found[i * order.length + j] = found[j * order.length + i] = S;
      }
    }
    return found;
  }

  /** @param {number} n which of the two @param {Uint8Array} similar */
  paintHeat(n, similar) {
    const { canvas } = this.heatmaps[n];
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const colours = this.about.heat.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    similar.forEach((S, pixel) => image.data.set([...colours[S], 255], 4 * pixel));
    context.putImageData(image, 0, 0);
    const mean = similar.reduce((sum, S) => sum + S, 0) / (255 * similar.length);
    canvas.setAttribute("aria-label", `similarity of ${this.about.order.length} items, by district: ${mean.toFixed(2)} on average`);
  }

  /* ---- what the reader does -------------------------------------------------------------------------------------- */

  /** @param {{at?: number, person?: number, S?: number, onMap?: boolean}} change @param {boolean} [stop] whether it ends the play */
  show(change, stop = true) {
    if (stop) this.player.stop();
    Object.assign(this, change);
    if (change.person !== undefined || change.S !== undefined) this.usual = this.list(this.about.usual, this.person, this.S);
    this.paint();
    remember({ delta: this.at, person: this.person, steps: this.S, map: Number(this.onMap) });
  }

  restore() {
    const { models, people, start } = this.about;
    this.at = recall("delta", models.length, start);
    this.person = recall("person", people.length, 0);
    const S = recall("steps", 1 + STEPS[STEPS.length - 1], 10);
    this.S = this.steps.includes(S) ? S : this.steps[Math.min(3, this.steps.length - 1)];
    this.onMap = recall("map", 2, 0) === 1 && this.map !== undefined;
    this.usual = this.list(this.about.usual, this.person, this.S);
    this.paint();
  }

  /** @param {number} item */
  point(item) {
    this.pointed = this.dots.pointed = item;
    this.paintPicture();
  }

  /* ---- painting ------------------------------------------------------------------------------------------------------ */

  paint() {
    const { about, at, S } = this;
    const { delta } = about.models[at];
    this.slider.say(at, `δ = ${delta}`);
    this.sampling.say(this.steps.indexOf(S), `S = ${S}`);
    this.who.value = this.person;
    this.tick.input.checked = this.onMap;
    this.paintPicture();
    this.paintTable();
    this.heatmaps[0].said.textContent = `similarity of E, δ = ${delta}`;
    const ticks = about.models.map((model) => `${model.delta}`);
    const spectra = about.spectra.map((line, n) => ({ ...line, colour: n === at ? "var(--model)" : "var(--faint)" }));
    spectra.push(spectra[at]); // above the others
    this.charts[0].replaceChildren(...chart("share of E's variance in its first directions; the band: two", spectra, { log: true, y: [0, 1], at: 2, named: [at] }));
    const marked = { at, said: `δ = ${delta}`, ticks };
    this.charts[1].replaceChildren(...chart("validation HR@10 (%), against δ", about.hits, marked));
    if (this.drawn === at) return;
    this.drawn = at;
    const model = this.model(at);
    this.paintHeat(0, this.similarity(model.embedding, model.dim));
  }

  paintPicture() {
    const { about, at, pointed } = this;
    const { of, colours, names, kind } = about.groups;
    const model = this.model(at);
    const { dim } = model;
    const vector = (/** @type {number} */ item) => model.embedding.subarray(item * dim, (item + 1) * dim);
    let similar = new Float64Array();
    this.near = [];
    if (pointed >= 0) {
      similar = Float64Array.from(about.names, (_, item) => dot(vector(pointed), vector(item)));
      this.near = top(similar, LISTED, new Set([pointed]));
    }
    const places = this.onMap && this.map ? this.map : this.planes[at];
    this.dots.put(places, (/** @type {number} */ item) => {
      const kind = this.near.includes(item) ? "listed" : "";
      const chosen = kind || item === pointed;
      return { r: chosen ? 6 : 3.5, colour: colours[of[item]], opacity: chosen || pointed < 0 ? 0.7 : 0.3, kind };
    });
    const held = `Items in E's own two main directions, which hold ${Math.round(100 * about.models[at].held)}% of its variance`;
    const how = this.onMap ? "Items where they are in the town" : held;
    this.dots.svg.setAttribute("aria-label", `${how}; δ = ${about.models[at].delta}`);
    const ringed = pointed < 0 ? "" : " · ringed: its ten nearest under E";
    this.key.textContent = `${how}, coloured by ${names.length} ${kind}s${ringed}`;
    this.tell();
  }

  /** What is said of the item that is pointed at. */
  tell() {
    const { names, groups } = this.about;
    if (this.pointed < 0) {
      this.status.textContent = "Point at an item, or tap it, to see what is nearest to it under E.";
      return;
    }
    const own = this.near.filter((item) => groups.of[item] === groups.of[this.pointed]).length;
    const first = this.near.slice(0, 3).map((item) => names[item]);
    this.status.textContent = `${names[this.pointed]}: ${own} of its ten nearest under E are in the same ${groups.kind}; first ${first.join(" · ")}.`;
  }

  paintTable() {
    const { about, at, person, S, usual } = this;
    const { next } = about.people[person];
    const list = at === about.usual ? usual : this.list(at, person, S);
    const deltas = [at, about.usual].map((n) => about.models[n].delta);
    const columns = at === about.usual ? [list] : [list, usual];
    const known = new Set(usual.slice(0, LISTED));
    const cell = (/** @type {number} */ item, /** @type {number} */ column) => {
      const changed = column === 0 && !known.has(item);
      const entry = button(`${item === next ? "★ " : ""}${about.names[item]}`, () => this.point(item));
      entry.className = "entry";
      return h("td", { class: changed ? "changed" : "" }, entry, changed ? " ← only here" : "");
    };
    const rows = Array.from({ length: Math.min(LISTED, list.length) }, (_, n) =>
      h("tr", {}, h("th", { scope: "row" }, `${n + 1}`), ...columns.map((items, column) => cell(items[n], column))),
    );
    const heads = columns.map((_, column) => h("th", { scope: "col" }, `δ = ${deltas[column]}`));
    this.table.replaceChildren(h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "rank"), ...heads)), h("tbody", {}, ...rows));
    const rank = (/** @type {number[]} */ items) => items.indexOf(next) + 1;
    const shared = list.slice(0, LISTED).filter((item) => known.has(item)).length;
    const beside = at === about.usual ? "" : `; at δ = ${deltas[1]} at rank ${rank(usual)}, and the lists share ${shared} of ten`;
    this.facts.textContent =
      `This person really went to ${about.names[next]} (★): at rank ${rank(list)} of ${list.length}${beside}. The lists are those of ` +
      `the chain alone, without compensator; one person is no proof, the curve is of all.`;
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountDelta = (root, weights, about) => mount(root, () => new DeltaExplorer(root, weights, about));
