/**
 * The town explorer: click places to make a history, and see what the law, the model and counting say comes next.
 *
 * @typedef {object} About  what dae4rec_core.views.page.town_about writes
 * @property {string[]} names  of each item, "name, district"
 * @property {[number, number][]} xy  of each item, in kilometres
 * @property {number[]} venue  the law's number of each item
 * @property {import("./law.js").Parameters} law
 * @property {{name: string, items: number[], slots: number[], next: number}[]} people
 * @property {number[]} popularity  how often each item was visited in training
 * @property {[number, number][][]} follows  of each item: what followed it in training, and how often
 */

import { Model, chooseTau, entropy, normal, samplingDistance, top, totalVariation } from "./model.js";
import { Law } from "./law.js";
import { DRAWS, Draws, askFirst, button, byName, followAddress, h, mount, percent, remember } from "./parts.js";

const STEPS = [1, 2, 3, 5, 10, 20, 50];
const SLOTS = ["morning", "noon", "evening", "night"];
const LAYERS = /** @type {const} */ (["law", "model", "counts"]);
const SAYS = { law: "the true law", model: "the model", counts: "counting" };
const HOW = {
  law: "exact; it knows the rules of the town and the hours of the visits",
  model: `share of ${DRAWS} draws whose nearest place it is; no compensator, no hours, the newest visits alone`,
  counts: "where others went from the newest place (90%), and what is popular (10%)",
};
const LISTED = 8;
const FAR = 30; // of 640 units of the map: a click farther than that from every place means none
const LONGEST = 200; // visits that an address may hold

/**
 * The tour: what is said, and what is done first.
 * @type {{say: string, act: (town: TownExplorer) => void}[]}
 */
const TOUR = [
  {
    say:
      "A person of the town. The dashed line follows their newest visits. The circles are the true law: where the next " +
      "visit is likely. This town is simulated, so its law is known; of a real town nobody knows it.",
    act: (town) => town.show({ layer: "law", S: 10, seed: 0, person: 0 }),
  },
  {
    say:
      "Counting: where did others go from the newest place? It needs no training. In its list, a bold name is also " +
      "among the law's first eight.",
    act: (town) => town.show({ layer: "counts" }),
  },
  {
    say:
      "The trained model. From pure noise it walks to a point in 10 steps, 200 times, and each point stands for its " +
      "nearest place. The figures under the controls say how far these draws are from the law, and how far counting is.",
    act: (town) => town.show({ layer: "model", S: 10 }),
  },
  {
    say:
      "One step in place of ten. The answer is then near the mean of what is possible, whatever the noise was, so the " +
      "draws fall on fewer places: look at their bits.",
    act: (town) => town.show({ S: 1 }),
  },
  {
    say:
      "Fifty steps, five times the work of ten. The draws come no nearer to the law than with ten, and fall on fewer " +
      "places: look at their distance and at their bits.",
    act: (town) => town.show({ S: 50 }),
  },
  {
    say:
      "Ten steps again, and 200 other first noises. The circles change a little, and the distance hardly: what is wrong " +
      "with the draws is not bad luck.",
    act: (town) => town.show({ S: 10, seed: town.seed + 1 }),
  },
  {
    say:
      "One visit more, far from the others. Counting looks at the newest place alone; the law and the model know the " +
      "places before it too.",
    act: (town) => {
      town.show({ S: 10, person: 0 });
      town.visitFarAway();
    },
  },
  {
    say: "Your turn: clear the history and click places, or load another person. The address keeps what you made.",
    act: () => {},
  },
];

