// One room as a card: values, chart, light.

import { call } from "./api.js";
import { bulb, BUCKETS, Chart } from "./chart.js";
import { make, showProblem } from "./dom.js";

const RANGES = [[1, "1 h"], [24, "24 h"], [168, "7 d"]];
const time = (ts) => new Date(ts).toLocaleTimeString();

export class RoomCard {
  #values = {};
  #hours = 1;
  #switching = false;
  #online = null;
  #lit = null;
  #chart = new Chart("°C");
  #status = make("span", { class: "status" });
  #temperature = make("output", { class: "reading big" }, "–");
  #humidity = make("output", { class: "reading" }, "–");
  #since = make("small", { class: "muted" });
  #light = make("button", { class: "switch", type: "button", role: "switch", "aria-checked": "false" });
  #lightText = make("span", { class: "muted", role: "status" });
  #problem = make("p", { class: "problem", role: "alert", hidden: true });
  #ranges;
  #titleElement;

  constructor(room, { onRename, onDelete }) {
    this.room = room;
    this.#titleElement = make("h2", {}, room.name);
    this.#light.setAttribute("aria-label", `Light in ${room.name}`);
    this.#light.addEventListener("click", () => this.#toggle());
    this.#ranges = RANGES.map(([hours, label]) =>
      make("button", { type: "button", "aria-pressed": String(hours === this.#hours), click: () => this.#choose(hours) }, label),
    );
    this.element = make(
      "article",
      { class: "card room", "data-room": room.id, "aria-busy": "true" },
      make("header", {}, this.#titleElement, this.#status),
      make("div", { class: "readings" },
        make("div", {}, this.#temperature, make("span", { class: "muted" }, "Temperature")),
        make("div", {}, this.#humidity, make("span", { class: "muted" }, "Humidity"))),
      make("div", { class: "ranges", role: "group", "aria-label": "Time shown" }, ...this.#ranges),
      this.#chart.element,
      make("div", { class: "light" }, bulb(),
        make("div", { class: "grow" }, make("strong", {}, "Light"), this.#lightText), this.#light),
      this.#problem,
      make("footer", {}, this.#since, make("span", { class: "spacer" }),
        make("button", { class: "link", type: "button", click: onRename }, "Rename"),
        make("button", { class: "link", type: "button", click: onDelete }, "Remove")),
    );
    this.loadHistory();
  }

  /** Take what was read of this room: `{online, values}`. */
  update({ online, values }) {
    this.#setOnline(online);
    for (const [key, point] of Object.entries(values)) if (point) this.#take(key, point);
    this.element.removeAttribute("aria-busy");
  }

  /** Take an event of the live feed. */
  happened(event) {
    if (event.type === "status") this.#setOnline(event.online);
    else if (event.type === "telemetry") this.#take(event.key, event);
    else if (event.type === "gone") this.fail("The device of this room is no longer known.");
  }

  /** Read the chart's points. */
  async loadHistory() {
    const hours = this.#hours;
    try {
      const path = `/rooms/${this.room.id}/history?key=temperature&hours=${hours}&buckets=${BUCKETS}`;
      const history = await call("GET", path);
      // Another range may have been chosen meanwhile.
      if (hours === this.#hours) this.#chart.show(history.points, hours);
    } catch (error) {
      this.fail(error.message);
    }
  }

  fail(sentence) {
    showProblem(this.#problem, sentence);
    this.element.removeAttribute("aria-busy");
  }

  #choose(hours) {
    this.#hours = hours;
    RANGES.forEach(([each], index) => this.#ranges[index].setAttribute("aria-pressed", String(each === hours)));
    this.loadHistory();
  }

  #setOnline(online) {
    this.#online = online;
    this.#status.textContent = online ? "Online" : online === null ? "" : "Offline";
    this.element.classList.toggle("offline", online === false);
  }

  #take(key, { ts, value }) {
    if (ts < (this.#values[key]?.ts ?? 0)) return;
    this.#values[key] = { ts, value };
    if (key === "temperature") {
      this.#temperature.textContent = typeof value === "number" ? `${value.toFixed(1)} °C` : String(value);
      this.#chart.add({ ts, value });
    } else if (key === "humidity") {
      this.#humidity.textContent = typeof value === "number" ? `${value.toFixed(0)} %` : String(value);
    } else if (key === "light" && !this.#switching && (value === true) !== this.#lit) {
      this.#showLight(value === true, value === true ? "On" : "Off");
    }
    const latest = Math.max(...Object.values(this.#values).map((each) => each.ts));
    this.#since.textContent = `Last heard at ${time(latest)}`;
  }

  #showLight(on, text) {
    this.#lit = on;
    this.#light.setAttribute("aria-checked", String(on));
    this.element.classList.toggle("lit", on);
    this.#lightText.textContent = text;
  }

  async #toggle() {
    if (this.#switching) return;
    const before = this.#values.light?.value === true;
    const state = before ? "off" : "on";
    this.#switching = true;
    this.#light.setAttribute("aria-busy", "true");
    showProblem(this.#problem, null);
    this.#showLight(!before, this.#online === false ? "Trying to reach the device…" : `Switching ${state}…`);
    try {
      const answer = await call("POST", `/rooms/${this.room.id}/light`, { state });
      if (answer.observed) this.#values.light = answer.observed;
      const on = answer.observed ? answer.observed.value === true : !before;
      const said = answer.verified ? `confirmed by the device at ${time(answer.observed.ts)}` : "not confirmed by the device yet";
      this.#showLight(on, `${on ? "On" : "Off"}, ${said}`);
    } catch (error) {
      this.#showLight(before, before ? "On" : "Off");
      showProblem(this.#problem, error.message);
    } finally {
      this.#switching = false;
      this.#light.removeAttribute("aria-busy");
    }
  }
}
