/**
 * What inner products can't say: a graph built again from its strongest eigenvectors, with negative eigenvalues or without.
 *
 * @typedef {object} About  what dae4rec_core.views.page.spectrum gathers
 * @property {number[][]} matrix  A, symmetric (n, n)
 * @property {number[]} values  its eigenvalues, the largest absolute value first
 * @property {number[][]} vectors  the eigenvector of each, as a row
 * @property {number[]} stops  how many may be kept, so that equal eigenvalues stay together
 * @property {number[]} of  the kind of each item @property {string[]} kinds
 * @property {string[]} heat  colours from 0 to 1
 * @property {import("./parts.js").Asked} question
 */

import { askFirst, followAddress, h, mount, named, recall, remember, row, slider, tick } from "./parts.js";

export class SpectrumExplorer {
  /** @param {HTMLElement} root @param {Uint8Array} _ @param {About} about */
  constructor(root, _, about) {
    this.about = about;
    this.kept = about.values.length;
    this.signed = false;
    this.slider = slider("how many eigenvectors are kept", about.stops.length - 1, (n) => this.show({ kept: about.stops[n] }));
    this.tick = tick("negative eigenvalues too (no inner product of one vector an item has them)", (signed) => this.show({ signed }));
    const n = about.matrix.length;
    const heat = (/** @type {string} */ title) => {
      const canvas = h("canvas", { width: n, height: n, role: "img" });
      return { canvas, box: h("div", { class: "heat" }, h("h2", {}, title), canvas) };
    };
    this.made = heat("built again");
    const real = heat("the graph A");
    this.bars = h("svg", { viewBox: "0 0 300 150", role: "img" });
    this.facts = h("p", { class: "facts spoils", role: "status" });
    const scale = [0, 0.25, 0.5, 0.75, 1].map((share) => h("span", {}, h("b", { style: `color:${about.heat[Math.round(255 * share)]}` }, "■"), ` ${share}`));
    const words = [h("span", {}, `rows and columns: ${about.kinds[0]}, then ${about.kinds[1]}`), ...scale];
    root.classList.add("dae4rec", "dae4rec-spectrum");
    root.replaceChildren(
      askFirst(root, about.question).box,
      h("div", { class: "charts" }, real.box, this.made.box, h("div", { class: "chart" }, h("h2", {}, "eigenvalues, kept ones filled"), this.bars)),
      h("div", { class: "side wide" }, row(named("eigenvectors kept", this.slider.input, " ", this.slider.said)), row(this.tick.label), this.facts, h("p", { class: "legend" }, ...words)),
    );
    this.paintHeat(real.canvas, about.matrix, "the graph");
    this.restore();
    followAddress(root, "kept", () => this.restore());
  }

  /** @param {{kept?: number, signed?: boolean}} change */
  show(change) {
    Object.assign(this, change);
    this.paint();
    remember({ kept: this.kept, signed: Number(this.signed) });
  }

  restore() {
    const { stops, values } = this.about;
    const kept = recall("kept", values.length + 1, values.length);
    this.kept = stops.includes(kept) ? kept : values.length;
    this.signed = recall("signed", 2, 0) === 1;
    this.paint();
  }

  /** Sum of value v v^T over the kept ones. */
  rebuilt() {
    const { values, vectors, matrix } = this.about;
    const kept = values.slice(0, this.kept).map((value) => (this.signed ? value : Math.max(value, 0)));
    return matrix.map((row, i) => row.map((_, j) => kept.reduce((sum, value, k) => sum + value * vectors[k][i] * vectors[k][j], 0)));
  }

  /** Mean over pairs of two items of one kind, or of two. @param {number[][]} matrix @param {boolean} same */
  mean(matrix, same) {
    const { of } = this.about;
    const pairs = matrix.flatMap((row, i) => row.filter((_, j) => i !== j && (of[i] === of[j]) === same));
    return (pairs.reduce((sum, value) => sum + value, 0) / pairs.length).toFixed(2).replace("-0.00", "0.00");
  }

  /** @param {any} canvas @param {number[][]} matrix @param {string} name */
  paintHeat(canvas, matrix, name) {
    const context = canvas.getContext("2d");
    matrix.forEach((row, i) =>
      row.forEach((value, j) => {
        context.fillStyle = this.about.heat[Math.round(255 * Math.min(1, Math.max(0, value)))];
        context.fillRect(j, i, 1, 1);
      }),
    );
    canvas.setAttribute("aria-label", `${name}: same kind ${this.mean(matrix, true)}, other kind ${this.mean(matrix, false)} on average`);
  }

  paint() {
    const { about, kept, signed } = this;
    const made = this.rebuilt();
    const negative = about.values.slice(0, kept).filter((value) => value < 0).length;
    const left = negative && !signed ? `, of which ${negative} is left out as negative` : "";
    this.slider.say(about.stops.indexOf(kept), `${kept} of ${about.values.length}${left}`);
    this.tick.input.checked = signed;
    this.paintHeat(this.made.canvas, made, "built again");
    const [most, least] = [Math.max(...about.values), Math.min(...about.values, 0)];
    const up = (/** @type {number} */ value) => 10 + (120 * (most - value)) / (most - least);
    const wide = 280 / about.values.length;
    const bars = about.values.map((value, n) => {
      const used = n < kept && (signed || value > 0);
      const d = `M${10 + n * wide} ${up(0)}V${up(value)}h${0.7 * wide}V${up(0)}Z`;
      return h("path", { d, class: used ? "bar used" : "bar" });
    });
    const text = (/** @type {number} */ value) => h("text", { x: 290, y: up(value) + 5, "text-anchor": "end" }, value.toFixed(0));
    this.bars.replaceChildren(...bars, h("path", { class: "axes", d: `M10 ${up(0)}H290` }), text(most), ...(least < 0 ? [text(least)] : []));
    this.bars.setAttribute("aria-label", `${about.values.length} eigenvalues from ${least.toFixed(0)} to ${most.toFixed(0)}`);
    const error = Math.sqrt(made.reduce((sum, row, i) => sum + row.reduce((part, value, j) => part + (value - about.matrix[i][j]) ** 2, 0), 0));
    this.facts.textContent =
      `Two items of one kind have ${this.mean(made, true)} on average, two of different kinds ${this.mean(made, false)}; in the graph ` +
      `${this.mean(about.matrix, true)} and ${this.mean(about.matrix, false)}. The distance to the graph is ${error.toFixed(1)} (root of the sum of squares).`;
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountSpectrum = (root, weights, about) => mount(root, () => new SpectrumExplorer(root, weights, about));
