// The WebSocket to our back end: comes back by itself, with longer pauses.

import { currentToken } from "./api.js";

const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;

export class Live {
  #socket = null;
  #stopped = false;
  #timer = 0;
  #pause = FIRST_PAUSE;
  #onEvent;
  #onState;

  /** `onEvent` gets each event, `onState` true or false: whether values come by themselves. */
  constructor(onEvent, onState) {
    this.#onEvent = onEvent;
    this.#onState = onState;
    this.#connect();
  }

  async #connect() {
    let token;
    try {
      token = await currentToken();
    } catch {
      this.#again();
      return;
    }
    if (this.#stopped) return;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
    this.#socket = socket;
    socket.addEventListener("open", () => socket.send(JSON.stringify({ token })));
    socket.addEventListener("message", ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "ready") {
        this.#pause = FIRST_PAUSE;
        this.#onState(event.live);
      }
      this.#onEvent(event);
    });
    socket.addEventListener("close", () => {
      if (this.#stopped) return;
      this.#onState(false);
      this.#again();
    });
  }

  #again() {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.#connect(), this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }
}
