/**
 * The toy of toy.js under the reader's hand: choose delta, press play, and watch twelve embeddings fall together or hold.
 *
 * @typedef {object} About  what dae4rec_core.views.page.collapse gathers
 * @property {string[]} colours  of the districts
 * @property {import("./parts.js").Asked} question
 */

import { DISTRICTS, PLACES, Training, begin, district, meanLength, rightShare } from "./toy.js";
import { Dots, Player, askFirst, button, chart, h, mount, named, percent, row, slider } from "./parts.js";

const DELTAS = [0, 0.1, 1, 10];
const LAST = 1500; // steps of a run
const EVERY = 10; // steps between two pictures
const BOX = { width: 480, height: 480 };
const REACH = 2.4; // what the picture shows on each side of 0

export class CollapseExplorer {
  /** @type {Map<number, {length: [number, number][], right: [number, number][]}>} */ runs = new Map(); // by delta
  /** @type {Training} */ training = new Training(begin(0), DELTAS[0]);
  delta = DELTAS[0];
  seed = 0;

  /** @param {HTMLElement} root @param {Uint8Array} _ @param {About} about */
  constructor(root, _, about) {
    this.about = about;
    this.dots = new Dots(BOX, PLACES);
    this.dots.svg.classList.add("quick"); // training itself moves them little by little
    this.numbers = Array.from({ length: PLACES }, (_, place) => h("text", { "text-anchor": "middle" }, `${place + 1}`));
    this.dots.above.append(...this.numbers);
    this.slider = slider("delta, the weight of L_AIME", DELTAS.length - 1, (n) => this.begin(DELTAS[n], this.seed));
    this.player = new Player(() => this.walk(), () => 16);
    this.facts = h("p", { class: "facts" });
    this.spoken = h("p", { class: "spoken", role: "status" });
    this.charts = [0, 1].map(() => h("div", { class: "chart" }));
    const again = button("begin again", () => this.begin(this.delta, this.seed));
    const other = button("another start", () => {
      this.runs.clear();
      this.begin(this.delta, this.seed + 1);
    });
    const near = PLACES / DISTRICTS;
    const key = Array.from({ length: DISTRICTS }, (_, n) => h("span", {}, h("b", { style: `color:${about.colours[n]}` }, "●"), ` district ${n + 1}: ${n * near + 1} to ${(n + 1) * near}`));
    const settings = [row(named("δ", this.slider.input, " ", this.slider.said)), row(this.player.button, again, other)];
    root.classList.add("dae4rec", "dae4rec-collapse");
    root.replaceChildren(
      askFirst(root, about.question).box,
      h("div", { class: "map" }, this.dots.svg, h("p", { class: "legend" }, ...key)),
      h("div", { class: "side" }, ...settings, this.facts, this.spoken, h("div", { class: "below" }, ...this.charts)),
    );
    this.begin(this.delta, this.seed);
  }

  /** Another training, which waits for the reader. @param {number} delta @param {number} seed */
  begin(delta, seed) {
    this.player.stop();
    this.reset(delta, seed);
  }

  /** @param {number} delta @param {number} seed */
  reset(delta, seed) {
    Object.assign(this, { delta, seed });
    this.training = new Training(begin(seed), delta, 10 * seed + 1);
    this.runs.set(delta, { length: [], right: [] });
    this.note();
    this.paint();
  }

  /** Some steps, and their picture. Whether there are more to come. */
  walk() {
    if (this.training.steps >= LAST) this.reset(this.delta, this.seed);
    for (let n = 0; n < EVERY; n++) this.training.step();
    this.note();
    this.paint();
    const more = this.training.steps < LAST;
    if (!more) this.spoken.textContent = this.facts.textContent;
    return more;
  }

  note() {
    const { steps, weights } = this.training;
    const run = this.runs.get(this.delta);
    run?.length.push([steps, meanLength(weights)]);
    run?.right.push([steps, 100 * rightShare(weights)]);
  }

  paint() {
    const { weights, steps } = this.training;
    this.slider.say(DELTAS.indexOf(this.delta), `δ = ${this.delta}`);
    const side = BOX.width / (2 * REACH);
    const at = Array.from({ length: PLACES }, (_, place) => [
      BOX.width / 2 + side * weights[2 * place],
      BOX.height / 2 - side * weights[2 * place + 1],
    ]);
    this.dots.put(at, (place) => ({ r: 11, colour: this.about.colours[district(place)] }));
    this.numbers.forEach((text, place) => {
      text.setAttribute("x", at[place][0].toFixed(1));
      text.setAttribute("y", (at[place][1] + 4).toFixed(1));
    });
    const [length, right] = [meanLength(weights), rightShare(weights)];
    this.dots.svg.setAttribute("aria-label", `Twelve embeddings in the plane after ${steps} steps at δ = ${this.delta}; mean length ${length.toFixed(2)}`);
    this.facts.textContent =
      `Step ${steps} of ${LAST}. Mean length ${length < 0.0005 ? "below 0.001" : length.toFixed(3)}. For whoever is at a place, the model ` +
      `lists the eleven others; of the first three, ${percent(right)} are in that place's district. By chance it would be 27%.`;
    const lines = (/** @type {"length" | "right"} */ what) =>
      [...this.runs].map(([delta, run]) => ({
        name: `δ = ${delta}`,
        colour: delta === this.delta ? "var(--model)" : "var(--faint)",
        dash: ["", "6 3", "2 3", "8 3 2 3"][DELTAS.indexOf(delta)],
        points: run[what],
      }));
    const wide = /** @type {[number, number]} */ ([0, LAST]);
    this.charts[0].replaceChildren(...chart("mean length of E, against the step", lines("length"), { x: wide, y: [0, REACH] }));
    const chance = { name: "chance", colour: "currentColor", dash: "1 4", points: /** @type {[number, number][]} */ ([[0, 27.3], [LAST, 27.3]]) };
    const rights = [...lines("right"), chance];
    this.charts[1].replaceChildren(...chart("of the first three, in the same district (%)", rights, { x: wide, y: [0, 100] }));
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountCollapse = (root, weights, about) => mount(root, () => new CollapseExplorer(root, weights, about));
