/**
 * What the page's explorers share: elements, buttons, many draws a few at a time, and what to say when one can't start.
 */

export const DRAWS = 200;
const BUSY = 12; // milliseconds of drawing between two pictures

/**
 * @param {string} tag @param {Record<string, string | number>} [attributes] @param {...(Node | string)} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  const drawn = ["svg", "g", "circle", "path", "line", "text", "title"].includes(tag);
  const element = drawn
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {string} words @param {() => void} action */
export function button(words, action) {
  const element = h("button", { type: "button" }, words);
  element.addEventListener("click", action);
  return element;
}

/** @param {number} share */
export const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)}%` : `${(100 * share).toFixed(1)}%`);

/** Many draws of one question, a few milliseconds at a time, so that the page stays under the hand. */
export class Draws {
  /** @param {import("./model.js").Model} model */
  constructor(model) {
    this.model = model;
    this.done = 0;
    this.job = 0; // draws for an older question stop
    /** @type {Float64Array[]} */ this.ends = []; // e^0 of each
    this.counts = new Float64Array(model.nItems);
  }

  stop() {
    this.job += 1;
    this.done = 0;
    this.ends = [];
    this.counts.fill(0);
  }

  /** Shares of the items, which a draw stands for by its nearest one: (|V|,). */
  shares() {
    return this.counts.map((count) => count / this.done);
  }

  /**
   * @param {number[]} history @param {number[]} tau
   * @param {(n: number) => Float64Array} noise of every x_T
   * @param {object} options of Model.chain
   * @param {() => void} tell after every few draws
   * @param {number | "shared"} [mender] the compensator that takes the last step; none: f does
   */
  start(history, tau, noise, options, tell, mender) {
    this.stop();
    const job = this.job;
    const { model } = this;
    const condition = model.condition(history);
    const f = model.predictor(condition, history);
    const some = () => {
      if (job !== this.job) return;
      const until = performance.now() + BUSY;
      do {
        const { points, beliefs } = model.chain(f, noise(model.dim), tau, options);
        const last = points[points.length - 1];
        const e0 = mender === undefined ? beliefs[beliefs.length - 1] : model.compensate(last, condition, mender);
        this.ends.push(e0);
        this.counts[model.nearest(e0, condition, history)] += 1;
        this.done += 1;
      } while (this.done < DRAWS && performance.now() < until);
      tell();
      if (this.done < DRAWS) setTimeout(some);
    };
    setTimeout(some);
  }
}

/**
 * An explorer, or one sentence that says why there is none.
 * @template T @param {HTMLElement} root @param {() => T} make @returns {T | null}
 */
export function mount(root, make) {
  try {
    return make();
  } catch (error) {
    root.textContent = `The explorer could not start: ${error instanceof Error ? error.message : error}`;
    return null;
  }
}

/** A list to choose from, by number. @param {string} name @param {string[]} words @param {(n: number) => void} chosen */
export function choice(name, words, chosen) {
  const found = h("select", { "aria-label": name }, ...words.map((text, n) => h("option", { value: n }, text)));
  found.addEventListener("change", () => chosen(Number(found.value)));
  return found;
}

/** A slider over 0..most, and the words beside it, which `say` writes. @param {string} name @param {number} most @param {(n: number) => void} moved */
export function slider(name, most, moved) {
  const input = h("input", { type: "range", min: 0, max: most, "aria-label": name });
  const said = h("span", { "aria-hidden": "true" });
  input.addEventListener("input", () => moved(Number(input.value)));
  const say = (/** @type {number} */ at, /** @type {string} */ words) => {
    input.value = at;
    said.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  return { input, said, say };
}

/** A box to tick. @param {string} words @param {(on: boolean) => void} changed */
export function tick(words, changed) {
  const input = h("input", { type: "checkbox" });
  input.addEventListener("change", () => changed(input.checked));
  return { input, label: h("label", {}, input, ` ${words}`) };
}

/** Controls beside one another. @param {...(Node | string)} controls */
export const row = (...controls) => h("div", { class: "settings" }, ...controls);

/** A control with its name before it. @param {string} words @param {...(Node | string)} parts */
export const named = (words, ...parts) => h("label", {}, `${words} `, ...parts);

/** Calls again and again, until it answers false or the reader stops it. */
export class Player {
  /** @param {() => boolean} turn whether there is more to come @param {() => number} pause in milliseconds */
  constructor(turn, pause) {
    this.turn = turn;
    this.pause = pause;
    this.timer = 0;
    this.button = button("play", () => (this.timer ? this.stop() : this.start()));
  }

  start() {
    const once = () => {
      if (this.turn()) this.timer = window.setTimeout(once, this.pause());
      else this.stop();
    };
    this.button.textContent = "pause";
    this.timer = window.setTimeout(once);
  }

  stop() {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.button.textContent = "play";
  }
}

/** Points in a picture, which glide to where they are put, and can be pointed at. */
export class Dots {
  /**
   * @param {{width: number, height: number}} box @param {number} n how many
   * @param {(dot: number) => void} [point] @param {(dot: number) => void} [choose] by a click, or a second tap
   */
  constructor(box, n, point, choose = point) {
    this.box = box;
    this.svg = h("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img" });
    this.below = h("g");
    this.above = h("g");
    this.dots = Array.from({ length: n }, () => h("circle", { class: "glides" }));
    this.svg.append(this.below, ...this.dots, this.above);
    /** @type {number[][]} */ this.at = [];
    this.pointed = -1;
    if (!point || !choose) return;
    this.svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      const dot = this.nearest(event);
      if (event.pointerType !== "touch" && dot >= 0 && dot !== this.pointed) point((this.pointed = dot));
    });
    this.svg.addEventListener("click", (/** @type {PointerEvent} */ event) => {
      const dot = this.nearest(event);
      if (dot < 0) return;
      if (event.pointerType === "touch" && dot !== this.pointed) point((this.pointed = dot));
      else choose(dot);
    });
  }

  /** @param {PointerEvent} event */
  nearest(event) {
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.box.width;
    const y = ((event.clientY - box.top) / box.height) * this.box.height;
    const far = this.at.map(([left, down]) => Math.hypot(left - x, down - y));
    const best = far.indexOf(Math.min(...far));
    return far[best] <= 30 ? best : -1;
  }

  /** Marks one as pointed at. @param {number} dot */
  point(dot) {
    this.pointed = dot;
    this.svg.querySelector("circle.pointed")?.classList.remove("pointed");
    this.dots[dot].classList.add("pointed");
  }

  /**
   * @param {number[][]} at where each point is, in the units of the box
   * @param {(dot: number) => {r: number, colour: string, opacity?: number, kind?: string}} look of each
   */
  put(at, look) {
    this.at = at;
    this.dots.forEach((dot, n) => {
      const { r, colour, opacity = 0.6, kind = "" } = look(n);
      const [x, y] = at[n];
      dot.setAttribute("style", `cx:${x.toFixed(1)}px;cy:${y.toFixed(1)}px;r:${r}px;fill:${colour};fill-opacity:${opacity}`);
      dot.setAttribute("class", `glides ${kind}${n === this.pointed ? " pointed" : ""}`);
    });
  }
}

/**
 * An item by its name, or by a part of it that no other name has; -1 and a sentence otherwise.
 * @param {string[]} names @param {string} wanted
 */
export function byName(names, wanted) {
  const words = wanted.trim().toLowerCase();
  const found = names.flatMap((name, item) => (words && name.toLowerCase().includes(words) ? [item] : []));
  const exact = found.filter((item) => names[item].toLowerCase() === words);
  const [item] = exact.length ? exact : found;
  if (exact.length || found.length === 1) return { item, words: "" };
  if (!words) return { item: -1, words: "Type a name, or a part of one." };
  return { item: -1, words: found.length ? `${found.length} names have this in them; type more.` : "No name has this in it." };
}

/** What the address says under a key, as a whole number below a bound; otherwise something else. @param {string} key @param {number} below @param {number} otherwise */
export function recall(key, below, otherwise) {
  const n = Number(new URLSearchParams(window.location.hash.slice(1)).get(key) ?? NaN);
  return Number.isInteger(n) && n >= 0 && n < below ? n : otherwise;
}

/** Puts a state into the address, so that a figure can be sent to somebody. @param {Record<string, string | number>} state */
export function remember(state) {
  const words = Object.entries(state).map(([key, value]) => [key, `${value}`]);
  try {
    window.history.replaceState(null, "", `#${new URLSearchParams(words)}`);
  } catch {
    // a page inside another page may not change its address
  }
}

