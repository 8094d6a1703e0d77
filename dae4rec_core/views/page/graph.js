/**
 * The graph explorer: one item and its company, by each notion of what is near.
 *
 * @typedef {object} About  what dae4rec_core.views.page.graph gathers
 * @property {string[]} names  of each item
 * @property {[number, number][]} xy  where each item is drawn
 * @property {{name: string, lists: number[][]}[]} notions  for each item the nearest others, best first
 * @property {{kind: string, of: number[]}} groups  of the items: "district" or "area", and the number of each
 * @property {number} start  the item that is shown first
 * @property {import("./parts.js").Asked} question
 */

import { Dots, askFirst, button, byName, followAddress, h, mount, recall, remember, row, scaled } from "./parts.js";

const BOX = { width: 640, height: 560 };
const KINDS = ["counts", "law", "model"]; // the colours of the notions
const MARKS = ["○", "◇", "□"];

export class GraphExplorer {
  /** @param {HTMLElement} root @param {Uint8Array} _ @param {About} about */
  constructor(root, _, about) {
    this.about = about;
    this.item = about.start;
    this.place = about.xy.map(scaled(about.xy, BOX, 0));
    this.dots = new Dots(BOX, about.names.length, (item) => this.tell(item), (item) => this.show(item));
    const datalist = h("datalist", { id: "dae4rec-items" }, ...about.names.map((name) => h("option", { value: name })));
    this.search = h("input", { list: datalist.id, placeholder: "an item by its name", "aria-label": "name of an item" });
    const form = h("form", {}, this.search, h("button", {}, "go"));
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const { item, words } = byName(about.names, this.search.value);
      if (item >= 0) this.show(item);
      else this.spoken.textContent = this.status.textContent = words;
    });
    this.facts = h("p", { class: "facts spoils", role: "status" });
    this.spoken = h("p", { class: "spoken", role: "status" });
    this.status = h("p", { class: "status" });
    this.lists = h("div", { class: "lists" });
    const key = about.notions.map(({ name }, n) => h("span", {}, h("b", { style: `color:var(--${KINDS[n]})` }, MARKS[n]), ` ${name}`));
    root.classList.add("dae4rec", "dae4rec-graph");
    root.replaceChildren(
      askFirst(root, about.question).box,
      h("div", { class: "map" }, this.dots.svg, h("p", { class: "legend" }, ...key, h("span", {}, "★ the item"))),
      h("div", { class: "side" }, row(form), datalist, this.facts, this.status, this.spoken),
      this.lists,
    );
    this.restore();
    followAddress(root, "item", () => this.restore());
  }

  restore() {
    this.item = recall("item", this.about.names.length, this.about.start);
    this.paint();
  }

  /** @param {number} item */
  show(item) {
    this.item = item;
    this.paint();
    remember({ item });
  }

  /** An item of a list, to go to. @param {number} item */
  entry(item) {
    const found = button(this.about.names[item], () => this.show(item));
    found.className = "entry";
    return found;
  }

  /** @param {number} item */
  tell(item) {
    const { names, notions } = this.about;
    const ranks = notions.flatMap(({ name, lists }) => {
      const rank = lists[this.item].indexOf(item) + 1;
      return rank ? [`number ${rank} of those ${name}`] : [];
    });
    this.dots.point(item);
    this.status.textContent = `${names[item]}${ranks.length ? `: ${ranks.join(", ")}` : ""}. Click to make it the middle.`;
  }

  paint() {
    const { names, notions, groups } = this.about;
    const { item, place } = this;
    const near = notions.map(({ lists }) => lists[item]);
    const [x, y] = place[item];
    const shapes = [
      (/** @type {number} */ a, /** @type {number} */ b) => h("circle", { cx: a, cy: b, r: 11 }),
      (/** @type {number} */ a, /** @type {number} */ b) => h("path", { d: `M${a} ${b - 9}l9 9l-9 9l-9 -9Z` }),
      (/** @type {number} */ a, /** @type {number} */ b) => h("path", { d: `M${a - 5} ${b - 5}h10v10h-10Z` }),
    ];
    const marks = near.flatMap((others, n) =>
      others.map((other) => {
        const [left, down] = place[other];
        const mark = shapes[n](left, down);
        mark.setAttribute("class", "notion");
        mark.setAttribute("style", `stroke:var(--${KINDS[n]})`);
        return mark;
      }),
    );
    const ways = near[0].map((other) => h("path", { class: "way", d: `M${x} ${y}L${place[other].join(" ")}` }));
    this.dots.below.replaceChildren(...ways);
    this.dots.above.replaceChildren(...marks, h("text", { x, y: y + 9, class: "star" }, "★"));
    const listed = new Set(near.flat());
    this.dots.put(place, (n) => ({ r: listed.has(n) ? 4 : 2.5, colour: "currentColor", opacity: listed.has(n) ? 0.9 : 0.3 }));
    const own = (/** @type {number[]} */ others) => others.filter((other) => groups.of[other] === groups.of[item]).length;
    const counted = notions.map(({ name }, n) => `of the ${near[n].length} ${name}, ${own(near[n])}`);
    const first = new Set(near[0]);
    this.facts.textContent = `${names[item]}. In the same ${groups.kind} lie ${counted.join("; ")}.`;
    this.dots.svg.setAttribute("aria-label", `Items on a map around ${names[item]}`);
    this.search.value = "";
    this.status.textContent = "Point at an item to see its name; click it, or tap it again, to make it the middle.";
    this.lists.replaceChildren(
      ...notions.map(({ name }, n) =>
        h(
          "section",
          { class: KINDS[n] },
          h("h2", {}, name),
          h("ol", {}, ...near[n].map((other) => h("li", {}, this.entry(other), h("span", {}, n && first.has(other) ? "also by edges" : "")))),
        ),
      ),
    );
  }
}

/** @param {HTMLElement} root @param {Uint8Array} weights @param {About} about */
export const mountGraph = (root, weights, about) => mount(root, () => new GraphExplorer(root, weights, about));