export class TownExplorer {
  /** @type {any[]} */ dots = []; // a circle for each item
  /** @type {number[][]} */ at = []; // where they are on the map
  /** @type {any} */ asked;
  /** @type {Record<string, any>} */ layers = {}; // a radio button for each
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
    /** @type {"law" | "model" | "counts"} */ this.layer = "law";
    /** @type {Record<string, Float64Array>} */ this.p = {};
    this.draws = new Draws(model);
    this.pointed = -1;
    this.refused = ""; // why the last name was not taken, until the reader does something else
    /** @type {string[]} */ this.drawnAs = []; // what each circle looks like, so that only changes are written
    this.build(root);
    this.restore();
    followAddress(root, "history", () => this.restore());
  }

  /** @param {HTMLElement} root */
  build(root) {
    this.buildMap();
    this.trail = h("ol", { class: "trail", "aria-label": "the history, oldest first" });
    this.facts = h("p", { class: "facts spoils" });
    this.status = h("p", { class: "status" });
    this.spoken = h("p", { class: "spoken", role: "status" }); // for screen readers, once for each question
    this.lists = h("div", { class: "lists" }, ...LAYERS.map((layer) => this.buildList(layer)));
    const parts = [this.buildTour(), this.buildControls(), this.buildLayers(), this.buildSettings()];
    const side = h("div", { class: "side" }, ...parts, this.facts, this.status, this.spoken);
    root.classList.add("dae4rec", "dae4rec-town");
    this.asked = askFirst(root, () => this.question());
    root.replaceChildren(this.asked.box, h("div", { class: "map" }, this.map), side, this.trail, this.lists);
  }

  /** Which of the two answers to the history that is shown is nearer to the law? */
  question() {
    const { law, model, counts } = this.p;
    const known = law && model && this.draws.done === DRAWS;
    const [modelFar, countsFar] = known ? [model, counts].map((p) => totalVariation(p, law)) : [0, 0];
    return {
      question: `Which is nearer to the true law for this history: counting, or ${DRAWS} draws of the trained model?`,
      answers: ["counting", "the model"],
      right: known ? Number(modelFar < countsFar) : -1,
      then: known
        ? `Counting is ${countsFar.toFixed(2)} from the law and the draws ${modelFar.toFixed(2)} (0: the same, 1: ` +
          "nothing in common). Now try other histories, and read the lists below the map."
        : "There are no draws yet; choose a place, or wait for a second.",
    };
  }

  buildMap() {
    const { xy, names } = this.about;
    const label = `Map of the town with ${names.length} places; places can also be added by their name`;
    this.map = h("svg", { viewBox: "0 0 640 600", role: "img", "aria-label": label });
    this.path = h("path", { class: "walk" });
    const [xs, ys] = [xy.map(([x]) => x), xy.map(([, y]) => y)];
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    this.at = xy.map(([x, y]) => [
      20 + (600 * (x - left)) / (right - left),
      580 - (560 * (y - low)) / (high - low),
    ]);
    this.dots = this.at.map(([x, y]) => h("circle", { cx: x.toFixed(1), cy: y.toFixed(1) }));
    this.map.append(...this.dots, this.path);
    this.map.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (event.pointerType !== "touch") this.point(this.nearestTo(event));
    });
    this.map.addEventListener("click", (/** @type {PointerEvent} */ event) => {
      const item = this.nearestTo(event);
      if (item < 0) return;
      // a finger has no hover: its first tap names a place, its second one adds it
      if (event.pointerType === "touch" && item !== this.pointed) this.point(item);
      else this.add(item);
    });
  }

  /** TOUR, a step at a time. */
  buildTour() {
    let at = -1;
    const said = h("p", { role: "status" });
    const go = (/** @type {number} */ n) => {
      at = n < TOUR.length ? n : -1;
      if (at >= 0) TOUR[at].act(this);
      said.textContent = at >= 0 ? `${at + 1} of ${TOUR.length}. ${TOUR[at].say}` : "";
      back.hidden = at < 1;
      end.hidden = at < 0;
      next.textContent = at < 0 ? "take the tour" : at + 1 < TOUR.length ? "next" : "done";
    };
    const next = button("", () => go(at + 1));
    const back = button("back", () => go(at - 1));
    const end = button("leave the tour", () => {
      go(-1);
      next.focus();
    });
    go(-1);
    return h("div", { class: "tour" }, said, next, " ", back, " ", end);
  }

  /** Some settings at once. @param {{layer?: "law" | "model" | "counts", S?: number, seed?: number, person?: number}} settings */
  show({ layer = this.layer, S = this.S, seed = this.seed, person }) {
    Object.assign(this, { layer, S, seed });
    this.layers[layer].checked = true;
    this.showSteps();
    if (person !== undefined) {
      this.person.value = person;
      this.load(person);
    } else {
      this.draw();
      this.remember();
    }
  }

  /** Adds the place that is farthest from the newest one. */
  visitFarAway() {
    const here = this.at[this.items[this.items.length - 1] ?? 0];
    const far = this.at.map(([x, y]) => Math.hypot(x - here[0], y - here[1]));
    this.add(far.indexOf(Math.max(...far)));
  }

  /** A person, a place by its name, or nothing. */
  buildControls() {
    const { names, people } = this.about;
    const datalist = h("datalist", { id: "dae4rec-places" }, ...names.map((name) => h("option", { value: name })));
    this.search = h("input", { list: datalist.id, placeholder: "add a place by name", "aria-label": "name of a place" });
    const form = h("form", {}, this.search, h("button", {}, "add"));
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const { item, words } = byName(names, this.search.value);
      this.refused = words;
      if (item < 0) return this.tell();
      this.search.value = "";
      this.add(item);
    });
    this.person = h("select", { "aria-label": "load a person of the town" }, h("option", { value: "" }, "a person …"));
    this.person.append(...people.map(({ name }, n) => h("option", { value: n }, name)));
    this.person.addEventListener("change", () => {
      if (this.person.value) this.load(Number(this.person.value));
    });
    const clear = button("clear", () => this.change([], []));
    return h("div", { class: "controls" }, this.person, form, datalist, clear);
  }

  buildLayers() {
    const fields = h("fieldset", { class: "layers" }, h("legend", {}, "on the map"));
    for (const layer of LAYERS) {
      const radio = h("input", { type: "radio", name: "dae4rec-layer", value: layer });
      this.layers[layer] = radio;
      radio.checked = layer === this.layer;
      radio.addEventListener("change", () => {
        this.layer = layer;
        this.paintMap();
      });
      fields.append(h("label", { class: layer }, radio, ` ${SAYS[layer]}`));
    }
    return fields;
  }

  buildSettings() {
    this.steps = h("input", { type: "range", min: 0, max: STEPS.length - 1, "aria-label": "S, sampling steps" });
    this.said = h("span", { "aria-hidden": "true" });
    this.steps.addEventListener("input", () => {
      this.S = STEPS[Number(this.steps.value)];
      this.showSteps();
      this.draw();
      this.remember();
    });
    const dice = button("another noise", () => {
      this.seed += 1;
      this.draw();
      this.remember();
    });
    return h("div", { class: "settings" }, h("label", {}, "the model's steps ", this.steps, " ", this.said), dice);
  }

  showSteps() {
    this.steps.value = STEPS.indexOf(this.S);
    this.said.textContent = `S = ${this.S}`;
    this.steps.setAttribute("aria-valuetext", this.said.textContent);
  }

  /** A heading, how its numbers are made, and LISTED rows that are filled again and again. @param {string} layer */
  buildList(layer) {
    const rows = Array.from({ length: LISTED }, () => {
      const share = h("span", { class: "share" });
      const row = { item: -1, li: h("li", { hidden: "" }), entry: button("", () => this.add(row.item)), share };
      row.entry.className = "entry";
      row.li.append(row.entry, share);
      return row;
    });
    this.rows = { ...this.rows, [layer]: rows };
    const name = /** @type {keyof typeof SAYS} */ (layer);
    const heading = [h("h2", {}, SAYS[name]), h("p", { class: "how" }, HOW[name])];
    return h("section", { class: layer }, ...heading, h("ol", {}, ...rows.map(({ li }) => li)));
  }

  /** The item nearest to the pointer, -1 if none is near. @param {MouseEvent} event */
  nearestTo(event) {
    const box = this.map.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 640;
    const y = ((event.clientY - box.top) / box.height) * 600;
    const far = this.at.map(([left, down]) => Math.hypot(left - x, down - y));
    const best = far.indexOf(Math.min(...far));
    return far[best] <= FAR ? best : -1;
  }

  /** @param {number} item */
  point(item) {
    if (item === this.pointed) return;
    if (this.pointed >= 0) this.dots[this.pointed].classList.remove("pointed");
    if (item >= 0) this.dots[item].classList.add("pointed");
    this.pointed = item;
    this.refused = "";
    this.tell();
  }

  /** What each of the three says of the place that is pointed at, unless a name was just refused. */
  tell() {
    if (this.refused) {
      this.status.textContent = this.refused;
      return;
    }
    if (this.pointed < 0) {
      this.status.textContent = "Point at a place, or tap it, to see its name; click, or tap it again, to go there.";
      return;
    }
    const known = LAYERS.filter((layer) => this.p[layer]);
    const shares = known.map((layer) => `${SAYS[layer]} ${percent(this.p[layer][this.pointed])}`);
    this.status.textContent = `${this.about.names[this.pointed]}: ${shares.join(", ") || "not visited yet"}`;
  }

  /** Go to a place, at the next time of the day. @param {number} item */
  add(item) {
    const slot = this.slots.length ? (this.slots[this.slots.length - 1] + 1) % 4 : 1;
    this.change([...this.items, item], [...this.slots, slot]);
  }

  /** @param {number} place */
  remove(place) {
    const rest = (/** @type {number[]} */ values) => values.filter((_, n) => n !== place);
    this.change(rest(this.items), rest(this.slots));
    const chips = this.trail.querySelectorAll("button");
    (chips[Math.max(0, place - 1)] ?? this.search).focus();
  }

  /** A history that the reader made. @param {number[]} items @param {number[]} slots */
  change(items, slots) {
    this.person.value = "";
    this.ask(items, slots, -1);
    this.remember();
  }

  /** @param {number} n */
  load(n) {
    const { items, slots, next } = this.about.people[n];
    this.ask(items, slots, next);
    this.remember();
  }

  /** From the address; without a history there, or with one that can't be, the first person. */
  restore() {
    const state = new URLSearchParams(window.location.hash.slice(1));
    const whole = (/** @type {string} */ key, /** @type {number} */ below) => {
      const found = (state.get(key) ?? "").split(",").filter(Boolean).map(Number);
      return found.every((n) => Number.isInteger(n) && n >= 0 && n < below) ? found : null;
    };
    const [items, slots] = [whole("history", this.about.names.length), whole("slots", 4)];
    const [noise, steps] = [whole("noise", 2 ** 31), whole("S", 1 + STEPS[STEPS.length - 1])];
    this.seed = noise?.[0] ?? 0;
    this.S = steps?.length === 1 && STEPS.includes(steps[0]) ? steps[0] : 10;
    this.showSteps();
    if (!state.has("history") || !items || !slots || items.length !== slots.length || items.length > LONGEST) {
      const [first] = this.about.people;
      this.person.value = "0";
      this.ask(first.items, first.slots, first.next);
      return;
    }
    const same = this.about.people.findIndex((person) => `${person.items}|${person.slots}` === `${items}|${slots}`);
    this.person.value = same < 0 ? "" : same;
    this.ask(items, slots, same < 0 ? -1 : this.about.people[same].next);
  }

  remember() {
    remember({ history: this.items.join(), slots: this.slots.join(), S: this.S, noise: this.seed });
  }

  /**
   * Another history: the law and counting answer at once, the model's draws follow.
   * @param {number[]} items @param {number[]} slots @param {number} next
   */
  ask(items, slots, next) {
    [this.items, this.slots, this.next] = [items, slots, next];
    this.p = {};
    this.refused = "";
    this.asked.again();
    if (items.length) {
      const law = this.law.next(
        items.map((item) => this.about.venue[item]),
        slots,
      );
      this.p = { law: Float64Array.from(this.about.venue, (venue) => law[venue]), counts: this.count() };
    }
    this.paintTrail();
    this.draw();
  }

  /** First-order transitions of the newest item, with a tenth of popularity. */
  count() {
    const { popularity, follows } = this.about;
    const row = follows[this.items[this.items.length - 1]];
    const steps = row.reduce((sum, [, n]) => sum + n, 0);
    const visits = popularity.reduce((sum, n) => sum + n, 0);
    const p = Float64Array.from(popularity, (n) => ((steps ? 0.1 : 1) * n) / visits);
    for (const [item, n] of row) p[item] += (0.9 * n) / steps;
    return p;
  }

  /** The model's draws anew. */
  draw() {
    delete this.p.model;
    this.draws.stop();
    this.paint();
    if (!this.items.length) return;
    this.draws.start(this.items, chooseTau(this.model.timesteps, this.S), normal(1 + this.seed), {}, () => {
      this.p.model = this.draws.shares();
      this.paint();
    });
  }

  paint() {
    this.paintMap();
    for (const layer of LAYERS) if (layer !== "model" || this.draws.done === DRAWS || !this.draws.done) this.paintList(layer);
    this.tell();
    this.paintFacts();
  }

  paintMap() {
    const p = this.p[this.layer];
    this.dots.forEach((dot, item) => {
      const share = p ? p[item] : 0;
      const on = share > 0.0005;
      const r = (on ? Math.max(2.5, 46 * Math.sqrt(share)) : 2.5).toFixed(1);
      const kind = `${on ? `on ${this.layer}` : "off"}${item === this.next ? " next" : ""}`;
      if (this.drawnAs[item] === r + kind) return;
      this.drawnAs[item] = r + kind;
      dot.setAttribute("r", r);
      dot.setAttribute("class", `${kind}${item === this.pointed ? " pointed" : ""}`);
    });
    const walk = this.items.slice(-8).map((item) => this.at[item].map((value) => value.toFixed(1)).join(" "));
    this.path.setAttribute("d", walk.length ? `M${walk.join("L")}` : "");
  }

  paintTrail() {
    const unseen = this.items.length - this.model.config.data.max_len;
    const shown = this.items.map((item, place) => {
      const [name] = this.about.names[item].split(",");
      const chip = button(`${name} · ${SLOTS[this.slots[place]]} ×`, () => this.remove(place));
      chip.title = `${this.about.names[item]}: take it out of the history`;
      if (place < unseen) chip.className = "unseen"; // the model looks at the newest ones alone
      return h("li", {}, chip);
    });
    const hint = h("li", {}, h("em", {}, "Click a place on the map. Each visit is at the next time of the day."));
    this.trail.replaceChildren(...(shown.length ? shown : [hint]));
    this.trail.scrollTop = this.trail.scrollHeight; // the newest visit is in sight
  }

  /** @param {"law" | "model" | "counts"} layer */
  paintList(layer) {
    const p = this.p[layer];
    const best = p ? top(p, LISTED) : [];
    const law = new Set(this.p.law ? top(this.p.law, LISTED) : []);
    /** @type {any} */ (this.rows)[layer].forEach((/** @type {any} */ row, /** @type {number} */ n) => {
      const item = best[n];
      row.li.hidden = !p || !p[item];
      if (row.li.hidden) return;
      row.item = item;
      row.entry.textContent = `${item === this.next ? "★ " : ""}${this.about.names[item]}`;
      row.entry.classList.toggle("shared", layer !== "law" && law.has(item));
      row.share.textContent = percent(p[item]);
    });
  }

  paintFacts() {
    const { law, model, counts } = this.p;
    if (!model || this.draws.done < DRAWS) {
      this.facts.textContent = this.items.length ? `${this.draws.done} of ${DRAWS} draws …` : "";
      return;
    }
    const bits = (/** @type {Float64Array} */ q) => entropy(q).toFixed(1);
    const far = (/** @type {Float64Array} */ q) => totalVariation(q, law).toFixed(2);
    const went = this.next >= 0 ? ` This person went to ${this.about.names[this.next]} (★).` : "";
    this.facts.textContent =
      `${DRAWS} draws at S = ${this.S} are ${far(model)} from the law (total variation: 0 the same, 1 nothing in common); ` +
      `${DRAWS} draws of the law itself would be ${samplingDistance(law, DRAWS).toFixed(2)}, and counting is ${far(counts)}. ` +
      `The draws have ${bits(model)} bits (0: always the same place), the law ${bits(law)}. Bold: also among the law's first ${LISTED}.${went}`;
    this.spoken.textContent = this.facts.textContent;
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountTown = (root, weights, about) => mount(root, () => new TownExplorer(root, new Model(weights), about));