/**
 * Scrolls to an explorer that the address is about, and calls `restore` whenever another address of it is opened.
 * @param {HTMLElement} root @param {string} key that only its states have @param {() => void} restore
 */
export function followAddress(root, key, restore) {
  const mine = () => window.location.hash.includes(`${key}=`);
  if (mine()) setTimeout(() => root.scrollIntoView(), 200); // a widget stands in the page only after it is drawn
  window.addEventListener("hashchange", () => {
    if (mine()) restore();
  });
}

/**
 * From data to a box of a picture, y upwards, with the same scale both ways.
 * @param {number[][]} points @param {{width: number, height: number}} box @param {number} room a share left at each side
 * @returns {(point: number[]) => number[]}
 */
export function scaled(points, { width, height }, room) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (1 - 2 * room) * Math.min((width - 24) / (right - left), (height - 24) / (high - low));
  return ([x, y]) => [width / 2 + scale * (x - (left + right) / 2), height / 2 - scale * (y - (low + high) / 2)];
}

/**
 * A small chart: a title, lines, four numbers at its edges, and a mark at one x.
 * @typedef {{name: string, colour: string, dash: string, points: [number, number][]}} Line
 * @param {string} title
 * @param {Line[]} lines
 * @param {{x?: [number, number], y?: [number, number], log?: boolean, at?: number, ticks?: string[], said?: string, named?: number[]}} options
 *   x, y: the ends of the axes. at: the marked x, which is called `said`. ticks: what x = 0, 1, ... are called. named: the
 *   lines that the key names, if not all
 */
