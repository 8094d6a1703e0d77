/**
 * The S explorer: one person, one first noise or many, and every way to skip from it to an answer.
 *
 * @typedef {{name: string, items: number[], slots: number[], next: number}} Person
 * @typedef {object} Setting  how the chain is walked
 * @property {number} S @property {"t" | "log-SNR"} spacing @property {1 | 2} order @property {number} eta
 * @property {boolean} compensate @property {number} seed
 * @typedef {object} About  what dae4rec_core.views.page.steps gathers
 * @property {string[]} names  of each item
 * @property {Person[]} people
 * @property {boolean} seen  whether a list may hold what the person knows
 * @property {{mean: number[], directions: number[][], held: number}} plane  two directions, their share of the variance
 * @property {{names: string[], of: number[], colours: string[]}} groups  of the items
 * @property {number[]} xT  the first noise number 0
 * @property {{title: string, lines: import("./parts.js").Line[], most: number}[]} curves  against S, for everybody; most: the
 *   upper end, 0 for what the lines reach
 * @property {import("./parts.js").Asked} question
 * @property {boolean} many  whether it opens with many first noises
 * @property {[number, number][]} [xy]  of each item, in kilometres
 * @property {import("./law.js").Parameters} [law] @property {number[]} [venue]  the law's number of each item
 */

import { Model, chooseTau, chooseTauBySnr, entropy, normal, samplingDistance, top, totalVariation } from "./model.js";
import { Law } from "./law.js";
import { DRAWS, Draws, Player, askFirst, button, chart, choice, followAddress, h, mount, named, recall, remember, row, scaled, slider } from "./parts.js";

const STEPS = [1, 2, 3, 5, 10, 20, 50, 100, 200];
const RHO = [0, 0.25, 0.5, 0.75, 1];
const LISTED = 10;
const WAYS = /** @type {const} */ ([
  ["even in t", "t", 1],
  ["even in log-SNR", "log-SNR", 1],
  ["log-SNR, order 2", "log-SNR", 2],
]);
const BOX = { width: 640, height: 480 };

export class StepsExplorer {
  // elements
  /** @type {any} */ picture;
  /** @type {any} */ table;
  /** @type {any} */ facts;
  /** @type {any} */ past;
  /** @type {any} */ status;
  /** @type {any} */ lengths;
  /** @type {any[]} */ curves = [];
  /** @type {any} */ play;
  /** @type {any} */ player;
  /** @type {any} */ hold;
  /** @type {any} */ mend;
  /** @type {any} */ who;
  /** @type {any} */ S;
  /** @type {any} */ at;
  /** @type {any} */ way;
  /** @type {any} */ rho;
  /** @type {any} */ several;
  /** @type {any} */ map;
  // the answer
  /** @type {number[]} */ list = [];
  /** @type {number[]} */ order = [];
  /** @type {number[]} */ tau = []; // in the order of the chain
  /** @type {number[][]} */ walk = [];
  /** @type {number[][]} */ beliefs = [];
  /** @type {number[][]} */ places = [];
  /** @type {import("./model.js").Chain} */ chain = { tau: [], points: [], beliefs: [] };
  /** @type {Float64Array | null} */ mended = null;
  /** @type {Float64Array | null} */ truth = null;
  shares = new Float64Array();
  /** @type {any} */ spoken;
  /** @type {any} */ key;
  pointed = -1; // an item
  rank = 0;
  alike = NaN; // items that the lists of two first noises share
  marked = 0; // the S that the curves mark

  /** @param {HTMLElement} root @param {Model} model @param {About} about */
  constructor(root, model, about) {
    this.model = model;
    this.about = about;
    this.law = about.law ? new Law(about.law) : null;
    this.steps = STEPS.filter((S) => S <= model.timesteps);
    /** @type {Setting} */
    this.setting = { S: 10, spacing: "t", order: 1, eta: 0, compensate: false, seed: 0 };
    this.person = 0;
    this.step = 10;
    this.many = false;
    this.onMap = false;
    /** @type {{words: string, list: number[], walk: number[][], rank: number} | null} */ this.held = null;
    this.draws = new Draws(model);
    this.points = this.project(model.items, model.onSphere ? Math.sqrt(model.dim) : 1);
    this.build(root);
    this.restore();
    followAddress(root, "who", () => this.restore());
  }

