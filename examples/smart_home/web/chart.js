// What is drawn as SVG. The chart: time from left to right, gaps where nothing was measured.

/** Averages in one chart. */
export const BUCKETS = 120;
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 120;
const LEFT = 34;
const BOTTOM = 18;
const TOP = 8;
const RIGHT = 6;

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A light bulb, drawn, for not every machine has it among its letters. */
export function bulb() {
  const svg = shape("svg", { viewBox: "0 0 24 24", class: "bulb", "aria-hidden": "true" });
  svg.append(shape("path", { d: "M12 2a7 7 0 0 0-4 12.7V17h8v-2.3A7 7 0 0 0 12 2zM9 18.5h6V20H9zM10 21h4v1h-4z" }));
  return svg;
}

const clock = (ts) => new Date(ts).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const day = (ts) => new Date(ts).toLocaleDateString([], { weekday: "short", day: "numeric" });

export class Chart {
  #points = [];
  #hours = 1;
  #open = null;
  #unit;
  #svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img" });

  constructor(unit) {
    this.#unit = unit;
    this.#draw();
  }

  get element() {
    return this.#svg;
  }

  /** Show these points, `[{ts, value}]`, oldest first, and what comes after them. */
  show(points, hours) {
    this.#points = points.filter((point) => typeof point.value === "number");
    this.#hours = hours;
    const last = this.#points.at(-1);
    this.#open = last ? { bucket: this.#bucketOf(last.ts), sum: last.value, count: 1 } : null;
    this.#draw();
  }

  /** Add a point that was measured just now, to the average that is open. */
  add({ ts, value }) {
    // Late ones are in the averages when these are read again.
    if (typeof value !== "number" || ts <= (this.#points.at(-1)?.ts ?? 0)) return;
    const bucket = this.#bucketOf(ts);
    if (this.#open?.bucket === bucket) this.#points.pop();
    else this.#open = { bucket, sum: 0, count: 0 };
    this.#open.sum += value;
    this.#open.count += 1;
    this.#points.push({ ts, value: this.#open.sum / this.#open.count });
    const start = this.#end() - this.#hours * 3_600_000;
    while (this.#points[0]?.ts < start) this.#points.shift();
    this.#draw();
  }

  #bucketOf(ts) {
    return Math.floor(ts / ((this.#hours * 3_600_000) / BUCKETS));
  }

  #end() {
    return Math.max(Date.now(), this.#points.at(-1)?.ts ?? 0);
  }

  #draw() {
    const end = this.#end();
    const start = end - this.#hours * 3_600_000;
    const points = this.#points.filter((point) => point.ts >= start);
    this.#svg.replaceChildren();
    this.#svg.dataset.points = points.length;
    this.#svg.dataset.last = points.at(-1)?.ts ?? "";
    if (!points.length) {
      this.#svg.setAttribute("aria-label", "No values in this time");
      this.#svg.append(shape("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "No values in this time"));
      return;
    }
    const values = points.map((point) => point.value);
    let low = Math.min(...values);
    let high = Math.max(...values);
    this.#svg.setAttribute("aria-label", `From ${low.toFixed(1)} to ${high.toFixed(1)} ${this.#unit}`);
    const margin = Math.max((high - low) * 0.1, 0.5);
    low -= margin;
    high += margin;
    const x = (ts) => LEFT + ((ts - start) / (end - start)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    this.#drawAxes(start, end, low, high, x, y);
    this.#drawLine(points, x, y);
  }

  #drawAxes(start, end, low, high, x, y) {
    for (const value of [low, (low + high) / 2, high]) {
      this.#svg.append(
        shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        shape("text", { x: LEFT - 5, y: y(value) + 3, "text-anchor": "end" }, value.toFixed(1)),
      );
    }
    const label = this.#hours > 24 ? day : clock;
    for (const [part, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
      const ts = start + (end - start) * part;
      this.#svg.append(shape("text", { x: x(ts), y: HEIGHT - 4, "text-anchor": anchor }, label(ts)));
    }
  }

  #drawLine(points, x, y) {
    // Twice the usual distance of two averages, at least a minute, is a gap.
    const gap = Math.max(60_000, (this.#hours * 3_600_000) / 50);
    let path = "";
    points.forEach((point, index) => {
      const jump = index === 0 || point.ts - points[index - 1].ts > gap;
      path += `${jump ? "M" : "L"}${x(point.ts).toFixed(1)} ${y(point.value).toFixed(1)}`;
    });
    const last = points.at(-1);
    this.#svg.append(
      shape("path", { d: path, class: "line" }),
      shape("circle", { cx: x(last.ts), cy: y(last.value), r: 3, class: "last" }),
    );
  }
}