export function chart(title, lines, { x, y, log = false, at, ticks, said: calledAt = `${at}`, named: keyed } = {}) {
  const [width, height, left, bottom] = [300, 150, 34, 20];
  const every = lines.flatMap(({ points }) => points);
  const along = (/** @type {number} */ value) => (log ? Math.log(value) : value);
  const [from, to] = x ?? [Math.min(...every.map(([a]) => a)), Math.max(...every.map(([a]) => a))];
  const [low, high] = y ?? [0, 1.1 * Math.max(...every.map(([, b]) => b))];
  const right = (/** @type {number} */ a) => left + ((width - left - 8) * (along(a) - along(from))) / (along(to) - along(from));
  const up = (/** @type {number} */ b) => height - bottom - ((height - bottom - 8) * (b - low)) / (high - low);
  const text = (/** @type {number} */ a, /** @type {number} */ b, /** @type {string} */ words, /** @type {string} */ anchor) =>
    h("text", { x: a, y: b, "text-anchor": anchor }, words);
  const drawn = lines.map(({ colour, dash, points }) => {
    const d = points.map(([a, b]) => `${right(a).toFixed(1)} ${up(b).toFixed(1)}`).join("L");
    const dots = points.map(([a, b]) =>
      h("circle", { cx: right(a).toFixed(1), cy: up(b).toFixed(1), r: points.length > 25 ? 0 : 2.5, style: `fill:${colour}` }),
    );
    return h("g", {}, h("path", { d: d ? `M${d}` : "", style: `stroke:${colour}`, "stroke-dasharray": dash }), ...dots);
  });
  const axes = h("path", { class: "axes", d: `M${left} 8V${height - bottom}H${width - 8}` });
  const mark = at === undefined ? [] : [h("path", { class: "mark", d: `M${right(at).toFixed(1)} 8V${height - bottom}` })];
  const said = (/** @type {number} */ value) => (value >= 9.95 || value === 0 ? `${Math.round(value)}` : value.toFixed(1));
  const edges = [
    text(left - 4, height - bottom, said(low), "end"),
    text(left - 4, 18, said(high), "end"),
    ...(ticks
      ? ticks.map((words, n) => text(right(n), height - 4, words, n ? (n + 1 < ticks.length ? "middle" : "end") : "start"))
      : [text(left, height - 4, `${from}`, "start"), text(width - 8, height - 4, `${to}`, "end")]),
  ];
  const value = (/** @type {[number, number][]} */ points) => {
    const point = at === undefined ? points[points.length - 1] : points.find(([a]) => a === at);
    return point ? point[1].toFixed(2) : "not measured";
  };
  const shown = keyed ? keyed.map((n) => lines[n]) : lines;
  const values = shown.map(({ name, points }) => `${name} ${value(points)}`);
  const label = `${title}${at === undefined ? "" : `, at ${calledAt}`}: ${values.join(", ")}`;
  const sample = (/** @type {string} */ colour, /** @type {string} */ dash) =>
    h(
      "svg",
      { viewBox: "0 0 24 8", class: "sample", "aria-hidden": "true" },
      h("path", { d: "M0 4H24", style: `stroke:${colour}`, "stroke-dasharray": dash }),
    );
  const key = shown.map(({ name, colour, dash }) => h("span", {}, sample(colour, dash), name));
  return [
    h("h2", {}, title),
    h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, axes, ...mark, ...drawn, ...edges),
    h("p", { class: "key" }, ...key),
  ];
}

/**
 * A question to which the reader commits before what happens is told: until then, or until something else is moved, what
 * is marked "spoils" is hidden. `again` asks anew.
 * @typedef {{question: string, answers: string[], right: number, then: string}} Asked
 * @param {HTMLElement} root the explorer
 * @param {Asked | (() => Asked)} asked a function, if the right answer depends on what is shown; a `right` of -1 says that
 *   there is none yet, and `then` why
 */
export function askFirst(root, asked) {
  const now = () => (typeof asked === "function" ? asked() : asked);
  const told = h("p", { class: "told", role: "status", tabindex: -1 });
  const { question, answers } = now();
  const buttons = answers.map((words, n) =>
    button(words, () => {
      const { right, then } = now();
      told.textContent = `${right < 0 ? "" : n === right ? "Yes. " : `No: ${answers[right]}. `}${then}`;
      if (right < 0) return;
      buttons.forEach((one) => (one.disabled = true));
      buttons[n].classList.add("mine");
      root.classList.remove("unanswered");
      told.focus();
    }),
  );
  const box = h("div", { class: "question" }, h("p", {}, h("strong", {}, "First, your guess. "), question), ...buttons, told);
  root.classList.add("unanswered");
  for (const kind of ["input", "change", "click"]) {
    root.addEventListener(kind, (event) => {
      if (!box.contains(event.target)) root.classList.remove("unanswered");
    });
  }
  const again = () => {
    told.textContent = "";
    for (const one of buttons) {
      one.disabled = false;
      one.classList.remove("mine");
    }
  };
  return { box, again };
}
