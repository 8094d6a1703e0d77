/**
 * The town explorer: click places to make a history, and see what the law, the model and the counts say comes next.
 *
 * @typedef {import("./model.js").Model} Model
 * @typedef {import("./law.js").Law} Law
 * @typedef {object} About  what dae4rec_core.views.page.town_about writes
 * @property {string[]} names  of each item, "name, district"
 * @property {[number, number][]} xy  of each item, in kilometres
 * @property {number[]} venue  the law's number of each item
 * @property {import("./law.js").Parameters} law
 * @property {{name: string, items: number[], slots: number[], next: number}[]} people
 * @property {number[]} popularity  how often each item was visited in training
 */

import { Model, chooseTau, normal, top, totalVariation, entropy } from "./model.js";
import { Law } from "./law.js";

const DRAWS = 200;
const AT_ONCE = 10; // draws between two pictures
const STEPS = [1, 2, 3, 5, 10, 20, 50, 100, 200];
const SLOTS = ["morning", "noon", "evening", "night"];
const LAYERS = /** @type {const} */ (["law", "model", "counts"]);
const SAYS = { law: "the true law", model: "the model", counts: "counting" };
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} tag @param {Record<string, string | number>} [attributes] @param {...(Node | string)} children
 * @returns {any}
 */
function h(tag, attributes = {}, ...children) {
  const drawn = ["svg", "circle", "path", "g", "title"].includes(tag);
  const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {number} share */
const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)}%` : `${(100 * share).toFixed(1)}%`);

export class TownExplorer {
  /** @param {HTMLElement} root @param {Model} model @param {About} about */
  constructor(root, model, about) {
    this.model = model;
    this.about = about;
    this.law = new Law(about.law);
    /** @type {number[]} */ this.items = [];
    /** @type {number[]} */ this.slots = [];
    this.next = -1; // where the person really went, if it is a person of the town
    this.S = 10;
    this.seed = 0;
    this.compensate = false;
    /** @type {"law" | "model" | "counts"} */ this.layer = "law";
    /** @type {Record<string, Float64Array>} */ this.p = {};
    this.job = 0; // draws of an older question stop
    this.build(root);
    this.restore();
  }

  /** @param {HTMLElement} root */
  build(root) {
    const { about } = this;
    this.map = h("svg", { viewBox: "0 0 640 600", role: "group", "aria-label": "Map of the town, 600 places" });
    this.path = h("path", { class: "walk" });
    this.map.append(this.path);
    const xs = about.xy.map(([x]) => x);
    const ys = about.xy.map(([, y]) => y);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    this.at = about.xy.map(([x, y]) => [
      20 + (600 * (x - left)) / (right - left),
      580 - (560 * (y - low)) / (high - low),
    ]);
    this.dots = this.at.map(([x, y], item) => {
      const dot = h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2.5, "data-item": item });
      this.map.append(dot);
      return dot;
    });
    this.map.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.tell(this.nearestTo(event)));
    this.map.addEventListener("click", (/** @type {MouseEvent} */ event) => this.add(this.nearestTo(event)));

    this.status = h("p", { class: "status" }, "Point at a place to see its name and what each says of it.");
    this.trail = h("div", { class: "trail", "aria-label": "the history, oldest first" });
    this.lists = h("div", { class: "lists" });
    this.facts = h("p", { class: "facts", role: "status" });
    const datalist = h("datalist", { id: `places-${about.names.length}` });
    datalist.append(...about.names.map((name) => h("option", { value: name })));
    this.search = h("input", { list: datalist.id, placeholder: "type a place", "aria-label": "add a place by its name" });
    this.search.addEventListener("change", () => {
      const item = about.names.indexOf(this.search.value);
      if (item >= 0) {
        this.search.value = "";
        this.add(item);
      }
    });
    this.person = h("select", { "aria-label": "load a person of the town" });
    this.person.append(h("option", { value: "" }, "a person …"));
    about.people.forEach(({ name }, n) => this.person.append(h("option", { value: n }, name)));
    this.person.addEventListener("change", () => this.load(Number(this.person.value)));

    const controls = h("div", { class: "controls" });
    controls.append(this.person, this.search, datalist, button("clear", () => this.reset()));
    const layers = h("fieldset", { class: "layers" }, h("legend", {}, "who is asked"));
    for (const layer of LAYERS) {
      const radio = h("input", { type: "radio", name: "layer", value: layer });
      radio.checked = layer === this.layer;
      radio.addEventListener("change", () => {
        this.layer = layer;
        this.paint();
      });
      layers.append(h("label", { class: layer }, radio, ` ${SAYS[layer]}`));
    }
    const steps = h("input", { type: "range", min: 0, max: STEPS.length - 1, value: STEPS.indexOf(this.S) });
    steps.setAttribute("aria-label", "S, the number of sampling steps");
    const said = h("output", {}, `S = ${this.S}`);
    steps.addEventListener("input", () => {
      this.S = STEPS[Number(steps.value)];
      said.textContent = `S = ${this.S}`;
      steps.setAttribute("aria-valuetext", said.textContent);
      this.ask();
    });
    this.steps = steps;
    this.said = said;
    const settings = h("div", { class: "settings" }, h("label", {}, "steps ", steps, " ", said));
    settings.append(
      button("another noise", () => {
        this.seed += 1;
        this.ask();
      }),
    );
    const side = h("div", { class: "side" }, controls, this.trail, layers, settings, this.facts, this.status);
    root.classList.add("dae4rec-town");
    root.replaceChildren(h("div", { class: "map" }, this.map), side, this.lists);
  }

  /** The item nearest to the pointer. @param {MouseEvent} event */
  nearestTo(event) {
    const box = this.map.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 640;
    const y = ((event.clientY - box.top) / box.height) * 600;
    let best = 0;
    const far = (/** @type {number} */ item) => Math.hypot(this.at[item][0] - x, this.at[item][1] - y);
    for (let item = 1; item < this.at.length; item++) if (far(item) < far(best)) best = item;
    return best;
  }

  /** @param {number} item */
  tell(item) {
    if (item === this.told) return;
    this.told = item;
    const shares = LAYERS.filter((layer) => this.p[layer]).map(
      (layer) => `${SAYS[layer]} ${percent(this.p[layer][item])}`,
    );
    this.status.textContent = `${this.about.names[item]}${shares.length ? `: ${shares.join(", ")}` : ""}`;
  }

  /** @param {number} item */
  add(item) {
    this.items.push(item);
    this.slots.push(this.slots.length ? (this.slots[this.slots.length - 1] + 1) % 4 : 1);
    this.next = -1;
    this.ask();
  }

  /** @param {number} place */
  remove(place) {
    this.items.splice(place, 1);
    this.slots.splice(place, 1);
    this.next = -1;
    this.ask();
  }

  reset() {
    this.items = [];
    this.slots = [];
    this.next = -1;
    this.person.value = "";
    this.ask();
  }

  /** @param {number} n */
  load(n) {
    const person = this.about.people[n];
    if (!person) return;
    this.items = [...person.items];
    this.slots = [...person.slots];
    this.next = person.next;
    this.ask();
  }

  /** From the address, or the first person. */
  restore() {
    const state = new URLSearchParams(safeHash());
    const items = (state.get("history") ?? "").split(",").filter(Boolean).map(Number);
    const slots = (state.get("slots") ?? "").split(",").filter(Boolean).map(Number);
    const known = items.every((item) => item >= 0 && item < this.about.names.length);
    this.S = STEPS.includes(Number(state.get("S"))) ? Number(state.get("S")) : 10;
    this.steps.value = STEPS.indexOf(this.S);
    this.said.textContent = `S = ${this.S}`;
    this.seed = Number(state.get("noise")) || 0;
    if (!items.length || !known || slots.length !== items.length) {
      this.person.value = "0";
      this.load(0);
      return;
    }
    this.items = items;
    this.slots = slots.map((slot) => Math.min(3, Math.max(0, slot)));
    this.ask();
  }

  remember() {
    const state = { history: this.items.join(), slots: this.slots.join(), S: `${this.S}`, noise: `${this.seed}` };
    try {
      window.history.replaceState(null, "", `#${new URLSearchParams(state)}`);
    } catch {
      // a page inside a page may not change the address
    }
  }

  /** Everything anew: the law and the counts at once, the model's draws a few at a time. */
  ask() {
    this.job += 1;
    this.told = undefined;
    this.p = {};
    this.remember();
    if (this.items.length) {
      const venues = this.items.map((item) => this.about.venue[item]);
      const law = this.law.next(venues, this.slots);
      this.p.law = Float64Array.from(this.about.venue, (venue) => law[venue]);
      this.p.counts = this.count();
      this.draw(this.job);
    }
    this.paint();
  }

  /** First-order transitions of the newest item, with a tenth of popularity. */
  count() {
    const { popularity, follows } = /** @type {any} */ (this.about);
    const row = follows[this.items[this.items.length - 1]];
    const p = Float64Array.from(popularity, (/** @type {number} */ n) => n);
    const total = p.reduce((sum, n) => sum + n, 0);
    for (let item = 0; item < p.length; item++) p[item] *= 0.1 / total;
    const steps = row.reduce((/** @type {number} */ sum, /** @type {number[]} */ [, n]) => sum + n, 0);
    for (const [item, n] of row) p[item] += (0.9 * n) / steps;
    return p;
  }

  /** @param {number} job */
  draw(job) {
    const history = this.items;
    const condition = this.model.condition(history);
    const f = this.model.predictor(condition, history);
    const tau = chooseTau(this.model.timesteps, this.S);
    const noise = normal(1 + this.seed);
    const shares = new Float64Array(this.about.names.length);
    let drawn = 0;
    const some = () => {
      if (job !== this.job) return;
      const until = performance.now() + 30;
      do {
        for (let n = 0; n < AT_ONCE && drawn < DRAWS; n++) {
          const chain = this.model.chain(f, noise(this.model.dim), tau);
          shares[this.model.nearest(chain.beliefs[chain.beliefs.length - 1], condition, history)] += 1;
          drawn += 1;
        }
      } while (drawn < DRAWS && performance.now() < until);
      this.p.model = shares.map((count) => count / drawn);
      this.drawn = drawn;
      this.paint();
      if (drawn < DRAWS) setTimeout(some);
    };
    some();
  }

  paint() {
    const p = this.p[this.layer];
    this.dots.forEach((dot, item) => {
      const share = p ? p[item] : 0;
      dot.setAttribute("r", (share > 0.0005 ? Math.max(2.5, 46 * Math.sqrt(share)) : 2.5).toFixed(1));
      dot.setAttribute("class", share > 0.0005 ? `on ${this.layer}` : item === this.next ? "next" : "off");
    });
    const walk = this.items.slice(-8).map((item) => this.at[item].map((value) => value.toFixed(1)).join(" "));
    this.path.setAttribute("d", walk.length ? `M${walk.join("L")}` : "");
    this.paintTrail();
    this.paintLists();
  }

  paintTrail() {
    const shown = this.items.map((item, place) => {
      const name = this.about.names[item].split(",")[0];
      const chip = button(`${name} ×`, () => this.remove(place));
      chip.title = `${this.about.names[item]}, ${SLOTS[this.slots[place]]}: take it out`;
      return chip;
    });
    this.trail.replaceChildren(...(shown.length ? shown : [h("em", {}, "Click a place on the map to begin.")]));
  }

  paintLists() {
    const columns = LAYERS.map((layer) => ({ layer, best: this.p[layer] ? top(this.p[layer], 8) : [] }));
    const law = new Set(columns[0].best);
    this.lists.replaceChildren(
      ...columns.map(({ layer, best }) => {
        const list = h("ol", {});
        for (const item of best) {
          if (this.p[layer][item] === 0) continue;
          const entry = button(this.about.names[item], () => this.add(item));
          entry.className = `entry${law.has(item) ? " shared" : ""}${item === this.next ? " true" : ""}`;
          list.append(h("li", {}, entry, h("span", { class: "share" }, percent(this.p[layer][item]))));
        }
        return h("section", { class: layer }, h("h3", {}, SAYS[layer]), list);
      }),
    );
    if (!this.p.model) {
      this.facts.textContent = "";
      return;
    }
    const bits = (/** @type {Float64Array} */ q) => entropy(q).toFixed(1);
    const far = (/** @type {Float64Array} */ q) => totalVariation(q, this.p.law).toFixed(2);
    this.facts.textContent =
      `${this.drawn} draws at S = ${this.S}: ${bits(this.p.model)} bits, total variation from the law ` +
      `${far(this.p.model)}. The law has ${bits(this.p.law)} bits; counting is ${far(this.p.counts)} away.` +
      (this.next >= 0 ? ` This person went to ${this.about.names[this.next]} (★).` : "");
  }
}

/** @param {string} words @param {() => void} action */
function button(words, action) {
  const element = h("button", { type: "button" }, words);
  element.addEventListener("click", action);
  return element;
}

function safeHash() {
  try {
    return window.location.hash.slice(1);
  } catch {
    return "";
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export function mountTown(root, weights, about) {
  return new TownExplorer(root, new Model(weights), about);
}
