/**
 * The noise explorer: what step t of which schedule leaves of points in the plane (Eq. 2).
 *
 * @typedef {object} About  what dae4rec_core.views.page.noise gathers
 * @property {[number, number][]} points  e^0 @property {[number, number][]} noise  epsilon of each
 * @property {number[]} of  the island of each @property {[number, number][]} centres  of the islands
 * @property {string[]} colours  of the islands
 * @property {Record<string, number[]>} levels  alpha_bar, t = 0..T, of each schedule
 * @property {string} schedule @property {number} t  what is shown at the start
 * @property {import("./parts.js").Asked} question
 */

import { Dots, Player, askFirst, chart, choice, followAddress, h, mount, named, recall, remember, row, slider } from "./parts.js";

const BOX = { width: 480, height: 480 };
const REACH = 4; // what the picture shows on each side of 0
const DASHES = ["", "6 3", "2 3"];

export class NoiseExplorer {
  /** @param {HTMLElement} root @param {Uint8Array} _ @param {About} about */
  constructor(root, _, about) {
    this.about = about;
    this.schedules = Object.keys(about.levels);
    this.schedule = about.schedule;
    this.t = about.t;
    this.last = about.levels[about.schedule].length - 1;
    this.dots = new Dots(BOX, about.points.length);
    this.dots.svg.classList.add("quick");
    this.which = choice("schedule", this.schedules, (n) => this.show({ schedule: this.schedules[n] }));
    this.slider = slider("t, the step of the forward process", this.last, (t) => this.show({ t }));
    this.player = new Player(
      () => {
        this.show({ t: (this.t + 1) % (this.last + 1) }, false);
        return this.t < this.last;
      },
      () => 120,
    );
    this.facts = h("p", { class: "facts" });
    this.spoken = h("p", { class: "spoken", role: "status" });
    this.chart = h("div", { class: "chart" });
    const islands = about.centres.map((_, n) => h("span", {}, h("b", { style: `color:${about.colours[n]}` }, "●"), ` island ${n + 1}`));
    const settings = [row(named("schedule", this.which)), row(named("t", this.slider.input, " ", this.slider.said), this.player.button)];
    root.classList.add("dae4rec", "dae4rec-noise");
    root.replaceChildren(
      askFirst(root, about.question).box,
      h("div", { class: "map" }, this.dots.svg, h("p", { class: "legend" }, ...islands, h("span", {}, "1, 2, 3: the centres, shrunk as the points are"), h("span", {}, "+ the mean of all"))),
      h("div", { class: "side" }, ...settings, this.facts, this.spoken, this.chart),
    );
    this.restore();
    followAddress(root, "schedule", () => this.restore());
  }

  /** @param {{schedule?: string, t?: number}} change @param {boolean} [stop] whether it ends the play */
  show(change, stop = true) {
    if (stop) this.player.stop();
    Object.assign(this, change);
    this.paint();
    if (stop || this.t === this.last) this.spoken.textContent = this.facts.textContent; // not at every step of a play
    remember({ schedule: this.schedules.indexOf(this.schedule), t: this.t });
  }

  restore() {
    this.schedule = this.schedules[recall("schedule", this.schedules.length, this.schedules.indexOf(this.about.schedule))];
    this.t = recall("t", this.last + 1, this.about.t);
    this.paint();
  }

  paint() {
    const { about, schedule, t } = this;
    const level = about.levels[schedule][t];
    const [signal, spread] = [Math.sqrt(level), Math.sqrt(1 - level)];
    const cloud = about.points.map((point, n) => [0, 1].map((c) => signal * point[c] + spread * about.noise[n][c])); // Eq. 2
    const side = BOX.width / (2 * REACH);
    const at = cloud.map(([x, y]) => [BOX.width / 2 + side * x, BOX.height / 2 - side * y]);
    this.dots.put(at, (n) => ({ r: 3, colour: about.colours[about.of[n]], opacity: 0.7 }));
    const mean = [0, 1].map((c) => at.reduce((sum, point) => sum + point[c], 0) / at.length);
    const middles = about.centres.map(([x, y]) => [BOX.width / 2 + side * signal * x, BOX.height / 2 - side * signal * y]);
    const word = (/** @type {number[]} */ [x, y], /** @type {string} */ text) => h("text", { x, y: y + 6, class: "middle" }, text);
    this.dots.above.replaceChildren(...middles.map((middle, n) => word(middle, `${n + 1}`)), word(mean, "+"));
    const nearest = cloud.map(([x, y]) => {
      const far = about.centres.map(([left, down]) => Math.hypot(x - signal * left, y - signal * down));
      return far.indexOf(Math.min(...far));
    });
    const right = Math.round((100 * nearest.filter((island, n) => island === about.of[n]).length) / nearest.length);
    this.which.value = this.schedules.indexOf(schedule);
    this.slider.say(t, `t = ${t} of ${this.last}`);
    this.dots.svg.setAttribute("aria-label", `${at.length} points at t = ${t} of the ${schedule} schedule; ${right}% are nearest to their own island`);
    this.facts.textContent =
      `ᾱ = ${level.toFixed(2)}: each point is ${signal.toFixed(2)} times itself plus ${spread.toFixed(2)} times its noise. ` +
      `Named by the nearest centre, ${right}% of the points are given their own island; blind guessing gets 33%.`;
    const lines = this.schedules.map((name, n) => ({
      name,
      colour: name === schedule ? "var(--model)" : "currentColor",
      dash: DASHES[n],
      points: about.levels[name].map((value, at) => /** @type {[number, number]} */ ([at, value])),
    }));
    this.chart.replaceChildren(...chart("ᾱ, the share of the signal's variance, against t", lines, { at: t, y: [0, 1] }));
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountNoise = (root, weights, about) => mount(root, () => new NoiseExplorer(root, weights, about));