  /** Rows of d numbers in the plane: (n, 2). @param {Float32Array | Float64Array} rows @param {number} [scale] */
  project(rows, scale = 1) {
    const { mean, directions } = this.about.plane;
    const { dim } = this.model;
    return Array.from({ length: rows.length / dim }, (_, row) =>
      [0, 1].map((axis) => {
        let sum = 0;
        for (let c = 0; c < dim; c++) sum += (scale * rows[row * dim + c] - mean[c]) * directions[c][axis];
        return sum;
      }),
    );
  }

  /* ---- building ------------------------------------------------------------------------------------------------ */

  /** @param {HTMLElement} root */
  build(root) {
    this.picture = h("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img" });
    this.lengths = h("div", { class: "chart" });
    this.curves = this.about.curves.map(() => h("div", { class: "chart spoils" }));
    this.status = h("p", { class: "status" });
    this.past = h("p", { class: "past" });
    this.facts = h("p", { class: "facts" });
    this.spoken = h("p", { class: "spoken", role: "status" }); // for screen readers, once for each answer
    this.key = h("p", { class: "legend" });
    this.table = h("table", {});
    const side = h("div", { class: "side" }, this.buildSettings(), this.past, this.facts, this.status, this.spoken);
    const charts = h("div", { class: "charts" }, this.lengths, ...this.curves);
    const scroll = h("div", { class: "list", tabindex: 0, role: "group", "aria-label": "the list" }, this.table);
    root.classList.add("dae4rec", "dae4rec-steps");
    root.replaceChildren(
      askFirst(root, this.about.question).box,
      h("div", { class: "map" }, this.picture, this.key),
      side,
      scroll,
      charts,
    );
    this.picture.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.point(event));
    this.picture.addEventListener("click", (/** @type {PointerEvent} */ event) => this.point(event));
  }

  /** What the picture's signs mean; only those that are there. */
  paintLegend() {
    const { names, colours } = this.about.groups;
    const sign = (/** @type {string} */ text, /** @type {string} */ colour) => h("b", { style: `color:${colour}` }, text);
    const ends = this.setting.compensate ? "var(--counts)" : "var(--model)";
    const one = [
      [sign("━", "currentColor"), "chain e^t"],
      [sign("✕", "var(--model)"), "belief f"],
      [sign("◆", "var(--counts)"), "compensator"],
      ...(this.held ? [[sign("┅", "currentColor"), "held chain"]] : []),
    ];
    const many = [[sign("●", ends), "end of a draw"]];
    const discs = [[sign("⬤", "grey"), "the larger, the more ends are nearest to this item"]];
    const listed = [[sign("○", "currentColor"), "in the list"]];
    const lines = this.onMap ? [] : this.many ? many : one;
    const shown = [...lines, ...(this.many ? discs : listed), [sign("★", "#c09000"), "true next"]];
    const few = names.length <= 8;
    const groups = few ? names.map((name, n) => [sign("●", colours[n]), name]) : [[`colours: ${names.length} areas`]];
    this.key.replaceChildren(...[...shown, ...groups].map((parts) => h("span", {}, parts[0], ...parts.slice(1).map((text) => ` ${text}`))));
  }

  buildSettings() {
    const { people, xy } = this.about;
    this.who = choice("person", people.map(({ name }) => name), (n) => this.change({}, { person: n }));
    this.S = slider("S, sampling steps", this.steps.length - 1, (n) => {
      const S = this.steps[n];
      this.change({ S }, { step: S });
    });
    this.at = slider("the step that is shown", 1, (n) => {
      this.player.stop();
      this.step = n + 1;
      this.paint();
    });
    this.player = new Player(
      () => {
        this.step = this.step >= this.setting.S ? 1 : this.step + 1;
        this.paint();
        return this.step < this.setting.S;
      },
      () => Math.max(30, Math.min(400, 2500 / this.setting.S)),
    );
    this.play = this.player.button;
    this.way = choice("where the steps stand", WAYS.map(([name]) => name), (n) => {
      const [, spacing, order] = WAYS[n];
      this.change({ spacing, order, ...(order === 2 ? { eta: 0 } : {}) });
    });
    this.rho = slider("rho, noise in every step, in percent of the Markov chain's", RHO.length - 1, (n) =>
      this.change({ eta: RHO[n], order: RHO[n] ? 1 : this.setting.order }),
    );
    this.several = h("input", { type: "checkbox" });
    this.several.addEventListener("change", () => this.change({}, { many: this.several.checked }));
    this.mend = h("input", { type: "checkbox" });
    this.mend.addEventListener("change", () => this.change({ compensate: this.mend.checked }));
    this.map = h("input", { type: "checkbox" });
    this.map.addEventListener("change", () => {
      this.onMap = this.map.checked;
      this.paint();
      this.remember();
    });
    const c = this.mender();
    const trained = c === undefined || c === "shared" ? "" : ` (of S = ${c})`;
    const dice = button("another first noise", () => this.change({ seed: this.setting.seed + 1 }));
    this.hold = button("hold for comparison", () => this.toggleHeld());
    return h(
      "div",
      {},
      row(named("person", this.who), dice),
      row(named("steps", this.S.input, " ", this.S.said)),
      row(named("shown", this.at.input, " ", this.at.said), this.play),
      row(named("the steps stand", this.way)),
      row(named("ρ, noise in every step", this.rho.input, " ", this.rho.said)),
      row(
        named("", this.mend, ` compensator${trained}`),
        named("", this.several, ` ${DRAWS} first noises`),
        ...(xy ? [named("", this.map, " on the map")] : []),
        this.hold,
      ),
    );
  }

  /* ---- what the reader does -------------------------------------------------------------------------------------- */

  /** @param {Partial<Setting>} setting @param {{person?: number, step?: number, many?: boolean}} [more] */
  change(setting, more = {}) {
    this.player.stop();
    if (more.person !== undefined && more.person !== this.person) this.held = null; // another person's list says nothing
    Object.assign(this.setting, setting);
    Object.assign(this, { step: this.setting.S }, more);
    this.ask();
    this.remember();
  }

  toggleHeld() {
    const { list, walk, rank } = this;
    this.held = this.held ? null : { words: this.words(), list, walk, rank };
    this.paint();
  }

  /** @param {PointerEvent} event */
  point(event) {
    const box = this.picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * BOX.width;
    const y = ((event.clientY - box.top) / box.height) * BOX.height;
    const far = this.places.map(([left, down]) => Math.hypot(left - x, down - y));
    const best = far.indexOf(Math.min(...far));
    if (far[best] > 25) return;
    this.pointed = best;
    this.tell();
  }

  /** What is said of the item that is pointed at. */
  tell() {
    const best = this.pointed;
    if (best < 0) {
      this.status.textContent = "Point at an item, or tap it, to see its name.";
      return;
    }
    const rank = this.order.indexOf(best) + 1;
    const share = this.many ? `, ${Math.round(DRAWS * this.shares[best])} of the draws` : "";
    this.status.textContent = `${this.about.names[best]}: ${rank ? `rank ${rank}` : "seen, so not ranked"}${share}`;
  }

  /* ---- the answer -------------------------------------------------------------------------------------------------- */

  /** @param {number} seed */
  noise(seed) {
    return seed ? normal(seed)(this.model.dim) : Float64Array.from(this.about.xT);
  }

  /** The compensator of S = 10, or what there is: one serves every S. @returns {number | "shared" | undefined} */
  mender() {
    const { compensators } = this.model;
    return compensators.includes(10) ? 10 : compensators[0];
  }

  /** The chain of the first noise, its list, and the cloud of many where it is asked for. */
  ask() {
    const { model, setting } = this;
    const { items, slots, next } = this.about.people[this.person];
    const condition = model.condition(items);
    const tau = setting.spacing === "t" ? chooseTau(model.timesteps, setting.S) : chooseTauBySnr(/** @type {Float64Array} */ (model.alphaBar), setting.S);
    const options = { order: setting.order, eta: setting.eta, noise: normal(1e6 + setting.seed) };
    const chain = model.chain(model.predictor(condition, items), this.noise(setting.seed), tau, options);
    const last = chain.points[chain.points.length - 1];
    const c = this.mender();
    this.mend.disabled = c === undefined;
    this.mended = c === undefined ? null : model.compensate(last, condition, c);
    const e0 = setting.compensate && this.mended ? this.mended : chain.beliefs[chain.beliefs.length - 1];
    const scores = model.scores(model.query(e0, condition, items));
    this.order = top(scores, model.nItems, new Set(this.about.seen ? [] : items));
    this.list = this.order.slice(0, LISTED);
    this.rank = this.order.indexOf(next) + 1;
    this.tau = tau.slice().reverse();
    this.chain = chain;
    this.walk = chain.points.map((point) => this.project(point)[0]);
    this.beliefs = chain.beliefs.map((belief) => this.project(belief)[0]);
    this.truth = this.lawOf(items, slots);
    this.draws.stop();
    this.shares = new Float64Array(model.nItems);
    this.paint();
    if (!this.many) return;
    this.alike = NaN;
    const others = normal(1e5 + setting.seed);
    let drawn = 0; // the first of them is the one whose chain and list were shown
    const each = (/** @type {number} */ n) => (drawn++ ? others(n) : this.noise(setting.seed));
    const told = () => {
      this.shares = this.draws.shares();
      if (this.draws.done === DRAWS) this.alike = this.likeness(condition, items);
      this.paint();
    };
    const fresh = { ...options, noise: normal(2e6 + setting.seed) };
    this.draws.start(items, tau, each, fresh, told, setting.compensate ? c : undefined);
  }

  /** The true law of the next item, where it is known. @param {number[]} items @param {number[]} slots */
  lawOf(items, slots) {
    const { venue } = this.about;
    if (!this.law || !venue) return null;
    const law = this.law.next(
      items.map((item) => venue[item]),
      slots,
    );
    return Float64Array.from(venue, (number) => law[number]);
  }

  /** How many of their ten items a draw and the one before it share, on average. @param {Float64Array} h @param {number[]} items */
  likeness(h, items) {
    const { model } = this;
    const known = new Set(this.about.seen ? [] : items);
    const lists = this.draws.ends.map((end) => new Set(top(model.scores(model.query(end, h, items)), LISTED, known)));
    const shared = lists.slice(1).map((list, n) => [...list].filter((item) => lists[n].has(item)).length);
    return shared.reduce((sum, value) => sum + value, 0) / shared.length;
  }

  words() {
    const { S, spacing, order, eta, compensate, seed } = this.setting;
    const way = WAYS.find(([, s, o]) => s === spacing && o === order);
    const parts = [`S = ${S}`, way?.[0], eta ? `rho ${Math.round(100 * eta)}%` : "", compensate ? "compensator" : ""];
    const which = this.many ? `noise ${seed}, the first of ${DRAWS}` : `noise ${seed}`;
    return [...parts, which].filter(Boolean).join(", ");
  }

  /* ---- painting ------------------------------------------------------------------------------------------------------ */

  paint() {
    this.paintSettings();
    this.paintPicture();
    this.paintTable();
    this.paintFacts();
    this.paintLegend();
    this.paintCharts();
    this.tell();
  }

  paintSettings() {
    const { setting, step } = this;
    this.who.value = this.person;
    this.at.input.max = setting.S - 1;
    this.at.input.disabled = this.play.disabled = this.many;
    this.way.value = WAYS.findIndex(([, spacing, order]) => spacing === setting.spacing && order === setting.order);
    this.mend.checked = setting.compensate;
    this.several.checked = this.many;
    this.map.checked = this.onMap;
    this.hold.disabled = this.many; // a chain and its list are held, not a cloud
    this.hold.textContent = this.held ? "let go" : "hold for comparison";
    const t = step ? `t = ${this.tau[step - 1]}` : "";
    this.S.say(this.steps.indexOf(setting.S), `S = ${setting.S}`);
    this.at.say(step - 1, `step ${step} of ${setting.S}, ${t}`);
    this.rho.say(RHO.indexOf(setting.eta), `${Math.round(100 * setting.eta)}% of the Markov chain's`);
  }

  paintPicture() {
    const { next } = this.about.people[this.person];
    const { of, colours } = this.about.groups;
    const raw = this.onMap ? /** @type {[number, number][]} */ (this.about.xy) : this.points;
    // a chain with noise in its steps may leave the items' box, which then grows
    const place = this.onMap || this.many ? scaled(raw, BOX, 0) : scaled([...raw, ...this.walk, ...(this.held?.walk ?? [])], BOX, 0);
    this.places = raw.map(place);
    const dots = this.places.map(([x, y], item) => {
      const share = this.shares[item];
      const listed = !this.many && this.list.includes(item);
      const r = share ? Math.max(3, (this.onMap ? 60 : 30) * Math.sqrt(share)) : listed ? 6 : 3;
      const style = `fill:${colours[of[item]]};fill-opacity:${share || listed ? 0.75 : 0.4}`;
      return h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: r.toFixed(1), style, class: listed ? "listed" : "" });
    });
    const [x, y] = this.places[next];
    const marks = [h("text", { x, y: y + 9, class: "star" }, "★")];
    if (!this.onMap) marks.unshift(...(this.many ? this.cloud(place) : this.paths(place)));
    this.picture.replaceChildren(...dots, ...marks);
    const how = this.onMap
      ? "The places on the map"
      : `The items in two of ${this.model.dim} directions, which hold ${Math.round(100 * this.about.plane.held)}% of their variance`;
    const what = this.many ? `, and where ${this.draws.done} draws end` : ", and one chain";
    this.picture.setAttribute("aria-label", `${how}${what}: ${this.words()}; the true next one at rank ${this.rank}`);
  }

  /** @param {(point: number[]) => number[]} place */
  paths(place) {
    const line = (/** @type {number[][]} */ points, /** @type {string} */ kind) => {
      const d = points.map((point) => place(point).map((value) => value.toFixed(1)).join(" ")).join("L");
      return h("path", { d: `M${d}`, class: kind });
    };
    const found = this.held ? [line(this.held.walk, "walk held")] : [];
    const [walk, beliefs] = [this.walk.slice(0, this.step), this.beliefs.slice(0, this.step)];
    if (!walk.length) return found;
    found.push(line(walk, "walk"), line(beliefs, "belief"));
    if (this.step === this.setting.S && this.mended) {
      const [x, y] = place(this.project(this.mended)[0]);
      found.push(h("path", { d: `M${x} ${y - 8}l8 8l-8 8l-8 -8Z`, class: "mended" }));
    }
    const some = Math.max(1, Math.round(walk.length / 20)); // of many steps, about twenty are marked
    const marked = (/** @type {unknown} */ _, /** @type {number} */ n) => n % some === 0 || n === walk.length - 1;
    for (const point of walk.filter(marked)) {
      const [x, y] = place(point);
      found.push(h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 3, class: "stop" }));
    }
    for (const point of beliefs.filter(marked)) {
      const [x, y] = place(point);
      found.push(h("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, class: "cross" }));
    }
    return found;
  }

  /** @param {(point: number[]) => number[]} place */
  cloud(place) {
    return this.draws.ends.map((end) => {
      const [x, y] = place(this.project(end)[0]);
      return h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 3, class: this.setting.compensate ? "end mended" : "end" });
    });
  }

  paintTable() {
    const { next } = this.about.people[this.person];
    const columns = [{ words: this.words(), list: this.list, other: this.held?.list }];
    if (this.held) columns.push({ words: `held: ${this.held.words}`, list: this.held.list, other: this.list });
    const cell = (/** @type {number} */ item, /** @type {number[] | undefined} */ other) => {
      const changed = other && !other.includes(item);
      const words = `${item === next ? "★ " : ""}${this.about.names[item]}${changed ? " ← only here" : ""}`;
      return h("td", { class: changed ? "changed" : "" }, words);
    };
    const rows = this.list.map((_, n) =>
      h("tr", {}, h("th", { scope: "row" }, `${n + 1}`), ...columns.map(({ list, other }) => cell(list[n], other))),
    );
    const heads = columns.map(({ words }) => h("th", { scope: "col" }, words));
    this.table.replaceChildren(h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "rank"), ...heads)), h("tbody", {}, ...rows));
  }

  paintFacts() {
    const { items, next } = this.about.people[this.person];
    const recent = items.slice(-5).map((item) => this.about.names[item]);
    this.past.textContent = `The newest of ${items.length} visits: ${recent.join(" · ")}. Really next was ${this.about.names[next]} (★).`;
    if (!this.many) {
      const held = this.held ? `; in the held setting at rank ${this.held.rank}` : "";
      this.facts.textContent = `The true next one is at rank ${this.rank} of ${this.order.length}${held}.`;
      this.spoken.textContent = this.facts.textContent;
      return;
    }
    if (this.draws.done < DRAWS) {
      this.facts.textContent = `${this.draws.done} of ${DRAWS} draws …`;
      return;
    }
    const how = this.setting.compensate ? "with" : "without";
    const bits =
      `${DRAWS} first noises ${how} compensator: the lists of two of them share ${this.alike.toFixed(1)} of ten items. ` +
      `As draws they have ${entropy(this.shares).toFixed(1)} bits`;
    const law = this.truth
      ? `, the law ${entropy(this.truth).toFixed(1)}. They are ${totalVariation(this.shares, this.truth).toFixed(2)} from it ` +
        `(total variation); ${DRAWS} draws of the law itself would be ${samplingDistance(this.truth, DRAWS).toFixed(2)}.`
      : ".";
    this.facts.textContent = bits + law;
    this.spoken.textContent = this.facts.textContent;
  }

  paintCharts() {
    const size = (/** @type {Float64Array} */ e) => Math.hypot(...e);
    const upTo = (/** @type {Float64Array[]} */ es) =>
      /** @type {[number, number][]} */ (es.slice(0, this.step).map((e, n) => [this.tau[n], size(e)]));
    const lengths = [
      { name: "chain e^t", colour: "currentColor", dash: "", points: upTo(this.chain.points) },
      { name: "belief f", colour: "var(--model)", dash: "", points: upTo(this.chain.beliefs) },
    ];
    const wide = /** @type {[number, number]} */ ([this.model.timesteps, 0]);
    const tall = /** @type {[number, number]} */ ([0, 1.3 * Math.sqrt(this.model.dim)]);
    this.lengths.replaceChildren(
      ...chart(`lengths in all ${this.model.dim} directions, against t`, lengths, { x: wide, y: tall }),
    );
    if (this.marked === this.setting.S) return;
    this.marked = this.setting.S;
    this.about.curves.forEach(({ title, lines, most }, n) => {
      const tall = most ? { y: /** @type {[number, number]} */ ([0, most]) } : {};
      this.curves[n].replaceChildren(...chart(title, lines, { log: true, at: this.setting.S, ...tall }));
    });
  }

  /* ---- the address ----------------------------------------------------------------------------------------------------- */

  restore() {
    const [, spacing, order] = WAYS[recall("way", WAYS.length, 0)];
    const S = recall("S", this.model.timesteps + 1, 10);
    const eta = order === 2 ? 0 : RHO[recall("rho", RHO.length, 0)];
    const known = this.steps.includes(S) ? S : this.steps[Math.min(4, this.steps.length - 1)];
    const compensate = recall("c", 2, 0) === 1 && this.mender() !== undefined;
    this.setting = { S: known, spacing, order, eta, compensate, seed: recall("noise", 2 ** 31, 0) };
    this.person = recall("who", this.about.people.length, 0);
    this.many = recall("many", 2, Number(this.about.many)) === 1;
    this.onMap = recall("map", 2, 0) === 1 && Boolean(this.about.xy);
    this.step = known;
    this.ask();
  }

  remember() {
    const { S, eta, compensate, seed } = this.setting;
    const rest = { c: Number(compensate), noise: seed, many: Number(this.many), map: Number(this.onMap) };
    remember({ who: this.person, S, way: this.way.value, rho: RHO.indexOf(eta), ...rest });
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountSteps = (root, weights, about) => mount(root, () => new StepsExplorer(root, new Model(weights), about));
