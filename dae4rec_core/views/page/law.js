/**
 * The law of the town in JavaScript: p(next visit | history), exactly, as dae4rec_core/data/town.py has it.
 *
 * A person has a persona, a home district and a returning habit (eta), of which the history tells something by Bayes'
 * rule; the next visit is either a return or a new place, whose kind depends on the hour and on the last two kinds and
 * whose district on where one is. tests/views/test_page.py holds it against the module.
 *
 * @typedef {object} Parameters  what dae4rec_core.views.page.law_parameters writes
 * @property {number[]} district  of each venue: (V,)
 * @property {number[]} category  of each venue: (V,)
 * @property {number[]} popularity  (V,)
 * @property {number[][]} near  (K, K)
 * @property {number[][][]} follows  (4, C + 1, C), row C: nothing yet
 * @property {number[][]} second  (C + 1, C)
 * @property {number[][]} taste  (P, C)
 * @property {number[][]} next_slot  (4, 4)
 * @property {number[]} etas  (E,)
 */

import { dot } from "./model.js";

export class Law {
  /** @param {Parameters} parameters */
  constructor(parameters) {
    this.p = parameters;
    this.kinds = parameters.taste[0].length;
    this.reach = this.measureReach(); // (K, C)
  }

  /** Popularity of each kind, weighed by nearness to each district. */
  measureReach() {
    const { near, district, category, popularity } = this.p;
    const cells = near.map(() => new Float64Array(this.kinds));
    popularity.forEach((value, venue) => {
      cells[district[venue]][category[venue]] += value;
    });
    return near.map((row) =>
      Float64Array.from({ length: this.kinds }, (_, c) => row.reduce((sum, w, k) => sum + w * cells[k][c], 0)),
    );
  }

  /** Weights of the kinds for each persona: (P, C). @param {number} slot @param {number[]} past venues, oldest first */
  weights(slot, past) {
    const { category, follows, second, taste } = this.p;
    const kind = (/** @type {number | undefined} */ venue) => (venue === undefined ? this.kinds : category[venue]);
    const first = follows[slot][kind(past.at(-1))];
    const before = second[kind(past.at(-2))];
    return taste.map((row) => Float64Array.from(row, (value, c) => value * first[c] * before[c]));
  }

  /**
   * p(persona, home, eta | history), flat (P K E), by Bayes from an even start.
   * @param {number[]} items venues, oldest first @param {number[]} slots of the day, 0 to 3, of each visit
   */
  posterior(items, slots) {
    const { near, district, category, popularity, taste, etas } = this.p;
    const log = new Float64Array(taste.length * near.length * etas.length);
    items.forEach((venue, t) => {
      const past = items.slice(0, t);
      const weight = this.weights(slots[t], past);
      const share = t ? past.filter((other) => other === venue).length / t : 0;
      let at = 0;
      for (let persona = 0; persona < taste.length; persona++) {
        for (let home = 0; home < near.length; home++) {
          const anchor = t === 0 || slots[t] === 0 ? home : district[past[t - 1]];
          const total = dot(weight[persona], this.reach[anchor]);
          const product = (weight[persona][category[venue]] * near[anchor][district[venue]] * popularity[venue]) / total;
          for (const eta of etas) log[at++] += Math.log(t ? eta * share + (1 - eta) * product : product);
        }
      }
    });
    const most = log.reduce((a, b) => Math.max(a, b), -Infinity);
    let sum = 0;
    for (let i = 0; i < log.length; i++) sum += log[i] = Math.exp(log[i] - most);
    return log.map((value) => value / sum);
  }

  /**
   * p(next venue | history): (V,).
   * @param {number[]} items venues, oldest first @param {number[]} slots of the day, 0 to 3, of each visit
   */
  next(items, slots) {
    if (!items.length) throw new Error("The history is empty; choose at least one place.");
    const { near, district, category, popularity, taste, next_slot: nextSlot, etas } = this.p;
    const belief = this.posterior(items, slots);
    const fresh = taste.map(() => new Float64Array(near.length)); // p(persona, home, and not a return)
    let returning = 0;
    let at = 0;
    for (let persona = 0; persona < taste.length; persona++) {
      for (let home = 0; home < near.length; home++) {
        for (const eta of etas) {
          fresh[persona][home] += belief[at] * (1 - eta);
          returning += belief[at++] * eta;
        }
      }
    }
    const cells = near.map(() => new Float64Array(this.kinds)); // density for each unit of popularity
    const [last, lastSlot] = [district[items.at(-1) ?? 0], slots.at(-1) ?? 0];
    for (let slot = 0; slot < 4; slot++) {
      const weight = this.weights(slot, items);
      for (let persona = 0; persona < taste.length; persona++) {
        for (let home = 0; home < near.length; home++) {
          const anchor = slot === 0 ? home : last; // in the morning one starts from home
          const mass = (nextSlot[lastSlot][slot] * fresh[persona][home]) / dot(weight[persona], this.reach[anchor]);
          for (let k = 0; k < near.length; k++) {
            const here = mass * near[anchor][k];
            for (let c = 0; c < this.kinds; c++) cells[k][c] += here * weight[persona][c];
          }
        }
      }
    }
    const p = Float64Array.from(popularity, (value, venue) => value * cells[district[venue]][category[venue]]);
    for (const venue of items) p[venue] += returning / items.length;
    return p;
  }
}
